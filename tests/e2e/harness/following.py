"""A copy that follows, killed again and again, while four readers look at an invariant all the time."""

import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .location import Location
from .paths import SQLITE_SHELL, SYSTEM_PYTHON, clean_env
from .script import PREAMBLE
from .wait import until
from .worker import Connection, Worker

TOTAL = 100_000
SCHEMA = (
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, pad BLOB)",
    "CREATE INDEX account_balance ON account(balance)",
    "CREATE TABLE move(id INTEGER PRIMARY KEY, account INTEGER, amount INTEGER, pad BLOB)",
    "CREATE INDEX move_account ON move(account)",
    "CREATE TABLE meta(moves INTEGER, amount INTEGER, version INTEGER)",
    "INSERT INTO meta VALUES (0, 0, 0)",
    f"INSERT INTO account WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
    f" SELECT i, {TOTAL // 1000}, randomblob(500) FROM n",
)
INVARIANT = (f"SELECT (SELECT sum(balance) FROM account) = {TOTAL}"
             " AND (SELECT count(*) FROM move) = (SELECT moves FROM meta)"
             " AND (SELECT coalesce(sum(amount), 0) FROM move) = (SELECT amount FROM meta)"
             " AND (SELECT count(*) FROM account INDEXED BY account_balance WHERE balance > -1000000) = (SELECT count(*) FROM account)"
             " AND NOT EXISTS (SELECT 1 FROM move WHERE account NOT IN (SELECT id FROM account)), (SELECT version FROM meta)")

FOLLOW = """
load()
loader = connect(":memory:")
print(one(loader, "SELECT litestream_follow(?, ?, ?)", URL, COPY, OPTIONS), flush=True)
connect(":memory:").close()
for _ in sys.stdin:
    print(loader.execute("SELECT state, txid, lag, notice, last_error FROM litestream_databases").fetchall(), flush=True)
"""


class Follower:
    """A process in which a copy follows, until it is killed or `end`ed."""

    def __init__(self, location: Location, copy: Path, options: str = '{"follow_interval": "20ms"}'):
        names = "".join(f"{name} = {value!r}\n" for name, value in
                        (("URL", location.full_url), ("COPY", str(copy)), ("OPTIONS", options)))
        self._process = subprocess.Popen([SYSTEM_PYTHON, "-c", PREAMBLE + names + FOLLOW], cwd=copy.parent, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_env(**location.env, LITESTREAM_SQL="on"))
        self.answer = self._process.stdout.readline()
        assert self.answer, self._process.communicate()[1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def status(self) -> str:
        """How the copy is doing."""
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._close()

    def end(self) -> None:
        """The process ends as a program does."""
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        self._close()

    def _close(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()


class Readers:
    """Two sqlite3 shells, of which one is started for each look, and two Python readers, of which one stays in its transactions
    for a while."""

    def __init__(self, copy: Path, seed: int):
        self.copy = copy
        self.looks, self.broken, self.versions = [0] * 4, [], set()
        self._over = threading.Event()
        self._random = random.Random(seed)
        looks = (self._long_lived_shell, self._shell_for_each, self._python, self._lingering)
        self._threads = [threading.Thread(target=self._read, args=(number, look)) for number, look in enumerate(looks)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _read(self, number: int, look: Callable[[int], None]) -> None:
        try:
            look(number)
        except Exception as e:  # noqa: BLE001 - whatever a reader meets is told
            self.broken.append(f"reader {number}: {type(e).__name__}: {e}")

    def _note(self, number: int, row: object) -> None:
        holds, version = row
        if holds != 1:
            self.broken.append(f"reader {number}: the invariant does not hold at version {version}")
        self.looks[number] += 1
        self.versions.add(version)

    def _long_lived_shell(self, number: int) -> None:
        shell = subprocess.Popen([SQLITE_SHELL, "-batch", str(self.copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, bufsize=1)
        shell.stdin.write(".timeout 30000\n")
        while not self._over.is_set():
            shell.stdin.write(f"{INVARIANT};\n")
            self._note(number, [int(n) for n in shell.stdout.readline().split("|")])
        shell.stdin.close()
        assert shell.wait(30) == 0
        shell.stdout.close()

    def _shell_for_each(self, number: int) -> None:
        while not self._over.is_set():
            commands = (".timeout 30000", "BEGIN", INVARIANT, "PRAGMA integrity_check", "COMMIT")
            done = subprocess.run([SQLITE_SHELL, "-batch", "-bail", str(self.copy)], capture_output=True, text=True,
                                  input="".join(f"{c}{'' if c[0] == '.' else ';'}\n" for c in commands))
            row, *check = done.stdout.split()
            if done.returncode or check != ["ok"]:
                raise AssertionError(f"{done.returncode} {done.stdout} {done.stderr}")
            self._note(number, [int(n) for n in row.split("|")])

    def _python(self, number: int) -> None:
        with sqlite3.connect(self.copy, timeout=30, isolation_level=None) as db:
            while not self._over.is_set():
                self._note(number, db.execute(INVARIANT).fetchone())
                time.sleep(self._random.random() * 0.01)
        db.close()

    def _lingering(self, number: int) -> None:
        db = sqlite3.connect(self.copy, timeout=30, isolation_level=None)
        while not self._over.is_set():
            db.execute("BEGIN")
            first = db.execute(INVARIANT).fetchone()
            time.sleep(self._random.random() * 0.1)
            again = db.execute(INVARIANT).fetchone()
            db.execute("COMMIT")
            if first != again:
                self.broken.append(f"reader {number}: {first} became {again} within a transaction")
            self._note(number, first)
            time.sleep(self._random.random() * 0.1)
        db.close()


def commit(db: Connection, dice: random.Random, version: int) -> None:
    """One transaction that moves money, and now and then changes the schema, or makes the database smaller."""
    amounts = [(dice.randint(1, 1000), dice.randint(1, 1000), dice.randint(1, 50)) for _ in range(dice.randint(1, 12))]
    statements = ["BEGIN", f"UPDATE account SET pad = randomblob(length(pad)) WHERE id % 5 = {version % 5}"]
    for source, target, amount in amounts:
        statements += [f"UPDATE account SET balance = balance - {amount}, pad = randomblob({dice.randint(100, 3000)}) WHERE id = {source}",
                       f"UPDATE account SET balance = balance + {amount} WHERE id = {target}",
                       f"INSERT INTO move(account, amount, pad) VALUES ({source}, {amount}, randomblob({dice.randint(1, 2000)}))"]
    chance = dice.randrange(40)
    if chance == 0:
        statements += [f"CREATE TABLE IF NOT EXISTS extra{version % 5}(x)", "INSERT INTO account VALUES (NULL, 0, zeroblob(200000))"]
    elif chance == 1:
        statements += ["DELETE FROM move WHERE id % 3 = 0", f"DROP TABLE IF EXISTS extra{version % 5}",
                       "DELETE FROM account WHERE id > 1000"]
    statements += ["UPDATE meta SET moves = (SELECT count(*) FROM move), amount = (SELECT sum(amount) FROM move),"
                   f" version = {version}", "COMMIT"]
    if chance == 2:
        statements += ["VACUUM"]
    db.run(*statements)


def run(transactions: int, kills: int, seed: int, location: Location, folder: Path,
        say: Callable[[str], None] = lambda line: None) -> dict:
    """Commits `transactions` while the follower of a copy is killed `kills` times, half of them in the middle of a transaction
    of its own. Fails if a reader saw anything but whole transactions, or if the copy is not the database at the end."""
    dice = random.Random(seed)
    worker = Worker("python", env=location.env, cwd=folder)
    copy = folder / "copy.db"
    db = worker.open(location.primary(folder / "app.db", sync_interval="20ms"))
    db.run(*SCHEMA)
    db.one("SELECT litestream_sync()")
    follower, journal = Follower(location, copy), Path(f"{copy}-journal")
    readers = Readers(copy, seed)
    stop, killed, hot, lags = threading.Event(), 0, 0, []
    failures: list[str] = []

    def kill() -> None:
        nonlocal follower, killed, hot
        try:
            while killed < kills:
                if killed % 2:
                    time.sleep(dice.random())
                else:
                    _meet(journal, dice.randint(1, 4))
                follower.kill()
                hot += journal.exists()
                killed += 1
                follower = Follower(location, copy)
        except Exception as e:  # noqa: BLE001 - told at the end
            failures.append(f"{type(e).__name__}: {e}")
        stop.set()

    killer = threading.Thread(target=kill)
    killer.start()
    version = 0
    try:
        while (version < transactions or not stop.is_set()) and not failures:
            if version * kills > transactions * (killed + 1) and not stop.is_set():
                time.sleep(0.01)
                continue
            version += 1
            commit(db, dice, version)
            if version % 100 == 0:
                say(f"{version} transactions, {killed} kills, {hot} of them within a transaction, looks {readers.looks}")
            time.sleep(0.02)
        killer.join()
        assert not failures, failures
        for version in range(version + 1, version + 26):
            commit(db, dice, version)
            db.one("SELECT litestream_sync()")
            begun = time.monotonic()
            try:
                until(lambda: _version(copy) == version, 60, "the copy has the last transaction", 0.002)
            except AssertionError as e:
                raise AssertionError(f"{e}: {follower.status()}") from None
            lags.append(time.monotonic() - begun)
        follower.end()
    finally:
        readers.end()
        stop.set()
    assert not readers.broken, readers.broken[:5]
    assert not journal.exists()
    _assert_equal(folder / "app.db", copy)
    report = {"transactions": version, "kills": killed, "within_a_transaction": hot, "looks": readers.looks,
              "versions_seen": len(readers.versions), "lag_median": sorted(lags)[len(lags) // 2], "lag_max": max(lags)}
    worker.kill()
    return report


def _meet(journal: Path, times: int) -> None:
    """Returns as soon as the journal is there for the last of so many times, or after some seconds."""
    deadline = time.monotonic() + 5
    for number in range(times):
        while number and journal.exists() and time.monotonic() < deadline:
            pass
        while not journal.exists() and time.monotonic() < deadline:
            pass


def _version(copy: Path) -> int:
    db = sqlite3.connect(copy, timeout=30)
    try:
        return db.execute("SELECT version FROM meta").fetchone()[0]
    finally:
        db.close()


def _assert_equal(database: Path, copy: Path) -> None:
    def dump(path: Path) -> str:
        done = subprocess.run([SQLITE_SHELL, "-batch", "-bail", str(path), "PRAGMA integrity_check", ".dump"], capture_output=True,
                              text=True, check=True)
        return done.stdout

    ours, theirs = dump(copy), dump(database)
    assert ours.startswith("ok\n") and ours == theirs
