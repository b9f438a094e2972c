"""A migration went wrong; the database was restored to the state before it, and the migration was done in another way. So two
states of a replica count the same number of schemas, which are not the same: connections that were open all the time read the
rows of one table as those of another, without any error."""

import json
import sqlite3

import pytest

from harness.sql import sync
from harness.wait import until
from harness.worker import SqlError

QUICK = {"poll_interval": "50ms", "poll_idle_interval": "50ms"}
ANN, EVE = [["ann", 100]], [["eve", 999]]
"""What the tables of the two migrations hold."""


class Migrated:
    """The replica of a database that was migrated, restored to before that, and migrated in another way; `readers` were open
    all the time, or at least since the first migration."""

    def __init__(self, start, location, tmp_path):
        self.worker, self.location, self.path = start("python", location), location, tmp_path / "app.db"
        console = self.worker.open(":memory:", "console").load()
        primary = self.worker.open(location.primary(self.path))
        primary.run("CREATE TABLE base(a)")
        before = sync(primary)
        primary.run("CREATE TABLE salaries(who, amount)", "INSERT INTO salaries VALUES('ann', 100)")
        self.first = sync(primary)
        self.reader = self.worker.open(location.replica(**QUICK), "reader")
        copy = tmp_path / "copy.db"
        console.one("SELECT litestream_follow(?, ?, ?)", location.full_url, str(copy), '{"follow_interval": "20ms"}')
        self.copy = sqlite3.connect(copy, isolation_level=None)
        assert self.reader.rows("SELECT * FROM salaries") == ANN
        assert self.copy.execute("SELECT * FROM salaries").fetchall() == [("ann", 100)]
        primary.close()
        options = json.dumps({"txid": before, "rewind": True, "force": True})
        console.one("SELECT litestream_restore(?, ?, ?)", location.full_url, str(self.path), options)
        primary = self.worker.open(location.primary(self.path))
        primary.run("CREATE TABLE bonuses(who, amount)", "INSERT INTO bonuses VALUES('eve', 999)")
        self.second = sync(primary)


@pytest.fixture
def migrated(start, location, tmp_path):
    return Migrated(start, location, tmp_path)


def shows_the_second(reader) -> None:
    assert reader.rows("SELECT * FROM bonuses") == EVE
    with pytest.raises(SqlError, match="no such table"):
        reader.rows("SELECT * FROM salaries")


def test_a_reader_that_was_open(migrated):
    migrated.reader.rows("SELECT litestream_wait(?)", f"{migrated.second:016x}")
    shows_the_second(migrated.reader)


def test_a_connection_that_goes_back_and_forth(migrated):
    reader = migrated.worker.open(migrated.location.replica(), "traveller")
    for _ in range(2):
        shows_the_second(reader)
        reader.rows("SELECT litestream_set_time(?)", f"txid:{migrated.first}")
        assert reader.rows("SELECT * FROM salaries") == ANN
        with pytest.raises(SqlError, match="no such table"):
            reader.rows("SELECT * FROM bonuses")
        reader.rows("SELECT litestream_set_time('latest')")


def test_a_reader_of_a_copy_that_was_open(migrated):
    def rows(sql: str) -> list:
        return migrated.copy.execute(sql).fetchall()

    until(lambda: ("bonuses",) in rows("SELECT name FROM sqlite_schema") and rows("SELECT * FROM bonuses") == [("eve", 999)])
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        rows("SELECT * FROM salaries")
