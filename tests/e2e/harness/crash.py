"""Rounds of work that end with a close or with kill -9; after each, the replica has what it must have."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from . import litestream
from .location import Location
from .paths import LIBRARY, SYSTEM_PYTHON, clean_env
from .sql import sync
from .worker import Worker

MAIN = Path(__file__).with_name("crash_main.py")

UNBALANCED = """
SELECT thread, rows, bytes, count(id), total(length(data)) FROM ledger LEFT JOIN t USING (thread)
GROUP BY thread HAVING rows <> count(id) OR bytes <> total(length(data))
"""


UNSENT = "the rest stays on local disk and is sent after the next open"


class Crash:
    """One database, its replica, and processes that come and go."""

    def __init__(self, seed: int, location: Location, folder: Path, processes: int, say: Callable[[str], None],
                 through: Location | None = None):
        """The processes that are killed reach the replica `location` `through` another way, if one is given."""
        self.random = random.Random(seed)
        self.location, self.folder, self.processes, self.say = location, folder, processes, say
        self.through = through or location
        self.database = folder / "crash.db"
        self.plain = Worker("python", cwd=folder, load=False)
        self.kills = self.acked = self.foreign = self.unsent = 0
        self.told_unsent = False
        """A close said that the rest is sent after the next open: it does not wait for a store whose last attempt failed."""
        self.parameters: dict[str, object] = {}
        self.order: dict[str, object] = {}
        self.env: dict[str, str] = {}

    def run(self, rounds: int, seconds: float, threads: int) -> dict:
        try:
            for number in range(rounds):
                self._round(number, seconds, threads)
        finally:
            if not self.plain.ended:
                self.plain.kill()
        report = {"rounds": rounds, "kills": self.kills, "acked": self.acked, "foreign": self.foreign, "unsent": self.unsent,
                  "files": len(self.location.files())}
        self.say(f"identical after every round: {report}")
        return report

    def _round(self, number: int, seconds: float, threads: int) -> None:
        end = "kill" if number % 2 or self.processes > 1 else "close"
        acked = self._hosts(end, seconds, threads)
        if end == "kill":
            self.kills += self.processes
            self._assert_acked_is_in_the_replica(acked)
            if self.random.random() < 0.3:
                self._write_without_us()
            self._reopen()
        elif self.told_unsent:
            assert self.through is not self.location, "a close left commits unsent, though the store did not fail"
            self.unsent += 1
            self._reopen()
        self._assert_identical()
        self.say(f"round {number}: {end}, {sum(acked.values())} transactions acknowledged, "
                 f"TXID {self.location.last_txid()}")

    def _hosts(self, end: str, seconds: float, threads: int) -> dict[int, int]:
        """Runs the processes to their ends; the last transaction of each thread that a sync answered for."""
        started = [self._start(number, end, self.random.uniform(0.2, seconds), self.random.randint(1, threads))
                   for number in range(self.processes)]
        acked: dict[int, int] = {}
        self.told_unsent = False
        for process in started:
            output, errors = process.communicate(timeout=300)
            self.told_unsent |= UNSENT in errors
            expected = (0,) if end == "close" else (0, -9)
            assert process.returncode in expected, f"{process.returncode}: {errors}"
            for line in output.splitlines():
                _, thread, transactions = line.split()
                acked[int(thread)] = int(transactions)
                self.acked += 1
        return acked

    def _start(self, number: int, end: str, seconds: float, threads: int) -> subprocess.Popen:
        uri = self.through.primary(self.database, sync_interval=self.random.choice(["20ms", "200ms", "5s"]),
                                    close_timeout="60s", **self.parameters)
        order = {"library": str(LIBRARY), "uri": uri, "seed": self.random.getrandbits(32), "seconds": seconds,
                 "first": number * 100, "threads": threads, "end": end} | self.order
        return subprocess.Popen([SYSTEM_PYTHON, str(MAIN), json.dumps(order)],
                                env=clean_env(**self.location.env | self.env),
                                cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _reopen(self) -> None:
        """The next process goes on with exactly what SQLite kept, and sends it."""
        kept = self._copy()
        expected = kept.content()
        kept.close()
        worker = Worker("python", env=self.location.env, cwd=self.folder)
        db = worker.open(self.location.primary(self.database, close_timeout="60s"))
        sync(db, 60)
        assert db.content() == expected, "the reopened database is not what SQLite kept"
        if self.random.random() < 0.5:
            db.close()
            worker.end()
        else:
            worker.kill()

    def _write_without_us(self) -> None:
        """A process without the shim takes the WAL over, writes, and closes."""
        db = self.plain.open(self.database, "foreign")
        if not db.rows("SELECT 1 FROM sqlite_schema WHERE name = 'ledger'"):
            db.close()  # all were killed before they had created it
            return
        self.foreign += 1
        db.run("INSERT INTO t(thread, data) SELECT thread, randomblob(700) FROM ledger")
        if self.random.random() < 0.5:
            db.run("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()

    def _assert_acked_is_in_the_replica(self, acked: dict[int, int]) -> None:
        if not self.location.files():
            assert not acked, "a sync answered before the replica had anything"
            return
        restored = self._restore()
        there = dict(restored.rows("SELECT thread, transactions FROM ledger"))
        for thread, transactions in acked.items():
            assert there.get(thread, 0) >= transactions, f"thread {thread}: {there.get(thread)} of {transactions}"
        assert restored.rows(UNBALANCED) == [], "the replica holds half a transaction"
        restored.close()

    def _assert_identical(self) -> None:
        assert self.location.gaps() == []
        source, restored = self._copy(), self._restore()
        expected = source.content()
        assert expected.integrity == "ok", expected.integrity
        assert restored.content() == expected, "the replica differs from the database"
        for db in (source, restored):
            db.close()

    def _copy(self):
        """What SQLite makes of the files as they are now."""
        for suffix in ("", "-wal", "-shm"):
            source, copy = self.folder / f"crash.db{suffix}", self.folder / f"copy.db{suffix}"
            copy.unlink(missing_ok=True)
            if source.exists() and suffix != "-shm":
                shutil.copy(source, copy)
        return self.plain.open(self.folder / "copy.db", "copy")

    def _restore(self):
        path = self.folder / "restored.db"
        for name in ("restored.db", "restored.db-wal", "restored.db-shm"):
            (self.folder / name).unlink(missing_ok=True)
        return self.plain.open(litestream.restore(self.location, path), "restored")


def run(rounds: int, seed: int, location: Location, folder: Path, seconds: float = 2, threads: int = 3,
        processes: int = 1, say: Callable[[str], None] = lambda line: None, through: Location | None = None) -> dict:
    """`rounds` rounds of up to `seconds` with up to `threads` threads in each of `processes` processes.

    With one process every second round ends with kill -9, with several all do, each process at a moment of its own.
    """
    return Crash(seed, location, folder, processes, say, through).run(rounds, seconds, threads)
