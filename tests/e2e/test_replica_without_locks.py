"""A reader opens a replica with `immutable=1`, as Datasette does with files, or with `nolock=1`.

SQLite then takes no lock, so nothing says which state a query reads: two rows between which every commit moves
money, 200 in all, added up to 300. Such an open is refused with the reason, in every spelling that SQLite takes.
"""

import pytest

from harness.location import sqlite_uri
from harness.paths import LIBRARY
from harness.sql import sync
from harness.worker import SqlError

SWITCHES = ["immutable=1", "nolock=1", "immutable=on", "nolock=2", "immutable=1x"]


@pytest.fixture
def primary(start, in_folder, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db", sync_interval="10ms"))
    # The rows lie on pages of their own.
    db.run("CREATE TABLE account(name TEXT PRIMARY KEY, amount INT, note BLOB)",
           "INSERT INTO account VALUES ('a', 100, randomblob(3000)), ('b', 100, randomblob(3000))")
    sync(db)
    return db


def total(db) -> int:
    return db.one("SELECT sum(amount) FROM account NOT INDEXED")


@pytest.mark.parametrize("switch", SWITCHES)
def test_it_is_refused_with_the_reason(switch, start, host, primary, in_folder):
    key, _, value = switch.partition("=")
    for more in ({}, {"asof": "txid:1"}):
        with pytest.raises(SqlError) as error:
            total(start(host).open(in_folder.replica(**{key: value}, **more)))
        message = str(error.value)
        assert f"{switch} switches off the locks" in message and "remove it from the URI" in message, message


def test_the_shell_and_attach_say_so_too(shell, start, primary, in_folder, tmp_path):
    session = shell()
    session.run(f".load {LIBRARY.with_suffix('')}")
    output = session.run(f".open '{in_folder.replica(immutable=1)}'\nSELECT sum(amount) FROM account;")
    assert "immutable=1 switches off the locks" in output and "200" not in output, output
    db = start("python").open(tmp_path / "plain.db")
    for number, switch in enumerate(("immutable", "nolock")):
        # Without locks SQLite must not take what is refused for an empty database either.
        with pytest.raises(SqlError) as error:
            db.rows(f"ATTACH ? AS a{number}", in_folder.replica(**{switch: 1}))
            db.rows(f"SELECT sum(amount) FROM a{number}.account")
        rows = "\n".join(str(row) for row in db.rows("SELECT * FROM litestream_status"))
        assert f"{switch}=1 switches off the locks" in str(error.value) + rows
        assert "no such table" not in str(error.value)


def test_what_switches_nothing_off_is_read_and_adds_up(start, host, primary, in_folder):
    replicas = [start(host).open(in_folder.replica(poll_interval="10ms", **p))
                for p in ({}, {"immutable": 0}, {"nolock": "no"})]
    for n in range(20):
        primary.rows("UPDATE account SET amount = amount + CASE name WHEN 'a' THEN ? ELSE ? END", n, -n)
        sync(primary)
        for replica in replicas:
            assert total(replica) == 200


def test_a_local_file_may_still_be_opened_so(start, primary, tmp_path):
    """Opens that do not come to this library are SQLite's."""
    primary.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    primary.close()
    assert total(start("python").open(sqlite_uri(tmp_path / "app.db", immutable=1))) == 200
