"""A database so large that it has a lock page: content, and what it costs in memory."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from . import litestream, proc
from .compare import differing_pages
from .location import Location
from .sql import restore, sync
from .worker import Worker

PAGE = 4096
LOCK_PAGE = 0x40000000 // PAGE + 1


def make(path: Path, size: int) -> None:
    """A database of about `size` bytes, half of which does not compress."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        rows = size // 100_000
        for begin in range(0, rows, 100):
            db.execute("WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1 + 100)"
                       " INSERT INTO t SELECT i, 'row ' || i, randomblob(50000) || zeroblob(50000) FROM n", (begin,))
        db.execute("CREATE INDEX t_name ON t(name)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _growth(worker: Worker, work: Callable[[], object]) -> int:
    """By how many bytes the peak of resident memory exceeds what was resident before `work`."""
    proc.reset_peak(worker.pid)
    before = proc.rss_kib(worker.pid)
    work()
    return (proc.peak_rss_kib(worker.pid) - before) * 1024


# About 25 pages to a row, so the lock page is near row 10 485; the counts walk the whole index.
SOME_ROWS = (
    "SELECT count(*), min(name), max(name) FROM t INDEXED BY t_name",
    "SELECT id, name, hex(substr(data, 1, 50000)) FROM t WHERE id BETWEEN 10440 AND 10530",
    "SELECT id, name, length(data) FROM t ORDER BY id DESC LIMIT 60",
)

WRITE = "INSERT INTO t(name, data) VALUES ('while the snapshot is made', randomblob(2000))"


def run(size: int, location: Location, folder: Path, host: str = "python", read_all: bool = True,
        say=lambda line: None) -> dict:
    """Replicates, restores and reads a database of `size` bytes; growth of memory in bytes.

    `read_all`: the replica runs `integrity_check`, else it reads rows on both sides of the lock page.
    """
    source = folder / "big.db"
    make(source, size)
    say(f"{source.stat().st_size / 1e6:.0f} MB in {source.stat().st_size // PAGE} pages")
    report: dict = {"plain": _plain(host, source), "snapshot": _replicate(host, source, location)}
    say(f"memory while writing, plain: {report['plain'] / 1e6:.1f} MB; replicating: {report['snapshot'] / 1e6:.1f} MB")

    worker = Worker(host, env=location.env, cwd=folder)
    plain = worker.open(":memory:", "plain")
    plain.one("SELECT litestream_version()")
    report["restore"] = _growth(worker, lambda: restore(plain, location, folder / "restored.db"))
    say(f"memory while restoring: {report['restore'] / 1e6:.1f} MB")
    report["differing_pages"] = differing_pages(source, folder / "restored.db", PAGE)
    worker.kill()

    reader = Worker(host, env=location.env, cwd=folder)
    replica = reader.open(location.replica())
    report["pages"] = replica.one("PRAGMA page_count")
    if read_all:
        report["replica_integrity"] = replica.one("PRAGMA integrity_check", deadline=3600)
    restored = reader.open(folder / "restored.db", "restored")
    report["same_rows"] = all(replica.rows(sql) == restored.rows(sql) for sql in SOME_ROWS)
    say(f"replica: {report}, {proc.peak_rss_kib(reader.pid) / 1024:.0f} MiB resident")
    reader.kill()
    theirs = litestream.restore(location, folder / "restored-by-litestream.db")
    report["differing_from_litestream"] = differing_pages(folder / "restored.db", theirs, PAGE)
    theirs.unlink()
    return report


def _plain(host: str, source: Path) -> int:
    worker = Worker(host)
    try:
        def work():
            db = worker.open(source)
            for _ in range(50):
                db.run(WRITE)
            db.close()

        return _growth(worker, work)
    finally:
        worker.kill()


def _replicate(host: str, source: Path, location: Location) -> int:
    worker = Worker(host, env=location.env)
    try:
        def work():
            db = worker.open(location.primary(source))
            for _ in range(50):
                db.run(WRITE)
            sync(db, 600)
            db.run("PRAGMA wal_checkpoint(TRUNCATE)")
            db.close()

        return _growth(worker, work)
    finally:
        worker.kill()
