"""Seeded mixed work on one database. Each transaction keeps an invariant that any reader can check."""

import random
from collections import Counter
from collections.abc import Callable

from .worker import Connection

ACCOUNTS, TOTAL = 100, 100_000
MOST_ITEMS = 2000

SCHEMA = (
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
    "CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER, data BLOB NOT NULL)",
    "CREATE INDEX item_grp ON item(grp)",
    "CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER NOT NULL)",
    "INSERT INTO meta VALUES ('serial', 0), ('items', 0), ('bytes', 0), ('tables', 0)",
    "CREATE TRIGGER item_in AFTER INSERT ON item BEGIN"
    " UPDATE meta SET v = v + 1 WHERE k = 'items'; UPDATE meta SET v = v + length(new.data) WHERE k = 'bytes'; END",
    "CREATE TRIGGER item_out AFTER DELETE ON item BEGIN"
    " UPDATE meta SET v = v - 1 WHERE k = 'items'; UPDATE meta SET v = v - length(old.data) WHERE k = 'bytes'; END",
    "CREATE TRIGGER item_new AFTER UPDATE OF data ON item BEGIN"
    " UPDATE meta SET v = v + length(new.data) - length(old.data) WHERE k = 'bytes'; END",
    f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS})"
    f" INSERT INTO account SELECT i, {TOTAL // ACCOUNTS} FROM n",
)

INVARIANT = f"""
SELECT (SELECT v FROM meta WHERE k = 'serial'),
       (SELECT sum(balance) FROM account) - {TOTAL},
       (SELECT count(*) FROM item) - (SELECT v FROM meta WHERE k = 'items'),
       (SELECT CAST(total(length(data)) AS INTEGER) FROM item) - (SELECT v FROM meta WHERE k = 'bytes'),
       (SELECT count(*) FROM sqlite_schema WHERE name GLOB 'extra_*') - (SELECT v FROM meta WHERE k = 'tables')
"""


def serial_if_consistent(db: Connection) -> int:
    """The number of transactions that the reader sees; an AssertionError if it sees a state between two."""
    serial, *differences = db.rows(INVARIANT)[0]
    assert differences == [0, 0, 0, 0], f"after transaction {serial}: {differences}"
    return serial


class Workload:
    """Does one thing after the other, each chosen by the seed."""

    def __init__(self, seed: int, reopen: Callable[[Connection | None], Connection]):
        self.random = random.Random(seed)
        self.reopen_with = reopen
        self.db = reopen(None)
        self.done: Counter[str] = Counter()
        self.tables: list[str] = []
        self.columns = 0
        self.transaction(*SCHEMA)

    def transaction(self, *statements: str, end: str = "COMMIT") -> None:
        """The statements as one transaction, which counts itself."""
        self.db.run("BEGIN IMMEDIATE", *statements, "UPDATE meta SET v = v + 1 WHERE k = 'serial'", end)

    def step(self) -> None:
        """One piece of work."""
        names, weights = zip(*STEPS.items())
        name = self.random.choices(names, weights)[0]
        getattr(self, name)()
        self.done[name] += 1

    # Each of these is one transaction, or none that counts.

    def insert(self) -> None:
        sizes = [self.random.choice((10, 200, 3000, 20_000, 300_000)) for _ in range(self.random.randint(1, 5))]
        self.transaction(*(f"INSERT INTO item(grp, data) VALUES ({self.random.randint(0, 50)}, randomblob({n}))"
                           for n in sizes))

    def update(self) -> None:
        group = self.random.randint(0, 50)
        self.transaction(f"UPDATE item SET data = randomblob(length(data) % 5000 + {self.random.randint(0, 500)})"
                         f" WHERE grp = {group}")

    def transfer(self) -> None:
        a, b = self.random.sample(range(1, ACCOUNTS + 1), 2)
        amount = self.random.randint(1, 500)
        self.transaction(f"UPDATE account SET balance = balance - {amount} WHERE id = {a}",
                         f"UPDATE account SET balance = balance + {amount} WHERE id = {b}")

    def delete(self) -> None:
        self.transaction(f"DELETE FROM item WHERE grp = {self.random.randint(0, 50)}",
                         f"DELETE FROM item WHERE id < (SELECT max(id) FROM item) - {MOST_ITEMS}")

    def rollback(self) -> None:
        self.transaction("UPDATE account SET balance = 0", "DELETE FROM item WHERE id % 2",
                         "INSERT INTO item(data) VALUES (randomblob(2000000))", end="ROLLBACK")

    def savepoint(self) -> None:
        self.transaction("SAVEPOINT a", "DELETE FROM account", "SAVEPOINT b",
                         "INSERT INTO item(data) VALUES (randomblob(100000))", "ROLLBACK TO a",
                         "INSERT INTO item(grp, data) VALUES (7, randomblob(5000))", "RELEASE a")

    def schema_change(self) -> None:
        if self.tables and self.random.random() < 0.5:
            self.transaction(f"DROP TABLE {self.tables.pop()}", "UPDATE meta SET v = v - 1 WHERE k = 'tables'")
        else:
            self.tables.append(f"extra_{self.done['schema_change']}")
            self.transaction(f"CREATE TABLE {self.tables[-1]} AS SELECT id, grp FROM item LIMIT 300",
                             "UPDATE meta SET v = v + 1 WHERE k = 'tables'")
        if self.columns < 20:
            self.columns += 1
            self.transaction(f"ALTER TABLE item ADD COLUMN c{self.columns} DEFAULT {self.columns}",
                             "DROP INDEX item_grp", "CREATE INDEX item_grp ON item(grp)")

    def vacuum(self) -> None:
        self.db.run("VACUUM")

    def checkpoint(self) -> None:
        self.db.run(f"PRAGMA wal_checkpoint({self.random.choice(('TRUNCATE', 'PASSIVE', 'RESTART', 'FULL'))})")

    # What happens when the caller says so.

    def big(self, mebibytes: int) -> None:
        """One transaction of this size."""
        self.transaction(f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {mebibytes})"
                         " INSERT INTO item(grp, data) SELECT 99, randomblob(1048576) FROM n")
        self.done["big"] += 1

    def forget_big(self) -> None:
        self.transaction("DELETE FROM item WHERE grp = 99")

    def reopen(self) -> None:
        self.db = self.reopen_with(self.db)
        self.done["reopen"] += 1


STEPS = {"insert": 30, "update": 15, "transfer": 40, "delete": 6, "rollback": 2, "savepoint": 4,
         "schema_change": 2, "vacuum": 0.1, "checkpoint": 1}
