"""The SQL surface: what each function returns, and what it says where it has nothing to work on."""

import json
import re
import time

import pytest

from harness.proxy import Hang
from harness.sql import fill, insert, status, sync, txid
from harness.wait import until
from harness.worker import SqlError

NEED_A_LITESTREAM_CONNECTION = ["litestream_sync()", "litestream_txid()", "litestream_lag()", "litestream_time()"]


@pytest.mark.parametrize("call", NEED_A_LITESTREAM_CONNECTION)
def test_on_a_plain_connection_a_function_says_what_it_needs(call, start, host):
    db = start(host).open(":memory:")
    with pytest.raises(SqlError, match="vfs=litestream"):
        db.rows(f"SELECT {call}")


def test_version_is_known_everywhere(start, host):
    assert re.match(r"\d+\.\d+\.\d+", start(host).open(":memory:").one("SELECT litestream_version()"))


def test_sync_covers_every_commit_made_before_it(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    primary.run("CREATE TABLE t(x)")
    reader, last = start(host, location), 0
    for n in range(1, 11):
        primary.run(f"INSERT INTO t VALUES ({n})", f"INSERT INTO t VALUES (-{n})")
        now = sync(primary)
        assert now > last and location.last_txid() >= now
        last = now
        assert reader.open(location.replica(), f"r{n}").one("SELECT count(*) FROM t") == 2 * n or _fresh(reader, n)


def _fresh(reader, n):
    """Connections of a process share one view of a replica, which may be a poll interval old."""
    until(lambda: reader.call("exec", name=f"r{n}", sql="SELECT count(*) FROM t") == [[2 * n]], 2)
    return True


def test_sync_without_a_change_returns_the_same_txid_and_sends_nothing(start, through_proxy, proxy, tmp_path):
    primary = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    fill(primary)
    # The first copy of the database may have all of it.
    sync(primary)
    insert(primary)
    first = sync(primary)
    # The first small file is written once more, to find out whether the store keeps the condition.
    until(lambda: primary.one("SELECT fencing FROM litestream_status") == "atomic", 10, "the store is known")
    puts = proxy.counts()["PUT"]
    assert sync(primary) == first == txid(primary.one("SELECT litestream_txid()"))
    assert proxy.counts()["PUT"] == puts


def test_sync_that_is_not_reached_in_time_is_an_error(start, host, through_proxy, proxy, tmp_path):
    primary = start(host, through_proxy).open(through_proxy.primary(tmp_path / "app.db", close_timeout="100ms"))
    fill(primary)
    sync(primary)
    proxy.fault = lambda request: Hang()
    insert(primary)
    began = time.monotonic()
    with pytest.raises(SqlError, match=f"not everything is in {through_proxy.url}"):
        sync(primary, 0.5)
    assert 0.4 <= time.monotonic() - began < 2


def test_without_time_to_wait_it_says_whether_all_is_there(start, through_proxy, proxy, tmp_path):
    primary = start("python", through_proxy).open(
        through_proxy.primary(tmp_path / "app.db", sync_interval="10ms", close_timeout="100ms"))
    fill(primary)
    for _ in range(10):
        insert(primary)
        assert sync(primary) == sync(primary, 0)
    # Beyond the sync interval.
    until(lambda: primary.one("SELECT litestream_wait(NULL, '50ms')"), 5, "all is there")
    assert primary.one("SELECT litestream_wait(NULL, 0)") == primary.one("SELECT litestream_txid()")
    proxy.fault = lambda request: Hang()
    insert(primary)
    began = time.monotonic()
    with pytest.raises(SqlError, match=f"not everything is in {through_proxy.url}[^ ]*; it is still publishing"):
        sync(primary, 0)
    assert time.monotonic() - began < 0.5
    with pytest.raises(SqlError, match="after 20ms; it is still publishing"):
        sync(primary, 0.02)


@pytest.mark.parametrize("argument", ["-1", "'soon'", "1e300"])
def test_sync_refuses_a_timeout_that_makes_no_sense(argument, start, in_folder, tmp_path):
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    with pytest.raises(SqlError, match="litestream_sync|timeout"):
        primary.rows(f"SELECT litestream_sync({argument})")


def test_functions_with_side_effects_cannot_hide_in_a_schema(start, host, in_folder, tmp_path):
    """A view of a hostile database must not write files when it is read."""
    primary = start(host, in_folder).open(in_folder.primary(tmp_path / "app.db"))
    primary.run("CREATE TABLE t(x)")
    for call in ("litestream_sync()", "litestream_restore('file:///x', '/y')"):
        with pytest.raises(SqlError, match="unsafe|prohibited"):
            primary.run(f"CREATE VIEW v AS SELECT {call}", "SELECT * FROM v")
        primary.run("DROP VIEW IF EXISTS v")


def test_txid_time_and_lag_agree_on_both_sides(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    synced = sync(primary)
    replica = start(host, location).open(location.replica())
    assert txid(replica.one("SELECT litestream_txid()")) == synced
    assert txid(primary.one("SELECT litestream_txid()")) == synced
    assert replica.one("SELECT litestream_time()") == primary.one("SELECT litestream_time()")
    assert 0 <= primary.one("SELECT litestream_lag()") < 5
    assert 0 <= replica.one("SELECT litestream_lag()") < 30


def test_status_is_a_scalar_and_a_table_for_both_roles(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    replica = start(host, location).open(location.replica())
    for connection, role in ((primary, "primary"), (replica, "replica")):
        scalar = status(connection)
        assert role in scalar and location.url in scalar
        json.loads(scalar)
        rows = connection.rows("SELECT * FROM litestream_status")
        assert rows and location.url in str(rows) and role in str(rows)


def test_ltx_lists_the_files_of_any_replica(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    insert(primary)
    sync(primary)
    plain = start(host, location).open(":memory:").load()
    rows = plain.rows("SELECT level, min_txid, max_txid, size FROM litestream_ltx(?) ORDER BY 1, 2", location.full_url)
    expected = [[f.level, f.min, f.max, f.size] for f in location.files()]
    assert [[level, txid(low), txid(high), size] for level, low, high, size in rows] == expected


def test_ltx_of_a_replica_that_is_not_there_is_empty_and_of_nonsense_an_error(start, location):
    plain = start("python", location).open(":memory:").load()
    assert plain.rows("SELECT * FROM litestream_ltx(?)", location.full_url) == []
    with pytest.raises(SqlError, match="ftp"):
        plain.rows("SELECT * FROM litestream_ltx('ftp://x/y')")


def test_pragmas_have_the_meaning_of_litestreams_extension(start, host, location, tmp_path):
    primary = start(host, location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    synced = sync(primary)
    replica = start(host, location).open(location.replica())
    assert txid(replica.one("PRAGMA litestream_txid")) == synced
    assert replica.one("PRAGMA litestream_lag") is not None
