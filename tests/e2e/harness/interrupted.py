"""A primary that keeps its history is killed, and its store fails, in the middle of just that.

A proxy sees the requests of compaction, snapshots and retention. At one of them, chosen by the seed, the
process is killed (before the server sees it, in the middle of it, or after it was done), or the store fails.
Each time both restore, and what they restore is a state that the database had, no older than the last sync.
"""

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from . import litestream
from .history import run_down
from .location import Location
from .proxy import CutBody, CutRequest, Fault, LateAnswer, LoseAnswer, Proxy, Request, Status
from .recorded import digest
from .s3 import S3Server
from .sql import restore, sync
from .wait import until
from .worker import HostDied, Worker

LEVELS, SNAPSHOT_INTERVAL, RETENTION = (1, 2), 2, 1
SETTINGS = dict(levels=",".join(f"{n}s" for n in LEVELS), snapshot_interval=f"{SNAPSHOT_INTERVAL}s",
                snapshot_retention=f"{RETENTION}s", l0_retention=f"{RETENTION}s", sync_interval="50ms",
                part_size="5MiB", close_timeout="60s")
BALLAST = 6_000_000  # a snapshot is more than one part

PHASES = ("compaction", "snapshot", "retention", "sources")
KILLS = ("killed before", "killed within", "killed after")
FAILURES = ("refused", "answer lost", "body cut")


def phase_of(request: Request) -> str | None:
    """Which part of keeping history a request belongs to."""
    if request.method == "DELETE" or (request.method == "POST" and "delete" in request.target.partition("?")[2]):
        return "retention"
    if request.kind == "LIST":
        return None
    level = request.path.split("/")[3] if request.path.count("/") >= 4 else ""
    if request.method == "GET":
        return "sources"
    if request.method in ("PUT", "POST") and level > "0000":
        return "snapshot" if level == "0009" else "compaction"
    return None


class Trap:
    """What happens at a request; the proxy asks it."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.struck: tuple[str, str] | None = None
        """The phase and what happened."""
        self._lock = threading.Lock()
        self._phases: tuple[str, ...] = ()
        self._how, self._skip, self._failing, self._pid = "", 0, 0, 0

    def set(self, phases: tuple[str, ...], how: str, pid: int) -> None:
        """Does `how` at one of the next requests of `phases`."""
        with self._lock:
            self.struck, self._phases, self._how, self._pid = None, phases, how, pid
            self._skip = self.random.randrange(3)
            self._failing = 0 if how in KILLS else self.random.choice((1, 1, 2, 3, 5))

    def widen(self) -> None:
        """Whatever comes is as good."""
        with self._lock:
            self._phases, self._skip = PHASES, 0

    @property
    def is_over(self) -> bool:
        return self.struck is not None and self._failing == 0

    def __call__(self, request: Request) -> Fault | None:
        with self._lock:
            if self.struck is None:
                phase = phase_of(request)
                if phase not in self._phases:
                    return None
                if self._skip:
                    self._skip -= 1
                    return None
                self.struck = (phase, self._how)
            elif not self._failing:
                return None
            return self._kill(request) if self._how in KILLS else self._fail(request)

    def _kill(self, request: Request) -> Fault:
        if self._how == "killed after":
            threading.Timer(0.1, os.kill, (self._pid, signal.SIGKILL)).start()
            return LateAnswer(0.5)
        os.kill(self._pid, signal.SIGKILL)
        if self._how == "killed within" and request.body_size:
            return CutRequest(self.random.randrange(request.body_size))
        return Status(500)

    def _fail(self, request: Request) -> Fault:
        self._failing -= 1
        if self._how == "answer lost":
            return LoseAnswer()
        if self._how == "body cut" and request.body_size:
            return CutRequest(self.random.randrange(request.body_size))
        if self._how == "body cut":
            return CutBody(self.random.randrange(2000))
        return Status(self.random.choice((500, 503)))


def in_turn(seed: int) -> Iterator[tuple[str, str]]:
    """Phases and what is to happen in them, in an order that only the seed decides: each before any comes again."""
    chance = random.Random(seed)
    while True:
        all_of_them = list(itertools.product(PHASES, KILLS + FAILURES))
        chance.shuffle(all_of_them)
        yield from all_of_them


class Interrupted:
    """One database, its replica, and what happens to them."""

    def __init__(self, seed: int, location: Location, proxy: Proxy, folder: Path):
        self.random, self.trap = random.Random(seed), Trap(seed)
        self.ahead = in_turn(seed)
        proxy.fault = self.trap
        self.location, self.folder = location, folder
        self.uri = location.at(proxy.endpoint).primary(folder / "app.db", **SETTINGS)
        self.plain = Worker("python", env=location.env, cwd=folder)
        self.reader = self.plain.open(":memory:", "reader")
        self.states: dict[int, str] = {}
        self.serial = self.synced = 0
        self.happened: Counter[tuple[str, str]] = Counter()
        self._begin()
        self.db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data TEXT)",
                    "CREATE TABLE meta(serial INTEGER)", "CREATE TABLE ballast(data BLOB)", "INSERT INTO meta VALUES (0)",
                    f"INSERT INTO ballast VALUES (randomblob({BALLAST}))")
        self.ballast = self.db.content().tables["ballast"]
        self.states[0] = digest(self.db)
        sync(self.db, 60)

    def _begin(self) -> None:
        self.worker = Worker("python", env=self.location.env, cwd=self.folder)
        self.db = self.worker.open(self.uri)

    def end(self) -> None:
        for worker in (self.worker, self.plain):
            if not worker.ended:
                worker.kill()

    def commit(self) -> None:
        number = self.serial + 1
        self.db.rows("BEGIN IMMEDIATE")
        self.db.rows("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", self.random.randrange(200), f"commit {number}",
                     self.random.randbytes(self.random.randrange(2000)).hex())
        if self.random.random() < 0.2:
            self.db.rows("DELETE FROM t WHERE id % 17 = ?", self.random.randrange(17))
        self.db.rows("UPDATE meta SET serial = ?", number)
        self.db.rows("COMMIT")
        self.states[number] = digest(self.db)
        self.serial = number

    def interruption(self) -> None:
        """Works until it happens; then looks at the replica."""
        phase, how = next(self.ahead)
        self.trap.set((phase,), how, self.worker.pid)
        try:
            self._work_until_over()
        except HostDied:
            if how not in KILLS:
                raise
        self.happened[self.trap.struck] += 1
        if how in KILLS:
            until(lambda: self.worker.ended, 10, "the kill")
            self.worker.kill()
            restored = self._restored()
            self._begin()
            self._after_kill()
        else:
            # Litestream gives up when retention deletes a file that it is about to read.
            os.kill(self.worker.pid, signal.SIGSTOP)
            try:
                restored = self._restored()
            finally:
                os.kill(self.worker.pid, signal.SIGCONT)
        for who, (serial, content) in restored.items():
            assert self.synced <= serial <= self.serial, f"{who}: commit {serial} of {self.synced} to {self.serial}"
            assert content == self.states[serial], f"{who} restored something else than commit {serial}"
        self.states = {n: state for n, state in self.states.items() if n >= self.synced}

    def _work_until_over(self) -> None:
        for commits in itertools.count():
            if self.trap.is_over:
                return
            # Not a time: the machine may be slow.
            assert commits < 3000, f"{self.trap.struck} is not over; {self.db.one('SELECT litestream_status()')}"
            if commits == 200:
                self.trap.widen()
            self.commit()
            if self.random.random() < 0.2:
                number = self.serial
                sync(self.db, 60)
                self.synced = number
            time.sleep(0.02)

    def _after_kill(self) -> None:
        """A commit whose answer was lost may be there or not."""
        (serial,) = self.db.rows("SELECT serial FROM meta")[0]
        assert serial in (self.serial, self.serial + 1), f"commit {serial} after {self.serial}"
        state = digest(self.db)
        assert self.states.setdefault(serial, state) == state
        self.serial = serial

    def _restored(self) -> dict[str, tuple[int, str]]:
        """What both restore: the number of the commit, and the content."""
        ours, theirs = self.folder / "ours.db", self.folder / "theirs.db"
        restore(self.reader, self.location, ours)
        litestream.restore(self.location, theirs)
        found = {}
        for path in (ours, theirs):
            copy = self.plain.open(path, "copy")
            content = copy.content()
            assert content.integrity == "ok" and content.tables["ballast"] == self.ballast, path.name
            found[path.name] = copy.one("SELECT serial FROM meta"), digest(copy)
            copy.close()
            path.unlink()
        return found

    def run_down(self) -> dict[int, int]:
        """Nothing fails any more: how many files each level has in the end."""
        self.commit()
        sync(self.db, 60)
        left = run_down(self.db, self.location, len(LEVELS), 60)
        for who, (serial, content) in self._restored().items():
            assert (serial, content) == (self.serial, self.states[serial]), who
        findings = self.reader.load().rows("SELECT severity, message FROM litestream_verify(?)", self.location.full_url)
        assert findings == [], findings
        return left


def run(interruptions: int, seed: int, server: S3Server, location: Location, folder: Path,
        say: Callable[[str], None] = lambda line: None) -> dict:
    """So many interruptions of the replica at `location` in `server`; then all that is due is done."""
    proxy = Proxy(server.port)
    try:
        world = Interrupted(seed, location, proxy, folder)
        try:
            for number in range(interruptions):
                world.interruption()
                if (number + 1) % 10 == 0:
                    say(f"{number + 1} interruptions, {world.serial} commits, {len(location.files())} files")
            left = world.run_down()
        finally:
            world.end()
    finally:
        proxy.close()
    happened = {f"{phase} {how}": n for (phase, how), n in sorted(world.happened.items())}
    report = {"seed": seed, "interruptions": interruptions, "commits": world.serial, "happened": happened, "left": left}
    say(f"restored each time: {report}")
    return report
