"""A primary whose history is kept with short intervals, while it works, is closed and is killed.

At many moments `litestream restore` and `litestream_restore` are asked for what the database holds.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

from . import litestream
from .location import Location
from .sql import restore, sync
from .worker import Connection, Worker
from .workload import Workload

LEVELS = (1, 3, 12)
SNAPSHOT_INTERVAL, SNAPSHOT_RETENTION = 8, 20
L0_RETENTION = 8  # longer than a restore takes: Litestream does not plan again when a file vanishes under it
SETTINGS = dict(levels=",".join(f"{n}s" for n in LEVELS), snapshot_interval=f"{SNAPSHOT_INTERVAL}s",
                snapshot_retention=f"{SNAPSHOT_RETENTION}s", l0_retention=f"{L0_RETENTION}s", sync_interval="100ms")


class Primary:
    """The process that writes."""

    def __init__(self, location: Location, folder: Path, seed: int):
        self.location, self.folder = location, folder
        self.uri = location.primary(folder / "app.db", **SETTINGS)
        self.worker = self._start()
        self.work = Workload(seed, self._reopen)
        self.kills = self.closes = 0

    def _start(self) -> Worker:
        return Worker("python", env=self.location.env, cwd=self.folder)

    def _reopen(self, db):
        if db:
            db.close()
        return self.worker.open(self.uri)

    def close(self) -> None:
        """Closes the last connection, and opens the database again."""
        self.work.reopen()
        self.closes += 1

    def kill(self) -> None:
        """kill -9, and a new process."""
        self.worker.kill()
        self.worker = self._start()
        self.work.db = self.worker.open(self.uri)
        self.kills += 1


def run(seconds: float, seed: int, location: Location, folder: Path,
        say: Callable[[str], None] = lambda line: None) -> dict:
    """Works for `seconds`, then lets everything that is due be done, and looks at what is left."""
    primary = Primary(location, folder, seed)
    # How many steps there are is a matter of time; which rounds end the process is not.
    chance, ends = random.Random(seed), random.Random(seed)
    try:
        began, checks, deepest = time.monotonic(), 0, 0
        while (elapsed := time.monotonic() - began) < seconds:
            until = time.monotonic() + chance.uniform(0.1, 3)
            while time.monotonic() < until:
                primary.work.step()
                time.sleep(chance.uniform(0, 0.02))
            what = ends.random()
            if what < 0.2:
                primary.kill()
            elif what < 0.4:
                primary.close()
            _compare(primary, checks)
            _check_levels(location, time.monotonic() - began, primary.kills + primary.closes)
            checks += 1
            deepest = max(deepest, *(f.level for f in location.files() if f.level != 9), 0)
            if checks % 10 == 0:
                say(f"{elapsed:5.0f} s: {checks} checks, {len(location.files())} files, {primary.kills} kills")
        left = run_down(primary.work.db, location, len(LEVELS),
                        SNAPSHOT_RETENTION + 2 * SNAPSHOT_INTERVAL + L0_RETENTION + 10)
        _compare(primary, checks)
        report = {"checks": checks + 1, "kills": primary.kills, "closes": primary.closes,
                  "transactions": location.last_txid(), "deepest": deepest, "left": left}
        say(f"identical: {report}")
        return report
    finally:
        if not primary.worker.ended:
            primary.worker.kill()


def _compare(primary: Primary, number: int) -> None:
    """What both restore is what the database holds, while its history is being kept."""
    db, location, folder = primary.work.db, primary.location, primary.folder
    sync(db, 60)
    source = db.content()
    ours, theirs = folder / f"ours-{number}.db", folder / f"theirs-{number}.db"
    restore(db, location, ours)
    litestream.restore(location, theirs)
    for path in (ours, theirs):
        copy = primary.worker.open(path, "copy")
        assert copy.content() == source, f"{path.name} differs from the source"
        copy.close()
        path.unlink()
    assert location.gaps() == [] or min(f.min for f in location.files()) == 1, location.gaps()


def _check_levels(location: Location, elapsed: float, restarts: int) -> None:
    """No level has more files than windows; a process that begins may cut one more."""
    for level, interval in enumerate(LEVELS, 1):
        files = location.files(level)
        assert len(files) <= elapsed / interval + 2 + restarts, f"level {level} has {len(files)} files"
        for before, after in zip(files, files[1:]):
            assert after.min == before.max + 1 or _covered(location, before.max + 1, after.min - 1), (before, after)


def _covered(location: Location, first: int, last: int) -> bool:
    """Whether a snapshot holds these transactions."""
    return any(f.max >= last for f in location.files(9)) and first <= last


def run_down(db: Connection, location: Location, levels: int, seconds: float) -> dict[int, int]:
    """Waits until nothing is due any more, at most `seconds`; how many files each level has then."""
    last = location.last_txid()
    deadline = time.monotonic() + seconds

    def counts() -> dict[int, int]:
        return {level: len(location.files(level)) for level in range(10) if location.files(level)}

    expected = {level: 1 for level in (0, *range(1, levels + 1), 9)}
    # There may be one of each for a moment, before the last snapshot is made.
    while counts() != expected or location.files(9)[0].max != last:
        assert time.monotonic() < deadline, f"{counts()} files are left, {last} is the last; {db.one('SELECT litestream_status()')}"
        time.sleep(0.2)
    return counts()
