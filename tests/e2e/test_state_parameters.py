"""A parameter or PRAGMA that chooses what is shown is obeyed or refused: `txid=` and `timestamp=` on a replica showed the
present, and a misspelled `PRAGMA litestream_…` did nothing, so a past state seemed to be what the present is.
"""

import pytest

from harness.sql import sync
from harness.wait import until
from harness.worker import SqlError


@pytest.fixture
def three(start, in_folder, tmp_path):
    """A primary that had one, two, three rows; the TXID after two of them, and its time."""
    worker = start("python", in_folder)
    primary = worker.open(in_folder.primary(tmp_path / "app.db"), "primary")
    primary.run("CREATE TABLE t(x)")
    for n in (1, 2):
        primary.rows("INSERT INTO t VALUES (?)", n)
        point = sync(primary), primary.one("SELECT litestream_time()")
    until(lambda: primary.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ') > ?", point[1]), 5, "the next millisecond")
    primary.run("INSERT INTO t VALUES (3)")
    sync(primary)
    return primary, point


def count(worker, uri: str) -> int:
    return worker.open(uri, "replica").one("SELECT count(*) FROM t")


def refusal(action) -> str:
    with pytest.raises(SqlError) as refused:
        action()
    return str(refused.value)


def test_a_replica_takes_what_a_restore_takes(three, in_folder):
    primary, (txid, time) = three
    for state in ({"txid": f"{txid:016x}"}, {"txid": f"txid:{txid}"}, {"timestamp": time}, {"asof": time}):
        assert count(primary.worker, in_folder.replica(**state)) == 2, state
    assert count(primary.worker, in_folder.replica()) == 3
    attached = primary.load().rows("ATTACH ? AS past", in_folder.replica(txid=f"{txid:016x}"))
    assert attached == [] and primary.one("SELECT count(*) FROM past.t") == 2
    both = in_folder.replica(txid=f"{txid:016x}", timestamp=time)
    assert "'txid' and 'timestamp' are both given" in refusal(lambda: count(primary.worker, both))


@pytest.mark.parametrize("name, meant", [
    ("time", "timestamp"), ("set_time", "timestamp"), ("timestmp", "timestamp"), ("tx_ids", "txid"), ("as_off", "asof"),
    ("hydration", "hydrate"), ("hydration_enabled", "hydrate"), ("cachepath", "cache_dir"), ("poll", "poll_interval"),
    ("snapshot_every", "snapshot_interval"),
])
def test_a_parameter_that_is_nearly_ours_is_refused(name, meant, three, in_folder, tmp_path):
    worker = three[0].worker
    for uri in (in_folder.replica(**{name: "1"}), in_folder.primary(tmp_path / "new.db", **{name: "1"})):
        assert f"unknown parameter '{name}'; did you mean '{meant}'?" in refusal(lambda: count(worker, uri))


def test_a_primary_shows_the_present_only(three, in_folder, tmp_path):
    primary, (txid, time) = three
    for state in ({"txid": f"{txid:016x}"}, {"timestamp": time}):
        message = refusal(lambda: count(primary.worker, in_folder.primary(tmp_path / "app.db", **state)))
        assert "reads a past state of the replica: add mode=ro" in message
    assert "open its replica with mode=ro" in refusal(lambda: primary.rows(f"PRAGMA litestream_time = '{time}'"))


def test_an_unknown_pragma_of_ours_is_refused(three, in_folder):
    primary, (_, time) = three
    replica = primary.worker.open(in_folder.replica(), "replica")
    for db in (primary, replica):
        assert "did you mean litestream_time?" in refusal(lambda: db.rows(f"PRAGMA litestream_settime = '{time}'"))
        assert "did you mean litestream_txid?" in refusal(lambda: db.rows("PRAGMA litestream_tixd"))
        assert "known are" in refusal(lambda: db.rows("PRAGMA Litestream_frobnicate"))
        assert db.rows("PRAGMA frobnicate") == []
    assert "is for a replica" in refusal(lambda: primary.rows("PRAGMA litestream_poll"))
    assert replica.one("SELECT count(*) FROM t") == 3
