"""A forced restore meets a database that is open.

A container restores over a database on a shared volume while a program in another container has it open. The two do not
see each other's processes, and the program's connection may be idle: it has read nothing yet and holds no lock of
SQLite's. Were the file replaced, the program would go on with one that has no name any more, and what it commits would be
confirmed and lost. So nobody who has the file open is overlooked, and an open that comes in between gets the new file.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing

import pytest

from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env
from harness.sql import fill, insert, restore, sync
from harness.worker import SqlError

RESTORE = f"""
import sqlite3, sys
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension({str(LIBRARY)!r})
try:
    print(db.execute("SELECT litestream_restore(?, ?, ?)", sys.argv[1:]).fetchone()[0])
except sqlite3.OperationalError as e:
    print("refused:", e)
"""


def elsewhere(location, path, *without) -> str:
    """A forced restore in another PID namespace, as in another container: its report, or why it was refused."""
    cut_off = [*without, "unshare", "--pid", "--fork", "--mount-proc"]
    if (tried := subprocess.run([*cut_off, "true"], capture_output=True, text=True)).returncode:
        pytest.skip(f"no PID namespace can be had here: {tried.stderr.strip()}")
    script = [SYSTEM_PYTHON, "-c", RESTORE, location.full_url, str(path), json.dumps({"force": True})]
    ran = subprocess.run([*cut_off, *script], env=clean_env(**location.env), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture
def path(start, in_folder, tmp_path):
    """A database that was replicated and is closed."""
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(db, 100)
    sync(db)
    db.close()
    return tmp_path / "app.db"


def assert_refused(said: str, path) -> None:
    assert said.startswith("refused:") and str(path) in said and "open" in said and "close" in said, said


def test_a_primary_that_has_read_nothing_yet(start, in_folder, path):
    db = start("python", in_folder).open(in_folder.primary(path))
    assert_refused(elsewhere(in_folder, path), path)
    insert(db, 7)
    sync(db)
    db.close()
    assert json.loads(elsewhere(in_folder, path))["restored"]
    again = start("python", in_folder).open(in_folder.primary(path))
    assert again.one("SELECT count(*) FROM t") == 107
    assert again.one("PRAGMA integrity_check") == "ok"


def test_a_primary_that_writes(start, in_folder, path):
    db = start("python", in_folder).open(in_folder.primary(path))
    insert(db, 7)
    assert_refused(elsewhere(in_folder, path), path)
    insert(db, 1)
    sync(db)
    db.close()
    assert json.loads(elsewhere(in_folder, path))["restored"]
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (108,)


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("has_read", [True, False])
def test_a_program_without_this_library(journal_mode, has_read, start, in_folder, path):
    with closing(sqlite3.connect(path)) as before:
        before.execute(f"PRAGMA journal_mode = {journal_mode}")
    plain = start("python", in_folder, load=False).open(path)
    if has_read:
        assert plain.one("SELECT count(*) FROM t") == 100
    assert_refused(elsewhere(in_folder, path), path)
    insert(plain, 1)
    assert plain.one("SELECT count(*) FROM t") == 101
    assert plain.one("PRAGMA integrity_check") == "ok"
    plain.close()
    assert json.loads(elsewhere(in_folder, path))["restored"]


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_where_the_system_does_not_say_who_has_a_file_open(start, in_folder, path):
    """A container's root may not ask that about files of other users: then locks tell."""
    no_leases = ["setpriv", "--bounding-set", "-lease", "--inh-caps", "-lease"]
    os.chown(path, 4001, 4001)
    for uri in (in_folder.primary(path), path):
        db = start("python", in_folder).open(uri)
        if uri is path:
            assert db.one("SELECT count(*) FROM t") == 100
        assert_refused(elsewhere(in_folder, path, *no_leases), path)
        db.close()
    assert json.loads(elsewhere(in_folder, path, *no_leases))["restored"]
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (100,)


def test_a_connection_of_the_same_process_and_its_locks(start, in_folder, path):
    worker = start("python", in_folder)
    plain = worker.open(path)
    plain.run("BEGIN IMMEDIATE", "INSERT INTO t(name) VALUES ('mine')")
    other = worker.open(":memory:", "other")
    with pytest.raises(SqlError, match="this process"):
        restore(other, in_folder, path, force=True)
    # The refusal released no lock: nobody else can write.
    with closing(sqlite3.connect(path, timeout=0)) as second, pytest.raises(sqlite3.OperationalError, match="locked"):
        second.execute("BEGIN IMMEDIATE")
    plain.run("COMMIT")
    plain.close()
    idle = worker.open(in_folder.primary(path), "idle")
    with pytest.raises(SqlError, match="open"):
        restore(other, in_folder, path, force=True)
    idle.close()
    assert restore(other, in_folder, path, force=True)["restored"]


def test_a_file_that_was_removed_while_it_is_open(start, in_folder, path):
    """The program would go on with the log of a database that is not its own."""
    db = start("python", in_folder).open(in_folder.primary(path))
    assert db.one("SELECT count(*) FROM t") == 100
    path.unlink()
    assert_refused(elsewhere(in_folder, path), path)
    assert not path.exists() and path.with_name("app.db-wal").exists()


def test_nothing_is_left_of_the_check(start, in_folder, path, tmp_path):
    target = tmp_path / "copies" / "copy.db"
    db = start("python", in_folder).open(":memory:")
    restore(db, in_folder, target)
    assert restore(db, in_folder, target, force=True)["restored"]
    # The folder says which state was restored.
    assert {entry.name for entry in target.parent.iterdir()} == {"copy.db", ".copy.db-litestream"}


def test_opens_while_restores_replace_the_file(start, in_folder, path):
    """Each open gets the file that has the name, whenever it comes: what it commits is in file and replica."""
    stop, said = threading.Event(), []

    restorer = start("python", in_folder).open(":memory:")

    def restores() -> None:
        while not stop.is_set():
            try:
                restore(restorer, in_folder, path, force=True)
                said.append("restored")
            except SqlError as e:
                said.append(str(e))

    restoring = threading.Thread(target=restores)
    restoring.start()
    try:
        worker = start("python", in_folder)
        for n in range(1, 31):
            if n == 30:
                # One that began before the last commit and ended after the last close would leave the file without it.
                stop.set()
                restoring.join()
            db = worker.open(in_folder.primary(path))
            insert(db, 1)
            assert db.one("SELECT count(*) FROM t") == 100 + n
            sync(db)
            db.close()
    finally:
        stop.set()
        restoring.join()
    assert "restored" in said and all(s == "restored" or "open" in s for s in said), set(said)
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (130,)
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy = path.with_name("copy.db")
    restore(worker.open(":memory:", "plain"), in_folder, copy)
    with closing(sqlite3.connect(copy)) as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (130,)
