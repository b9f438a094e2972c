"""The store is down for long, and the WAL is restarted again and again: what waits on local disk is bounded.

Beyond `spool_limit` it is given up but for the numbers of the pages, and once the store is back one file with those pages
replaces it. The application sees nothing of all that.
"""

import time
from pathlib import Path

from harness.sql import fill, insert, restore, status, sync
from harness.wait import until


def waiting_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def test_what_waits_is_bounded_and_one_repair_replaces_it(start, through_proxy, proxy, tmp_path):
    limit = 2 << 20
    uri = through_proxy.primary(tmp_path / "app.db", spool_limit="2MiB", sync_interval="100ms")
    primary = start("python", through_proxy).open(uri)
    fill(primary, rows=1000)
    sync(primary)
    before = {f.path for f in through_proxy.files(0)}
    proxy.refuse()
    most = 0
    deadline = time.monotonic() + 60
    while "spool_limit" not in status(primary):
        assert time.monotonic() < deadline, "the test must reach the limit"
        primary.run("UPDATE t SET data = randomblob(400) WHERE id <= 500", "PRAGMA wal_checkpoint(TRUNCATE)")
        most = max(most, waiting_bytes(tmp_path / ".app.db-litestream"))
    # One more file may be written before the limit is seen.
    assert limit / 2 < most < limit + (1 << 20), "no more waits than may"
    primary.run("UPDATE t SET name = 'last' WHERE id = 1")
    proxy.accept()
    sync(primary, 60)
    assert through_proxy.gaps() == []
    new = [f for f in through_proxy.files(0) if f.path not in before]
    assert sum(f.size for f in new) < 1 << 20, "more than one copy of what changed was sent"
    assert "spool_limit" in status(primary), "status tells of it"
    restore(primary, through_proxy, tmp_path / "restored.db")
    assert primary.worker.open(tmp_path / "restored.db", "r").content() == primary.content()


def test_a_transaction_that_is_larger_is_sent(start, location, tmp_path):
    """The store is up: nothing waits for long, whatever its size."""
    primary = start("python", location).open(location.primary(tmp_path / "app.db", spool_limit="1MiB"))
    fill(primary, rows=15000)
    assert sync(primary) == location.last_txid()
    primary.run("UPDATE t SET data = randomblob(400)")
    assert sync(primary) == location.last_txid()
    restore(primary, location, tmp_path / "restored.db")
    assert primary.worker.open(tmp_path / "restored.db", "r").content() == primary.content()
    primary.run("UPDATE t SET name = 'last'")
    primary.close()
    restore(primary, location, tmp_path / "after.db")
    assert primary.worker.open(tmp_path / "after.db", "r").one("SELECT count(*) FROM t WHERE name = 'last'") == 15000


def test_a_transaction_that_is_larger_does_not_wait_where_it_could_not_be_sent(start, through_proxy, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", spool_limit="1MiB", sync_interval="100ms")
    primary = start("python", through_proxy).open(uri)
    fill(primary, rows=15000)
    sync(primary)
    proxy.refuse()
    primary.run("UPDATE t SET data = randomblob(400)")
    until(lambda: "spool_limit" in status(primary), 60, "what waits is given up")
    until(lambda: waiting_bytes(tmp_path / ".app.db-litestream") < 2 << 20, 60, "it leaves the disk")
    proxy.accept()
    sync(primary, 60)
    assert through_proxy.gaps() == []
    restore(primary, through_proxy, tmp_path / "restored.db")
    assert primary.worker.open(tmp_path / "restored.db", "r").content() == primary.content()


def test_a_process_that_does_not_publish_is_bounded_too(start, through_proxy, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", spool_limit="2MiB", sync_interval="100ms")
    primary = start("python", through_proxy).open(uri)
    fill(primary, rows=1000)
    sync(primary)
    standby = start("python", through_proxy).open(uri)
    proxy.refuse()
    most = 0
    for _ in range(60):
        standby.run("UPDATE t SET data = randomblob(400) WHERE id <= 500", "PRAGMA wal_checkpoint(TRUNCATE)")
        most = max(most, waiting_bytes(tmp_path / ".app.db-litestream"))
    assert most < 3 * (2 << 20)
    proxy.accept()
    insert(standby)
    sync(standby, 60)
    assert through_proxy.gaps() == []
    restore(primary, through_proxy, tmp_path / "restored.db")
    assert primary.worker.open(tmp_path / "restored.db", "r").content() == primary.content()
