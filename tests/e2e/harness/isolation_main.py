"""A process whose threads read one replica: `python isolation_main.py '{"library": …, "uri": …}'`.

Each thread has a connection of its own. Every transaction must see one state of the bank: the sum of all
accounts, and the last serial in them, are as `bank` says. A line of JSON tells every second how it goes.
"""

import json
import random
import sqlite3
import sys
import threading
import time

ACCOUNTS = 20_000
TOTAL = ACCOUNTS * 1000
CHECK = "SELECT (SELECT serial FROM bank), sum(balance), max(serial) FROM account"


class Reader(threading.Thread):
    """Reads transactions that last `hold` seconds each."""

    def __init__(self, number: int, uri: str, seed: int, hold: float):
        super().__init__(daemon=True)
        self.number, self.uri, self.hold = number, uri, hold
        self.random = random.Random(seed * 1000 + number)
        self.reads = self.transactions = self.states = self.serial = 0
        self.errors: list[str] = []
        self.ending = threading.Event()

    def run(self) -> None:
        db = sqlite3.connect(self.uri, uri=True, isolation_level=None, check_same_thread=False)
        # SQLite's own cache would answer for the replica.
        db.execute("PRAGMA cache_size = 20")
        while not self.ending.is_set():
            try:
                self.transaction(db)
            except (sqlite3.Error, AssertionError) as e:
                self.errors.append(f"thread {self.number}: {type(e).__name__}: {e}")
                if db.in_transaction:
                    db.execute("ROLLBACK")
                time.sleep(0.1)
        db.close()

    def transaction(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN")
        until = time.monotonic() + self.hold
        first = self.check(db)
        assert first >= self.serial, f"went back from {self.serial} to {first}"
        while True:
            for _ in range(5):
                self.row(db, first)
            again = self.check(db)
            assert again == first, f"changed from {first} to {again} within a transaction"
            if time.monotonic() >= until or self.ending.wait(0.01):
                break
        db.execute("COMMIT")
        self.transactions += 1
        self.states += first != self.serial
        self.serial = first

    def check(self, db: sqlite3.Connection) -> int:
        serial, total, last = db.execute(CHECK).fetchone()
        self.reads += 1
        assert (total, last) == (TOTAL, serial), f"serial {serial} with a sum of {total} and a last change at {last}"
        return serial

    def row(self, db: sqlite3.Connection, serial: int) -> None:
        found = db.execute("SELECT serial, note FROM account WHERE id = ?", [self.random.randrange(ACCOUNTS)]).fetchone()
        self.reads += 1
        assert found[0] <= serial and found[1].startswith(f"{found[0]}:"), f"{found[0]} {found[1][:20]} at serial {serial}"


def main() -> None:
    options = json.loads(sys.argv[1])
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(options["library"])
    loader.close()
    holds = [options["long"]] + [0.05] * (options["threads"] - 1)
    readers = [Reader(n, options["uri"], options["seed"], hold) for n, hold in enumerate(holds)]
    for reader in readers:
        reader.start()
    ending = threading.Thread(target=sys.stdin.read, daemon=True)
    ending.start()
    while ending.is_alive():
        ending.join(1)
        report(readers)
    for reader in readers:
        reader.ending.set()
    for reader in readers:
        reader.join(60)
    report(readers)


def report(readers: list[Reader]) -> None:
    print(json.dumps({
        "reads": sum(r.reads for r in readers),
        "transactions": [r.transactions for r in readers],
        "states": [r.states for r in readers],
        "serial": max(r.serial for r in readers),
        "errors": [e for r in readers for e in r.errors],
    }), flush=True)


if __name__ == "__main__":
    main()
