"""A replica that loses files, and what must be so when it is healed."""

import json
from pathlib import Path

from . import litestream
from .compare import Content
from .location import Location, Ltx
from .sql import fill, insert, restore, status, sync
from .worker import Connection

QUIET = dict(close_timeout="30s", sync_interval="50ms")


def open_primary(start, location: Location, folder: Path, env: dict[str, str] | None = None, **parameters) -> Connection:
    """A primary that is in the replica as a full copy and five more files of level 0."""
    db = start("python", location, env=env or {}).open(location.primary(folder / "app.db", **QUIET, **parameters))
    fill(db, rows=300)
    for _ in range(5):
        sync(db)
        insert(db, rows=5)
    sync(db)
    if "levels" not in parameters:  # Otherwise some may be merged already.
        assert [(f.level, f.min, f.max) for f in location.files()] == [(0, n, n) for n in range(1, len(location.files()) + 1)]
    return db


def reopen(start, location: Location, folder: Path, **parameters) -> Connection:
    return start("python", location).open(location.primary(folder / "app.db", **QUIET, **parameters))


def state_of(db: Connection) -> dict:
    """The row of the database in `litestream_status()`."""
    return json.loads(status(db))["databases"][0]


def bytes_of(files: list[Ltx]) -> dict[Path, bytes]:
    return {f.path: f.path.read_bytes() for f in files}


def flip(file: Ltx, at: float = 0.5) -> None:
    """One byte becomes another."""
    data = bytearray(file.path.read_bytes())
    data[int(len(data) * at)] ^= 0x20
    file.path.write_bytes(bytes(data))


def assert_restores(db: Connection, location: Location, folder: Path, name: str = "restored") -> None:
    """This library and Litestream restore what the database holds."""
    ours, theirs = folder / f"{name}.ours.db", folder / f"{name}.theirs.db"
    source = db.content()
    restore(db, location, ours)
    litestream.restore(location, theirs)
    for path in (ours, theirs):
        assert content(db, path) == source
    assert source.integrity == "ok"


def content(db: Connection, path: Path) -> Content:
    restored = db.worker.open(path, path.name)
    found = restored.content()
    restored.close()
    return found


def assert_healed(db: Connection, location: Location, folder: Path, last: int, kept: dict[Path, bytes]) -> None:
    """A full copy is there at a transaction after `last`, as a snapshot, and nothing of what was there has changed."""
    snapshots = [(f.min, f.max) for f in location.files(9) if f.max > last]
    assert snapshots and snapshots[-1][0] == 1, "there is no snapshot of the database"
    assert {path: path.read_bytes() for path in kept} == kept
    state = state_of(db)
    assert state["state"] == "idle" and "last_error" not in state, state
    assert "lost transactions" in state["notice"], state
    assert_restores(db, location, folder, "healed")
    # Later commits build on it.
    insert(db, rows=3)
    sync(db)
    assert_restores(db, location, folder, "later")
