"""An application that writes on while its store is in trouble."""

import re
import time
from pathlib import Path

from . import litestream
from .location import Location
from .sql import insert
from .wait import until
from .worker import Connection

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
ACCESS_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def logged(folder: Path) -> dict[str, str]:
    """The environment by which a host logs to `folder`."""
    return {"LITESTREAM_LOG_FILE": str(folder / "host.log"), "LITESTREAM_LOG_LEVEL": "info"}


def changes(folder: Path) -> list[str]:
    """`fails` and `works`, in the order in which the host has logged that replication does; that it begins is no change."""
    log = folder / "host.log"
    found = []
    for line in log.read_text().splitlines() if log.exists() else []:
        if ": a primary of " in line:
            continue
        if match := re.search(r"\b(WARN|ERROR|INFO)\b", line):
            found.append("works" if "replication goes on" in line else "fails" if match[1] != "INFO" else line)
    return found


def assert_told(folder: Path, *expected: str) -> None:
    """These and no other `changes` are logged, at the latest soon after the last commit is in the replica."""
    until(lambda: len(changes(folder)) >= len(expected), 15, f"{expected} in the log")
    assert changes(folder) == list(expected)


def work(db: Connection, commits: int = 300) -> float:
    """Commits of all sizes, with checkpoints among them; the seconds that the longest one took."""
    longest = 0.0
    for n in range(commits):
        began = time.monotonic()
        insert(db, rows=1 + 40 * (n % 20 == 0))
        if n % 50 == 49:
            db.run(f"PRAGMA wal_checkpoint({('PASSIVE', 'FULL', 'RESTART', 'TRUNCATE')[n // 50 % 4]})")
        longest = max(longest, time.monotonic() - began)
    return longest


def catch_up(db: Connection, timeout: float = 60) -> None:
    """The replica gets everything without being asked: nobody calls `litestream_sync`, commits or closes."""
    until(lambda: db.one("SELECT litestream_lag()") == 0, timeout, "all commits are in the replica")


def assert_caught_up(db: Connection, location: Location, folder: Path, timeout: float = 60) -> None:
    """As `catch_up`; and what the replica then holds is the database."""
    catch_up(db, timeout)
    copy = folder / "caught-up.db"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
    restored = db.worker.open(litestream.restore(location, copy), "caught-up")
    assert restored.content() == db.content()
    restored.close()
    assert location.gaps() == []
