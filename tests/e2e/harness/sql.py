"""Statements that many tests need."""

import json
from pathlib import Path

from .location import Location
from .worker import Connection

SCHEMA = (
    "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)",
    "CREATE INDEX t_name ON t(name)",
    "CREATE TABLE pair(k TEXT PRIMARY KEY, v REAL) WITHOUT ROWID",
)


def fill(db: Connection, rows: int = 200, size: int = 400) -> None:
    """Creates the tables and puts rows into them, several transactions in all."""
    db.run(*SCHEMA)
    insert(db, rows, size)
    db.run("BEGIN", "INSERT INTO pair SELECT name, id / 3.0 FROM t", "COMMIT")


def insert(db: Connection, rows: int = 1, size: int = 400) -> None:
    """Inserts rows into `t`, in one transaction."""
    db.rows("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO t(name, data) SELECT 'row ' || i, randomblob(?) FROM n", rows, size)


def sync(db: Connection, timeout: float | None = None) -> int:
    """`litestream_sync`; the TXID that it returns."""
    if timeout is None:
        return txid(db.one("SELECT litestream_sync()"))
    return txid(db.one("SELECT litestream_sync(?)", timeout))


def txid(value: str) -> int:
    """A TXID, which SQL gives as 16 hexadecimal digits, as a number."""
    assert isinstance(value, str) and len(value) == 16, f"{value!r} is not a TXID"
    return int(value, 16)


def status(db: Connection) -> str:
    """`litestream_status()` as text."""
    return db.one("SELECT litestream_status()") or ""


def restore(db: Connection, location: Location, path: Path, **options) -> dict:
    """`litestream_restore` on a connection of its own beside `db`, which may only read; its report."""
    db = db.worker.open(":memory:", "console")
    db.load()
    if options:
        return json.loads(db.one("SELECT litestream_restore(?, ?, ?)", location.full_url, str(path), json.dumps(options)))
    return json.loads(db.one("SELECT litestream_restore(?, ?)", location.full_url, str(path)))
