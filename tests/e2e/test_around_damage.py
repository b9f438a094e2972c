"""What is damaged or missing in a replica, and what can be read and restored all the same: each state to which sound files
lead, whether others are damaged or not."""

import pytest

from harness.healing import flip
from harness.sql import insert, restore, sync, txid
from harness.wait import until
from harness.worker import SqlError


def remove(file) -> None:
    file.path.unlink()


@pytest.mark.parametrize("harm, newest", [(flip, 9), (remove, 5)])
def test_an_earlier_state_is_read_although_the_latest_cannot_be(start, location, tmp_path, harm, newest):
    db = start("apsw", location).open(location.primary(tmp_path / "app.db", sync_interval="10ms", levels="1h"))
    db.run("CREATE TABLE t(x)")
    sync(db)
    for _ in range(8):
        db.run("INSERT INTO t VALUES(1)")
        sync(db)
    db.close()
    harmed = next(file for file in location.files(0) if file.min == newest)
    sound = harmed.path.read_bytes()
    harm(harmed)
    readers = start("apsw", location)
    with pytest.raises(SqlError, match=f"{newest:016x}") as latest:
        readers.open(location.replica(), "latest").one("SELECT count(*) FROM t")
    past = readers.open(location.replica(asof="txid:3"), "past")
    assert past.one("SELECT count(*) FROM t") == 2
    # In another process, by the other setting, and where the library has nothing open yet.
    for n, asof in [(4, {"txid": f"{4:016x}"}), (3, {"asof": "txid:3"})]:
        assert start("apsw", location).open(location.replica(**asof), "past").one("SELECT count(*) FROM t") == n - 1
    for refused in [lambda: past.one("SELECT litestream_set_time('latest')"),
                    lambda: readers.open(location.replica(), "beside").one("SELECT count(*) FROM t"),
                    lambda: readers.open(location.replica(asof="now"), "now").one("SELECT count(*) FROM t")]:
        with pytest.raises(SqlError, match=f"{newest:016x}"):
            refused()
    assert str(latest.value).count("litestream_restore" if harm == flip else "restore up to TXID 0000000000000004")
    assert past.one("SELECT count(*) FROM t") == 2
    assert "last_error" in past.one("SELECT litestream_status()")
    harmed.path.write_bytes(sound)
    past.one("SELECT litestream_set_time('latest')")
    assert past.one("SELECT count(*) FROM t") == 8
    assert readers.open(location.replica(), "again").one("SELECT count(*) FROM t") == 8


def test_a_restore_and_a_copy_go_around_a_damaged_file(start, location, tmp_path):
    settings = dict(sync_interval="10ms", levels="1s,1h", l0_retention="1h", retention="off")
    db = start("apsw", location).open(location.primary(tmp_path / "app.db", **settings))
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data TEXT)")
    for _ in range(5):
        insert(db)
        sync(db)
    before = txid(db.one("SELECT litestream_txid()"))
    db.one("SELECT litestream_snapshot()")
    insert(db)
    last = sync(db)
    until(lambda: any(file.max == last for file in location.files(1)), 20, "a merge")
    source = db.content()
    db.close()
    console = start("apsw", location)
    loaded = console.open(":memory:", "plain").load()
    damaged = location.files(9)[-1]
    assert restore(loaded, location, tmp_path / "sound.db")["left_out"] == []
    flip(damaged)
    report = restore(loaded, location, tmp_path / "latest.db")
    assert txid(report["txid"]) == last and damaged.path.name in report["left_out"][0]
    assert console.open(tmp_path / "latest.db", "restored").content() == source
    assert txid(restore(loaded, location, tmp_path / "before.db", txid=f"{before:016x}")["txid"]) == before
    loaded.one("SELECT litestream_follow(?, ?)", location.full_url, str(tmp_path / "copy.db"))
    assert start("apsw", load=False).open(tmp_path / "copy.db", "copy").content().tables == source.tables
    loaded.one("SELECT litestream_unfollow(?)", str(tmp_path / "copy.db"))
    # A reader does not, and says what to do.
    with pytest.raises(SqlError, match=f"{damaged.path.name}.*Move that file away"):
        console.open(location.replica(), "reader").one("SELECT count(*) FROM t")
    damaged.path.unlink()
    assert console.open(location.replica(), "reader").content() == source


def test_a_damaged_file_in_whose_place_there_is_none_is_named_with_what_can_be_done(start, location, tmp_path):
    db = start("apsw", location).open(location.primary(tmp_path / "app.db", sync_interval="10ms", levels="1h"))
    db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data TEXT)")
    for _ in range(4):
        insert(db)
        sync(db)
    db.close()
    loaded = start("apsw", location).open(":memory:", "plain").load()
    damaged = location.files(0)[2]
    flip(damaged)
    with pytest.raises(SqlError, match=f"{damaged.path.name}.*restore up to TXID {damaged.min - 1:016x}"):
        restore(loaded, location, tmp_path / "restored.db")
    restore(loaded, location, tmp_path / "restored.db", txid=f"{damaged.min - 1:016x}")
