"""What we write, the real Litestream 0.5.17 reads: `litestream restore` and Litestream's VFS."""

from harness import litestream
from harness.sql import fill, insert, sync
from harness.wait import until


def test_litestream_restores_and_reads_what_we_wrote(start, location, tmp_path):
    worker = start("python", location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    fill(primary, rows=3000)
    for i in range(5):
        insert(primary, rows=20)
        primary.run("DELETE FROM t WHERE id % 7 = 0" if i == 3 else "PRAGMA wal_checkpoint(PASSIVE)")
        sync(primary)
    primary.run("PRAGMA user_version = 42")
    sync(primary)
    written = primary.content()
    restored = litestream.restore(location, tmp_path / "restored.db")
    assert worker.open(restored, "restored").content() == written
    assert litestream.read_by_vfs(location) == written


def test_litestream_restores_and_reads_a_database_that_we_shrank(start, location, tmp_path):
    worker = start("python", location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    fill(primary, rows=3000)
    sync(primary)
    primary.run("DELETE FROM t WHERE id % 3 = 0", "VACUUM")
    sync(primary)
    written = primary.content()
    restored = litestream.restore(location, tmp_path / "restored.db")
    assert worker.open(restored, "restored").content() == written
    # Litestream's VFS never shrinks its view, its own replicas' neither: it shows pages that are gone.
    seen = litestream.read_by_vfs(location)
    assert (seen.schema, seen.tables) == (written.schema, written.tables)


def test_litestream_restores_each_of_our_transactions(start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    primary.run("CREATE TABLE t(x)")
    states = {}
    for x in range(4):
        primary.run(f"INSERT INTO t VALUES ({x})")
        states[sync(primary)] = x + 1
    for txid, rows in states.items():
        restored = litestream.restore(location, tmp_path / f"at-{txid}.db", txid=txid)
        assert start("python", load=False).open(restored).one("SELECT count(*) FROM t") == rows


def test_litestream_goes_on_where_we_stopped(start, location, tmp_path):
    """A user may go back to the sidecar: it takes the replica and the database as we left them."""
    worker = start("python", location)
    primary = worker.open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    primary.close()
    before = location.last_txid()
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path, snapshot="1h", levels=("1h",)):
        plain = worker.open(tmp_path / "app.db", "plain")
        insert(plain, rows=10)
        until(lambda: location.last_txid() > before, 15, "Litestream's first file")
    assert location.gaps() == []
    expected = plain.content()
    assert worker.open(litestream.restore(location, tmp_path / "restored.db"), "restored").content() == expected
