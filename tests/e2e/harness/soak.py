"""Mixed work on one primary while two replicas read; at the end all copies are the same."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import litestream
from .location import Location
from .sql import restore, sync
from .wait import until
from .worker import Worker
from .workload import Workload, serial_if_consistent


class Reader(threading.Thread):
    """Reads a replica all the time and checks what it sees."""

    def __init__(self, host: str, location: Location, folder: Path, reopen_every: int | None):
        super().__init__(daemon=True)
        self.worker = Worker(host, env=location.env, cwd=folder)
        self.uri = location.replica(poll_interval="200ms", open_timeout="30s")
        self.reopen_every = reopen_every
        self.reads = self.states = self.serial = 0
        self.failure: BaseException | None = None
        self.ending = threading.Event()

    def run(self) -> None:
        try:
            self.db = self.worker.open(self.uri)
            while not self.ending.wait(0.02):
                self._read()
        except BaseException as failure:  # reported by the thread that joins
            self.failure = failure

    def _read(self) -> None:
        serial = serial_if_consistent(self.db)
        assert serial >= self.serial, f"the replica went back from {self.serial} to {serial}"
        self.states += serial != self.serial
        self.serial = serial
        self.reads += 1
        if self.reopen_every and self.reads % self.reopen_every == 0:
            self.db.close()
            self.db = self.worker.open(self.uri)

    def end(self) -> None:
        self.ending.set()
        self.join(120)
        if self.failure:
            raise AssertionError(f"a replica reader failed after {self.reads} reads") from self.failure


def run(seconds: float, seed: int, location: Location, folder: Path, big: int = 100, reopen_every: float = 60,
        sync_interval: str = "1s", say: Callable[[str], None] = lambda line: None) -> dict:
    """Works for `seconds`; `big` is the size of the one large transaction in MiB."""
    writer = Worker("python", env=location.env, cwd=folder)
    uri = location.primary(folder / "soak.db", sync_interval=sync_interval)

    def reopen(db):
        if db:
            db.close()
        return writer.open(uri)

    work = Workload(seed, reopen)
    sync(work.db, 30)
    readers = [Reader("python", location, folder, None), Reader("apsw", location, folder, 50)]
    try:
        for reader in readers:
            reader.start()
        _work(work, readers, seconds, big, reopen_every, say)
        return _compare(work, readers, location, folder, say)
    finally:
        for reader in readers:
            reader.ending.set()
        for worker in (writer, *(r.worker for r in readers)):
            if not worker.ended:
                worker.kill()


def _work(work: Workload, readers: list[Reader], seconds: float, big: int, reopen_every: float, say) -> None:
    began = time.monotonic()
    next_reopen, big_done, forgotten = began + reopen_every, False, False
    while (elapsed := time.monotonic() - began) < seconds:
        work.step()
        if not big_done and elapsed > seconds * 0.4:
            work.big(big)
            big_done = True
        if big_done and not forgotten and elapsed > seconds * 0.6:
            work.forget_big()
            forgotten = True
        if time.monotonic() > next_reopen:
            work.reopen()
            next_reopen += reopen_every
            say(f"{elapsed:5.0f} s: {sum(work.done.values())} steps, readers saw {[r.states for r in readers]} states")
        for reader in readers:
            if reader.failure:
                reader.end()


def _compare(work: Workload, readers: list[Reader], location: Location, folder: Path, say) -> dict:
    # A VACUUM has no number by which the readers could be seen to have reached it.
    work.transfer()
    sync(work.db, 60)
    last = serial_if_consistent(work.db)
    until(lambda: all(r.serial == last or r.failure for r in readers), 60, "the replicas to reach the last transaction")
    for reader in readers:
        reader.end()
    source = work.db.content()
    assert source.integrity == "ok", source.integrity
    for reader in readers:
        assert reader.db.content() == source, "a replica differs from the source"
    restore(work.db, location, folder / "restored.db")
    assert work.db.worker.open(folder / "restored.db", "restored").content() == source, "the restored file differs"
    theirs = litestream.restore(location, folder / "restored-by-litestream.db")
    assert work.db.worker.open(theirs, "theirs").content() == source, "litestream restores something else"
    assert location.gaps() == []
    report = {"transactions": last, "pages": source.page_count, "files": len(location.files()),
              "reads": [r.reads for r in readers], "states": [r.states for r in readers], "steps": dict(work.done)}
    say(f"identical: {report}")
    return report
