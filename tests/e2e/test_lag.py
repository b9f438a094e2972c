"""How old is what a connection reads?

A pool whose connections hold transactions open reads yesterday's rows, while the replica follows the primary second by second.
`litestream_lag` is that of the connection that asks: of its transaction, of the state that it chose, or of the latest one.
"""

import time

import pytest

from harness.sql import fill, insert, sync
from harness.wait import until


@pytest.fixture
def primary(start, in_folder, tmp_path):
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", sync_interval="10ms"))
    fill(db, 10)
    sync(db)
    return db


def lags(db) -> float:
    """By the function, the status and the PRAGMA, which agree."""
    by_function = db.one("SELECT litestream_lag()")
    by_status = db.one("SELECT lag FROM litestream_status WHERE role = 'replica'")
    by_pragma = int(db.one("PRAGMA litestream_lag"))
    assert by_function <= by_status + 0.01 and abs(by_pragma - by_function) < 1.5
    return by_function


def rows(db) -> int:
    return db.one("SELECT count(*) FROM t")


@pytest.mark.parametrize("hold", ["BEGIN", "PRAGMA locking_mode = EXCLUSIVE"])
def test_a_connection_that_holds_a_state(hold, primary, start, in_folder):
    worker = start("apsw", in_folder)
    holds = worker.open(in_folder.replica(poll_interval="50ms"), "holds")
    follows = worker.open(in_folder.replica(poll_interval="50ms"), "follows")
    holds.run(hold)
    assert rows(holds) == 10
    # It is the latest state as long as there is no other, however long the transaction lasts.
    time.sleep(1.2)
    assert lags(holds) < 1
    insert(primary, 1)
    sync(primary)
    changed = time.monotonic()
    until(lambda: rows(follows) == 11)
    until(lambda: time.monotonic() - changed > 1.5)
    assert lags(follows) < 1
    assert rows(holds) == 10 and 1 < lags(holds) < 10
    # SQLite leaves the exclusive mode with the next read.
    holds.run(*["COMMIT"] if hold == "BEGIN" else ["PRAGMA locking_mode = NORMAL", "SELECT count(*) FROM t"])
    assert rows(holds) == 11 and lags(holds) < 1


def test_a_state_that_was_chosen(primary, start, in_folder):
    first = primary.one("SELECT litestream_txid()")
    committed = time.time()
    time.sleep(1.2)
    insert(primary, 1)
    sync(primary)
    worker = start("python", in_folder)
    by_txid = worker.open(in_folder.replica(asof=first), "by_txid")
    by_time = worker.open(in_folder.replica(asof=f"{committed:.3f}"), "by_time")
    chooses = worker.open(in_folder.replica(), "chooses")
    assert (rows(by_txid), rows(by_time), rows(chooses)) == (10, 10, 11)
    for db in (by_txid, by_time):
        assert 1 < lags(db) < time.time() - committed + 5
    assert abs(by_time.one("SELECT litestream_lag()") - (time.time() - committed)) < 0.5
    assert lags(chooses) < 2
    chooses.one("SELECT litestream_set_time(?)", f"{committed:.3f}")
    assert abs(lags(chooses) - (time.time() - committed)) < 0.5
    chooses.one("SELECT litestream_set_time('latest')")
    assert lags(chooses) < 2


def test_files_that_are_merged_make_no_state_older(start, in_folder, tmp_path):
    """The files of a state that a transaction reads are merged and removed: it is the latest state all the same."""
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", levels="1s", l0_retention="1s", sync_interval="10ms"))
    fill(db, 10)
    for _ in range(3):
        insert(db, 1)
        sync(db)
    reader = start("python", in_folder).open(in_folder.replica(poll_interval="50ms"))
    reader.run("BEGIN")
    assert rows(reader) == 13
    before = in_folder.files(0)
    until(lambda: not set(before) & set(in_folder.files(0)) or len(in_folder.files(0)) < len(before), 15)
    time.sleep(1.2)
    assert rows(reader) == 13 and lags(reader) < 1
