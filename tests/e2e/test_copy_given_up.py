"""A program lives too short for the first copy of its database, over a slow link.

Each run sends some parts of it and ends: it is killed, it closes, or it just ends. What arrived stays in the store, and the next run sends
only what is missing, or what was changed meanwhile; a copy gets done however short the runs are. What is there then is the
database as it is in the last run, byte for byte, whatever was changed in between, and whatever the store has forgotten. A close ends within
`close_timeout`; it tells how far the copy came and what to do, and so does the status of the next run.
"""

import re
import shutil
import sqlite3
import time
from random import Random

import pytest

from harness.litestream import restore
from harness.script import run
from harness.slow_link import SlowLink
from harness.sql import sync
from harness.wait import until

KEPT = (r"the copy of the database, which came to (\d+) %, is not finished: the ([\d.]+) MiB that arrived are kept for a week, and "
        r"the next open sends the rest: keep the database open")
PART = 5 << 20
SIZE = 60_000_000
SHORT_RUN = """
load()
db = connect(uri)
deadline = time.monotonic() + 20
while one(db, "SELECT state FROM litestream_status") != "copying":
    assert time.monotonic() < deadline
    time.sleep(0.02)
"""

# Waits until so many percent are there.
UNTIL = """
import re
deadline = time.monotonic() + 60
while True:
    try:
        db.execute("SELECT litestream_sync(0.5)").fetchall()
    except sqlite3.OperationalError as e:
        if re.search("it is still copying, and came to (1[5-9]|2[0-9]) %", str(e)):
            break
        assert time.monotonic() < deadline, e
"""


def fill(path) -> None:
    """A database that cannot be compressed, the same in each test; each megabyte of it ends with a page that holds one row of `s`."""
    random = Random(1)
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, data)")
    db.execute("CREATE TABLE s(id INTEGER PRIMARY KEY, data)")
    for n in range(SIZE // 1_000_000):
        db.execute("INSERT INTO t VALUES (?, ?)", (n, random.randbytes(1_000_000)))
        db.execute("INSERT INTO s VALUES (?, ?)", (n, random.randbytes(3000)))
    db.commit()
    db.close()


def another(megabyte: int) -> str:
    """Changes a page of that megabyte, which is compressed to the same size as before."""
    return f"UPDATE s SET data = x'{Random(megabyte).randbytes(3000).hex()}' WHERE id = {megabyte}"


def change(path, *statements: str) -> None:
    """Another program writes the database."""
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def content(path) -> list:
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [db.execute(f"SELECT id, data FROM {table} ORDER BY id").fetchall() for table in ("t", "s")]


@pytest.fixture
def link(proxy) -> SlowLink:
    return SlowLink(proxy)


@pytest.fixture
def uri(through_proxy, tmp_path) -> str:
    fill(tmp_path / "app.db")
    return through_proxy.primary(tmp_path / "app.db", close_timeout="500ms", part_size="5MiB")


@pytest.fixture
def short_run(start, through_proxy, link, uri):
    """A run during which the link takes so many parts, killed then or closed."""

    def short_run(parts: int, end: str) -> None:
        link.take(parts)
        worker = start("python", through_proxy)
        primary = worker.open(uri)
        until(lambda: link.is_silent, 60, "the link is silent")
        if end == "kill":
            worker.kill()
            return
        began = time.monotonic()
        primary.close()
        took = time.monotonic() - began
        assert took < 2.5, f"a close with a close_timeout of 0.5 s took {took:.1f} s"
        worker.end()

    return short_run


@pytest.fixture
def last_run(start, through_proxy, link, uri, in_s3, tmp_path):
    """The run that gets it done; what it left is the database."""

    def last_run() -> None:
        link.take(None)
        worker = start("python", through_proxy)
        primary = worker.open(uri)
        sync(primary, 120)
        primary.close()
        worker.end()
        assert content(restore(in_s3, tmp_path / "restored.db")) == content(tmp_path / "app.db")
        print(f"object {copy_size(in_s3)} bytes, stored {link.stored()}, sent {link.sent()}")

    return last_run


def copy_size(location) -> int:
    """The size of the first copy."""
    return max(file.size for file in location.files())


@pytest.mark.parametrize("end", ["kill", "close"])
def test_runs_that_are_too_short_get_it_done(end, short_run, last_run, link, in_s3):
    for parts in (4, 1, 3):
        short_run(parts, end)
    last_run()
    # Each part got there once, the first one too; a part was on its way at each end.
    assert link.stored() <= copy_size(in_s3) + 100_000
    assert link.sent() <= copy_size(in_s3) + 3 * PART + 100_000


def test_what_is_changed_in_between_is_sent_again(short_run, last_run, link, in_s3, tmp_path):
    short_run(5, "kill")
    change(tmp_path / "app.db", another(12))
    short_run(3, "close")
    change(tmp_path / "app.db", another(2), another(59))
    last_run()
    # Of what was there, the third part was another one; the first one is sent last, and the rest had not been sent.
    assert copy_size(in_s3) + PART <= link.stored() <= copy_size(in_s3) + PART + 100_000


def test_a_vacuum_in_between_moves_everything(short_run, last_run, tmp_path):
    short_run(6, "kill")
    change(tmp_path / "app.db", "DELETE FROM t WHERE id IN (0, 7, 8)", "VACUUM")
    short_run(3, "kill")
    change(tmp_path / "app.db", "DELETE FROM t WHERE id > 20", "VACUUM")
    last_run()


def test_what_the_store_has_removed_is_sent_again(short_run, last_run, link, in_s3):
    short_run(4, "kill")
    link.forget_uploads()
    short_run(2, "close")
    last_run()
    assert link.stored() <= copy_size(in_s3) + 4 * PART + 100_000


def test_a_removed_state_folder_costs_what_arrived(short_run, last_run, link, in_s3, tmp_path):
    short_run(4, "kill")
    shutil.rmtree(tmp_path / ".app.db-litestream")
    last_run()
    assert link.stored() <= copy_size(in_s3) + 4 * PART + 100_000


def test_each_run_tells(link, uri, through_proxy, in_s3, tmp_path):
    link.take(2)
    first = run(SHORT_RUN + UNTIL.replace("(1[5-9]|2[0-9])", "(1[0-9]|2[0-9])") + """
began = time.monotonic()
db.close()
print(time.monotonic() - began)
""", tmp_path, through_proxy.env, uri=uri)
    assert float(first.stdout) < 2.5
    [(percent, kept)] = re.findall(KEPT, first.stderr)
    assert 12 <= int(percent) <= 20 and kept == "10.0", first.stderr
    link.take(1)
    second = run(SHORT_RUN + """
print(one(db, "SELECT notice FROM litestream_status"))
db.close()
""", tmp_path, through_proxy.env, uri=uri)
    assert (f"the last copy of the database had come to {percent} % when it was closed: the 10.0 MiB that arrived are kept, and what "
            "is missing is sent now: keep the database open") in second.stdout
    assert re.search(KEPT, second.stderr), second.stderr
    # It just ends.
    link.take(1)
    began = time.monotonic()
    third = run(SHORT_RUN + "print('end')", tmp_path, through_proxy.env, uri=uri)
    assert time.monotonic() - began < 20 and third.stdout == "end\n"
    link.take(None)
    run("load(); db = connect(uri)\ndb.execute('SELECT litestream_sync(60)'); db.close()", tmp_path, through_proxy.env, uri=uri)
    last = run("load(); db = connect(uri)\ndb.execute('SELECT count(*) FROM t').fetchall(); db.close()", tmp_path,
               through_proxy.env, uri=uri)
    assert last.stderr == ""
    assert content(restore(in_s3, tmp_path / "restored.db")) == content(tmp_path / "app.db")
