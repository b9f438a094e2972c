"""A primary that commits all the time, files that are merged and removed at once, and threads that read.

Litestream replicates and compacts; a thread of this process removes each file as soon as one of a higher
level has what is in it, which is earlier than any retention would.
"""

import json
import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .isolation_main import ACCOUNTS
from .litestream import Replicate
from .location import Location, Ltx
from .paths import LIBRARY, SYSTEM_PYTHON, clean_env
from .proc import rss_kib

MAIN = Path(__file__).with_name("isolation_main.py")


class Bank(threading.Thread):
    """Moves money between accounts, `rate` transactions a second."""

    def __init__(self, path: Path, seed: int, rate: float):
        super().__init__(daemon=True)
        self.path, self.random, self.rate = path, random.Random(seed), rate
        self.serial = 0
        self.failure: BaseException | None = None
        self.ending = threading.Event()
        self._create()

    def _create(self) -> None:
        with sqlite3.connect(self.path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE bank(serial INTEGER)")
            db.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, serial INTEGER, note TEXT)")
            db.execute("INSERT INTO bank VALUES(0)")
            rows = ((n, 1000, 0, "0:" + self._note()) for n in range(ACCOUNTS))
            db.executemany("INSERT INTO account VALUES(?, ?, ?, ?)", rows)
            db.execute("CREATE INDEX account_serial ON account(serial)")

    def _note(self) -> str:
        return self.random.randbytes(100).hex()

    def run(self) -> None:
        try:
            db = sqlite3.connect(self.path, isolation_level=None, timeout=30)
            began = time.monotonic()
            while not self.ending.wait(max(0, began + self.serial / self.rate - time.monotonic())):
                self._transaction(db)
            db.close()
        except BaseException as failure:  # reported by who joins
            self.failure = failure

    def _transaction(self, db: sqlite3.Connection) -> None:
        serial, amount = self.serial + 1, self.random.randrange(1, 100)
        giver, taker = self.random.sample(range(ACCOUNTS), 2)
        db.execute("BEGIN IMMEDIATE")
        for account, change in ((giver, -amount), (taker, amount)):
            db.execute("UPDATE account SET balance = balance + ?, serial = ?, note = ? WHERE id = ?",
                       [change, serial, f"{serial}:{self._note()}", account])
        db.execute("UPDATE bank SET serial = ?", [serial])
        db.execute("COMMIT")
        self.serial = serial


class Remover(threading.Thread):
    """Removes files of level 0 at once when they were merged, those of higher levels `later` seconds after."""

    def __init__(self, location: Location, later: float):
        super().__init__(daemon=True)
        self.location, self.later = location, later
        self.removed: dict[int, int] = {}
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.wait(0.05):
            files = self.location.files()
            for file in files:
                if file.level < 9 and self._merged(file, files):
                    file.path.unlink(missing_ok=True)
                    self.removed[file.level] = self.removed.get(file.level, 0) + 1

    def _merged(self, file: Ltx, files: list[Ltx]) -> bool:
        over = [f for f in files if file.level < f.level < 9 and f.min <= file.min and f.max >= file.max]
        # The latest of each level stays: Litestream goes on from it.
        latest = max((f.max for f in files if f.level == file.level), default=0)
        if not over or file.max == latest:
            return False
        try:
            return file.level == 0 or time.time() - min(f.path.stat().st_mtime for f in over) > self.later
        except FileNotFoundError:
            return False


def run(seconds: float, seed: int, location: Location, folder: Path, threads: int = 8, long: float = 30,
        rate: float = 200, later: float = 60, say: Callable[[str], None] = print, **settings: object) -> dict:
    """Reads for `seconds`, one of the threads in transactions of `long` seconds; the figures."""
    bank = Bank(folder / "bank.db", seed, rate)
    uri = location.replica(poll_interval="100ms", open_timeout="30s", **settings)
    options = {"library": str(LIBRARY), "uri": uri, "threads": threads, "seed": seed, "long": long}
    with Replicate(folder / "bank.db", location, folder, sync="200ms", levels=("2s", "10s", "60s"), snapshot="30s",
                   l0_retention="5m"):
        bank.start()
        remover = Remover(location, later)
        remover.start()
        readers = subprocess.Popen([SYSTEM_PYTHON, str(MAIN), json.dumps(options)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, cwd=folder, env=clean_env(**location.env))
        try:
            return _watch(readers, bank, remover, seconds, say)
        finally:
            for thread in (bank, remover):
                thread.ending.set()
                thread.join(60)
            if readers.poll() is None:
                readers.kill()
            readers.wait()
            for pipe in (readers.stdin, readers.stdout):
                pipe.close()


def _watch(readers: subprocess.Popen, bank: Bank, remover: Remover, seconds: float, say) -> dict:
    began, memory, report, next_line = time.monotonic(), [], {}, 0.0
    for line in readers.stdout:
        report, elapsed = json.loads(line), time.monotonic() - began
        if bank.failure:
            raise AssertionError("the writer failed") from bank.failure
        if readers.stdin.closed:
            continue
        memory.append(rss_kib(readers.pid))
        if elapsed >= next_line:
            say(f"{elapsed:5.0f} s: serial {bank.serial}, seen {report['serial']}, {report['reads']} reads, "
                f"{memory[-1] // 1024} MiB, removed {remover.removed}, {len(report['errors'])} errors")
            next_line += 10
        if elapsed >= seconds:
            readers.stdin.close()
    begin, end = memory[len(memory) // 4:len(memory) // 2], memory[-max(1, len(memory) // 4):]
    return report | {"commits": bank.serial, "rate": round(bank.serial / (time.monotonic() - began)),
                     "removed": remover.removed, "rss_mib": max(memory) // 1024, "exit": readers.wait(),
                     "growth_mib": round((max(end) - max(begin, default=0)) / 1024, 1), "cores": os.cpu_count()}
