"""A recorded history: the content after each commit, its TXID, and when it was made."""

import hashlib
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from .location import Location
from .worker import Connection


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}Z"


def digest(db: Connection, schema: str = "main") -> str:
    """A hash of the rows of `t`."""
    return hashlib.sha256(repr(db.rows(f"SELECT id, name, data FROM {schema}.t ORDER BY id")).encode()).hexdigest()


@dataclass(frozen=True)
class Commit:
    """One commit: its content, the TXID of its file, and the milliseconds between which it was made."""

    content: str
    txid: int
    before: int
    after: int


def now() -> int:
    return time.time_ns() // 1_000_000


def _next_millisecond(ms: int) -> int:
    while (later := now()) <= ms:
        pass
    return later


def record(db: Connection, sync: Callable[[], int], commits: int, seed: int) -> list[Commit]:
    """Changes `t`, which is there, in so many commits; each becomes a file by `sync`, which tells its TXID."""
    rng = random.Random(seed)
    history: list[Commit] = []
    for n in range(commits):
        before = _next_millisecond(now())
        db.rows("BEGIN")
        match rng.randrange(4):
            case 0 if n > 20:
                db.rows("DELETE FROM t WHERE id % 13 = ?", rng.randrange(13))
            case 1:
                db.rows("UPDATE t SET name = ? WHERE id % 7 = ?", f"commit {n}", rng.randrange(7))
        # Whatever the others found, something changes.
        db.rows("INSERT OR REPLACE INTO t(id, name, data) VALUES (?, ?, ?)", rng.randrange(60), f"commit {n}",
                rng.randbytes(rng.randrange(200)).hex())
        db.rows("COMMIT")
        history.append(Commit(digest(db), sync(), before, _next_millisecond(now())))
    return history


def committed(location: Location) -> dict[int, int]:
    """When each TXID was committed, in milliseconds, as the headers of level 0 say (bytes 32 to 40)."""
    times = {}
    for file in location.files(0):
        with file.path.open("rb") as f:
            times[file.max] = struct.unpack(">q", f.read(40)[32:])[0]
    return times
