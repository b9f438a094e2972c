"""Rounds of commits that wait, each ended by kill -9 of all processes or by a power failure: what returned must be there.

After a kill the disk is thrown away, and the database restored from the replica alone. After a power failure the disk is kept,
with what was synced and nothing else (`durable.c`): reopened, the database and its replica have every commit that returned.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from . import litestream
from .crash import Crash
from .location import Location
from .sql import sync
from .state import replica_states, state_folder
from .worker import Connection, SqlError, Worker

BOOT = re.compile(r'"boot":"[^"]*"')
SHIM = Path(__file__).with_name("durable.c")


def records_what_is_on_disk(folder: Path) -> dict[str, str]:
    """The environment of a process that leaves a copy of each file beside it, with `.durable`, as it was when last synced."""
    shim = folder / "durable.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", shim, SHIM, "-ldl"], check=True)
    return {"LD_PRELOAD": str(shim)}


class Commits(Crash):
    """One database whose commits wait, and what becomes of its machine."""

    def __init__(self, seed: int, location: Location, folder: Path, processes: int, say: Callable[[str], None],
                 through: Location | None = None):
        super().__init__(seed, location, folder, processes, say, through)
        self.parameters = {"commit": "replicated", "commit_timeout": "30s"}
        self.order = {"commits": True}
        self.env_of_disk = records_what_is_on_disk(folder)
        self.power_failures = self.stopped = 0

    def _round(self, number: int, seconds: float, threads: int) -> None:
        fails = number % 2 == 1
        self.env = self.env_of_disk if fails else {}
        if fails:
            self._forget_durable()
            self._settle()
        acked = self._hosts("kill", seconds, threads)
        if fails:
            self.power_failures += 1
            self._fail_power()
            self._reopened_has(acked)
        else:
            self.kills += self.processes
            self._assert_acked_is_in_the_replica(acked)
            self._throw_away()
        self.say(f"round {number}: {'power' if fails else 'kill'}, {sum(acked.values())} transactions acknowledged, "
                 f"TXID {self.location.last_txid() if self.location.files() else 0}")

    def _files(self) -> list[Path]:
        return [self.folder / f"crash.db{suffix}" for suffix in ("", "-wal", "-shm")]

    def _forget_durable(self) -> None:
        for path in self._files():
            Path(f"{path}.durable").unlink(missing_ok=True)

    def _settle(self) -> None:
        """What is on disk now is on disk."""
        for path in self._files()[:2]:
            if path.exists():
                shutil.copy(path, f"{path}.durable")

    def _fail_power(self) -> None:
        """The disk has what was synced, and nothing else of the database; all of the state folder."""
        for path in self._files():
            durable = Path(f"{path}.durable")
            if durable.exists():
                # The file stays the one that it was.
                path.write_bytes(durable.read_bytes())
                durable.unlink()
            else:
                path.unlink(missing_ok=True)
        for folder in replica_states(self.database):
            state = folder / "vfs.json"
            if state.exists():
                state.write_text(BOOT.sub('"boot":"the boot before"', state.read_text()))

    def _reopened_has(self, acked: dict[int, int]) -> None:
        worker = Worker("python", env=self.location.env, cwd=self.folder)
        db = worker.open(self.location.primary(self.database, close_timeout="60s"))
        if db.rows("SELECT 1 FROM sqlite_schema WHERE name = 'ledger'"):
            self._has(dict(db.rows("SELECT thread, transactions FROM ledger")), acked, "the disk that was kept")
            assert db.one("PRAGMA integrity_check") == "ok"
            self._continue(db)
        else:
            assert not acked
        db.close()
        worker.end()
        self._assert_acked_is_in_the_replica(acked)

    def _continue(self, db: Connection) -> None:
        """The disk may have commits that are in no file of the replica: replication stops then until somebody decides."""
        try:
            sync(db, 60)
        except SqlError as error:
            assert "litestream_resume('force')" in str(error)
            self.stopped += 1
            db.one("SELECT litestream_resume('force')")
            sync(db, 60)

    @staticmethod
    def _has(there: dict[int, int], acked: dict[int, int], where: str) -> None:
        for thread, transactions in acked.items():
            assert there.get(thread, 0) >= transactions, \
                f"thread {thread}: {there.get(thread)} of {transactions} in {where}"

    def _throw_away(self) -> None:
        """The machine is gone; another one begins with the replica."""
        for path in self._files():
            path.unlink(missing_ok=True)
        shutil.rmtree(state_folder(self.database), ignore_errors=True)
        if self.location.files():
            litestream.restore(self.location, self.database)


def run(rounds: int, seed: int, location: Location, folder: Path, seconds: float = 2, threads: int = 2,
        processes: int = 3, say: Callable[[str], None] = lambda line: None, through: Location | None = None) -> dict:
    """`rounds` rounds of up to `seconds` with up to `threads` threads in each of `processes` processes."""
    commits = Commits(seed, location, folder, processes, say, through)
    return commits.run(rounds, seconds, threads) | {"power_failures": commits.power_failures, "stopped": commits.stopped}
