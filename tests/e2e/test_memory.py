"""What replication costs in memory and threads, over plain SQLite, in a process with one database and with a hundred.

Every database is open at the same time and written to, some at once and some after each other, until all is in the replica.
"""

from dataclasses import replace

import pytest

from harness import proc
from harness.location import sqlite_uri
from harness.paths import LIBRARY
from harness.sql import fill, insert
from harness.wait import until

MEBIBYTE = 1024  # in KiB, as /proc has it


@pytest.fixture(autouse=True)
def release_build():
    if LIBRARY.parent.name == "debug":
        pytest.skip("not a release build")


def work(databases) -> None:
    for db in databases:
        fill(db, rows=50)
    for _ in range(10):
        for db in databases:
            insert(db, rows=5)


def measure(start, tmp_path, location, count: int, replicated: bool) -> tuple[int, int, int]:
    """Resident memory and its peak in KiB, and the most threads while the work was done."""
    kind = "ours" if replicated else "plain"
    worker = start("python", location)

    def uri(n: int) -> str:
        path = tmp_path / f"{kind}-{n}.db"
        if not replicated:
            return sqlite_uri(path)
        return replace(location, url=f"{location.url}/{n}").primary(path, sync_interval="200ms")

    databases = [worker.open(uri(n), f"db{n}") for n in range(count)]
    if not replicated:
        for db in databases:
            db.run("PRAGMA journal_mode=WAL")
    work(databases)
    threads = proc.threads(worker.pid)
    if replicated:
        until(lambda: all(db.one("SELECT litestream_lag()") == 0 for db in databases), 120, "all is in the replica")
        threads = max(threads, proc.threads(worker.pid))
    return proc.rss_kib(worker.pid), proc.peak_rss_kib(worker.pid), threads


@pytest.mark.parametrize("count, limit", [(1, 15), (100, 25)], ids=["one database", "a hundred databases"])
def test_memory_over_plain_sqlite(count, limit, start, location, tmp_path):
    plain, plain_peak, _ = measure(start, tmp_path, location, count, replicated=False)
    ours, ours_peak, threads = measure(start, tmp_path, location, count, replicated=True)
    print(f"{count} databases: plain {plain / MEBIBYTE:.1f} MB, ours {ours / MEBIBYTE:.1f} MB (peaks"
          f" {plain_peak / MEBIBYTE:.1f}, {ours_peak / MEBIBYTE:.1f}), {threads} threads")
    assert ours - plain <= limit * MEBIBYTE
    assert ours_peak - plain_peak <= limit * MEBIBYTE
    # The host's own, two that work, and at most eight of each pool: for files, and for what waits for the store.
    assert threads <= 1 + 2 + 8 + 8


def write_much(start, tmp_path, location, replicated: bool) -> tuple[int, int]:
    """Resident memory in KiB after 400 transactions of about a megabyte, with a merge each second, and its peak."""
    worker = start("python", location)
    path = tmp_path / ("ours.db" if replicated else "plain.db")
    db = worker.open(location.primary(path, sync_interval="100ms", levels="1s,5s") if replicated else sqlite_uri(path))
    db.run("PRAGMA journal_mode=WAL")
    fill(db)
    for _ in range(400):
        insert(db, rows=2000)
        db.run("DELETE FROM t WHERE id <= (SELECT max(id) - 20000 FROM t)")
    if replicated:
        until(lambda: db.one("SELECT litestream_lag()") == 0, 120, "all is in the replica")
    return proc.rss_kib(worker.pid), proc.peak_rss_kib(worker.pid)


def test_memory_of_a_primary_that_writes_much_goes_back_to_the_system(start, location, tmp_path):
    plain, plain_peak = write_much(start, tmp_path, location, replicated=False)
    ours, ours_peak = write_much(start, tmp_path, location, replicated=True)
    print(f"plain {plain / MEBIBYTE:.1f} MB, ours {ours / MEBIBYTE:.1f} MB (peaks {plain_peak / MEBIBYTE:.1f},"
          f" {ours_peak / MEBIBYTE:.1f})")
    # The peak depends on how many files a merge has, and so on the pace of the machine.
    assert ours - plain <= 38 * MEBIBYTE
