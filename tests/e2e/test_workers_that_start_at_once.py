"""Four workers of one application start at the same moment, on a disk that holds what a backup brought back.

One of them publishes. The others read and wrote before it had decided what the database is: an earlier state was read
instead of being brought forward, and a newest one that had been written to meanwhile was taken for another database.
"""

import shutil
import subprocess

from harness import litestream
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env
from harness.sql import fill, insert, restore, sync

WORKER = f"""
import sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({str(LIBRARY)!r})
uri, statement = sys.argv[1:]
sys.stdin.readline()
db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
print(db.execute("SELECT count(*) FROM t").fetchone()[0], flush=True)
if statement:
    db.execute(statement)
db.execute("SELECT litestream_sync(20)")
"""


def start_at_once(folder, uri, statement=""):
    """What four workers read first."""
    workers = [subprocess.Popen([SYSTEM_PYTHON, "-c", WORKER, uri, statement], cwd=folder, env=clean_env(), text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=60) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), said
    return [int(out) for out, _ in said]


def test_on_a_disk_that_was_reverted(start, in_folder, tmp_path):
    app, before = tmp_path / "app", tmp_path / "before"
    app.mkdir()
    db = start("python", in_folder).open(in_folder.primary(app / "app.db"))
    fill(db, rows=200)
    sync(db)
    db.worker.end()
    shutil.copytree(app, before, ignore=shutil.ignore_patterns("*.sock"))
    db = start("python", in_folder).open(in_folder.primary(app / "app.db"))
    insert(db, rows=50)
    sync(db)
    db.worker.end()
    for _ in range(3):
        shutil.rmtree(app)
        shutil.copytree(before, app)
        assert start_at_once(app, in_folder.primary(app / "app.db")) == [250] * 4


def test_on_a_restored_disk_and_all_write(start, in_folder, tmp_path):
    app = tmp_path / "app"
    app.mkdir()
    db = start("python", in_folder).open(in_folder.primary(app / "app.db"))
    fill(db, rows=50)
    sync(db)
    db.worker.end()
    for n in range(5):
        shutil.rmtree(app)
        app.mkdir()
        # Litestream leaves no word of which state it is.
        litestream.restore(in_folder, app / "app.db")
        rows = start_at_once(app, in_folder.primary(app / "app.db"), "INSERT INTO t(name) VALUES ('new')")
        assert min(rows) >= 50 + 4 * n
    reader = start().open(":memory:")
    restore(reader, in_folder, tmp_path / "restored.db")
    restored = start().open(tmp_path / "restored.db")
    assert restored.one("SELECT count(*) FROM t") == 50 + 4 * 5
    assert restored.content().integrity == "ok"
