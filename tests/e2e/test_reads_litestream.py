"""What the real Litestream 0.5.17 writes, and is still writing, we read and restore."""

import time

import pytest

from harness import litestream
from harness.sql import fill, insert, restore
from harness.wait import until


def open_source(start, path):
    """A database that a plain host writes."""
    source = start("python", load=False).open(path)
    source.run("PRAGMA journal_mode=WAL")
    fill(source, rows=1000)
    return source


@pytest.mark.slow
def test_we_follow_litestream_while_it_compacts_and_deletes(start, host, location, tmp_path):
    source = open_source(start, tmp_path / "app.db")
    reader = start(host, location)
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path) as theirs:
        replica = reader.open(location.replica(poll_interval="200ms"))
        seen, restores, began = [], 0, time.monotonic()
        while not ({0, 1, 2, 3, 9} <= theirs.compacted() and theirs.deleted() > 5 and restores > 2):
            # Both statements in one transaction, so their difference is an invariant.
            source.run("BEGIN")
            insert(source, rows=3)
            source.run("DELETE FROM t WHERE id = (SELECT min(id) FROM t)", "COMMIT")
            elapsed = time.monotonic() - began
            assert elapsed < 60, f"litestream compacts to {theirs.compacted()} only"
            seen.append(replica.one("SELECT count(*) FROM t"))
            assert (seen[-1] - 1000) % 2 == 0, "a state between two commits"
            if elapsed > restores:
                restores += 1
                path = tmp_path / f"restored-{restores}.db"
                restore(replica, location, path)
                assert (reader.open(path, "restored").one("SELECT count(*) FROM t") - 1000) % 2 == 0
        assert seen == sorted(seen), "the replica never goes back"
    expected = source.content()
    until(lambda: replica.one("SELECT count(*) FROM t") == expected.tables["t"][0], 10, "the last rows")
    assert replica.content() == expected
    restore(replica, location, tmp_path / "restored.db")
    assert reader.open(tmp_path / "restored.db", "restored").content() == expected
    assert start(host, location).open(location.replica()).content() == expected


def test_we_restore_litestreams_replica_at_each_txid(start, location, tmp_path):
    source = open_source(start, tmp_path / "app.db")
    counts = {}
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path, levels=("1h",), snapshot="1h",
                              l0_retention="1h"):
        for _ in range(4):
            before = location.last_txid()
            insert(source)
            until(lambda: location.last_txid() > before, 10, "litestream's next file")
            counts[location.last_txid()] = source.one("SELECT count(*) FROM t")
    db = start("python", location).open(":memory:")
    for txid, rows in counts.items():
        restore(db, location, tmp_path / f"at-{txid}.db", txid=f"{txid:016x}")
        assert start("python", load=False).open(tmp_path / f"at-{txid}.db").one("SELECT count(*) FROM t") == rows


@pytest.mark.parametrize("page_size", [512, 1024, 8192, 65536])
def test_we_read_litestreams_replica_of_this_page_size(page_size, start, in_folder, tmp_path):
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run(f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL")
    fill(source, rows=500)
    with litestream.Replicate(tmp_path / "app.db", in_folder, tmp_path):
        insert(source, rows=5)
    expected = source.content()
    reader = start("python", in_folder)
    assert reader.open(in_folder.replica()).content() == expected
    restore(reader.open(":memory:", "plain"), in_folder, tmp_path / "restored.db")
    assert reader.open(tmp_path / "restored.db", "restored").content() == expected


def test_the_environment_of_litestreams_extension_is_enough(start, location, tmp_path):
    """Users of Litestream's own extension give no URL in the URI; their scripts run unchanged."""
    source = open_source(start, tmp_path / "app.db")
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path):
        insert(source, rows=5)
    worker = start("python", location, env={"LITESTREAM_REPLICA_URL": litestream.url_of(location)})
    assert worker.open("file:any.db?vfs=litestream").content() == source.content()
    assert not (tmp_path / "any.db").exists()
