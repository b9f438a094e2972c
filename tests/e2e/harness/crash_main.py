"""A host that several threads write through, until it is told to close or is killed.

    python crash_main.py '{"library": …, "uri": …, "seed": …, "seconds": …, "first": …, "threads": …,
                            "end": "close" | "kill"}'

Threads are numbered from `first` on. With `end: kill` the process kills itself in the middle of everything. Each line of the output is
`acked THREAD N`: transaction N of that thread was in the replica when `litestream_sync` returned, or, with `"commits": true`, when
its COMMIT did.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time

SCHEMA = """
CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, thread INTEGER, data BLOB);
CREATE INDEX IF NOT EXISTS t_thread ON t(thread);
CREATE TABLE IF NOT EXISTS ledger(thread INTEGER PRIMARY KEY, transactions INTEGER, rows INTEGER, bytes INTEGER);
CREATE TRIGGER IF NOT EXISTS t_in AFTER INSERT ON t BEGIN
  UPDATE ledger SET rows = rows + 1, bytes = bytes + length(new.data) WHERE thread = new.thread; END;
CREATE TRIGGER IF NOT EXISTS t_out AFTER DELETE ON t BEGIN
  UPDATE ledger SET rows = rows - 1, bytes = bytes - length(old.data) WHERE thread = old.thread; END;
CREATE TRIGGER IF NOT EXISTS t_new AFTER UPDATE OF data ON t BEGIN
  UPDATE ledger SET bytes = bytes + length(new.data) - length(old.data) WHERE thread = new.thread; END;
"""


class Thread(threading.Thread):
    """One connection and its work."""

    def __init__(self, number: int, order: dict):
        super().__init__(daemon=True)
        self.number, self.order = number, order
        self.random = random.Random(f"{order['seed']}/{number}")
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            db = sqlite3.connect(self.order["uri"], uri=True, isolation_level=None, timeout=30)
            self.work(db)
            db.close()
        except BaseException as failure:  # reported by the main thread
            self.failure = failure

    def work(self, db: sqlite3.Connection) -> None:
        for setting in (f"wal_autocheckpoint={self.random.choice([1, 10, 100, 1000])}",
                        f"synchronous={self.random.choice(['normal', 'full'])}",
                        f"cache_size={self.random.choice([10, 2000])}"):
            db.execute(f"PRAGMA {setting}")
        db.execute("INSERT OR IGNORE INTO ledger VALUES (?, 0, 0, 0)", (self.number,))
        deadline = time.monotonic() + self.order["seconds"]
        while time.monotonic() < deadline:
            try:
                self.step(db)
            except sqlite3.OperationalError as e:
                # A commit that is not confirmed is committed all the same.
                if "locked" not in str(e) and not (self.order.get("commits") and "locking protocol" in str(e)):
                    raise
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def step(self, db: sqlite3.Connection) -> None:
        chance = self.random.random()
        if chance < 0.90 or chance > 0.965 and self.order.get("commits"):
            self.transaction(db)
        elif chance < 0.96:
            mode = self.random.choice(["passive", "full", "restart", "truncate"])
            db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        elif chance < 0.965:
            db.execute("VACUUM")
        else:
            self.sync(db)

    def transaction(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        chance, me = self.random.random(), self.number
        some = "SELECT id FROM t WHERE thread = ? ORDER BY random() LIMIT ?"
        if chance < 0.7:
            db.execute("INSERT INTO t(thread, data) VALUES (?, randomblob(?))", (me, self.random.randrange(1, 3000)))
        elif chance < 0.8:
            db.execute(f"UPDATE t SET data = randomblob(100) WHERE id IN ({some})", (me, 5))
        elif chance < 0.95:
            db.execute(f"DELETE FROM t WHERE id IN ({some})", (me, 20))
        else:
            db.executemany("INSERT INTO t(thread, data) VALUES (?, randomblob(5000))", [(me,)] * 60)
        db.execute("UPDATE ledger SET transactions = transactions + 1 WHERE thread = ?", (me,))
        if self.random.random() < 0.05:
            db.execute("ROLLBACK")
            return
        (done,) = db.execute("SELECT transactions FROM ledger WHERE thread = ?", (me,)).fetchone()
        db.execute("COMMIT")
        if self.order.get("commits"):
            os.write(1, f"acked {me} {done}\n".encode())

    def sync(self, db: sqlite3.Connection) -> None:
        (done,) = db.execute("SELECT transactions FROM ledger WHERE thread = ?", (self.number,)).fetchone()
        try:
            db.execute("SELECT litestream_sync(60)").fetchone()
        except sqlite3.OperationalError as e:
            if "another process" in str(e):
                return
            raise
        os.write(1, f"acked {self.number} {done}\n".encode())


def main() -> None:
    order = json.loads(sys.argv[1])
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(order["library"])
    first = sqlite3.connect(order["uri"], uri=True, isolation_level=None, timeout=30)
    first.executescript(SCHEMA)
    if order["end"] == "kill":
        seconds = order["seconds"] * random.Random(order["seed"]).uniform(0.2, 1.0)
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
    threads = [Thread(order["first"] + n, order) for n in range(order["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [f"thread {t.number}: {t.failure!r}" for t in threads if t.failure]
    first.close()
    if failures:
        sys.exit("\n".join(failures))


main()
