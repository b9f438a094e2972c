"""A process without our VFS writes the database: a plain `sqlite3` shell inserts, checkpoints, vacuums.

It may do so while we have the database open or while we do not. It is noticed at the next open, at our
next commit, or at the next `watch_interval`; `litestream_status` says what was found; and the replica
gets only the pages that differ. There is never a silent gap, and never a wrong page.
"""

import json
import os

import pytest

from harness.sql import fill, insert, restore, status, sync
from harness.state import replica_state
from harness.wait import until


def assert_replica_is(db, location, tmp_path):
    sync(db, 60)
    assert location.gaps() == []
    restore(db, location, tmp_path / "restored.db", force=True)
    restored = db.worker.open(tmp_path / "restored.db", "restored")
    assert restored.content() == db.content()
    restored.close()


def notice(db) -> str:
    """What status says was found and repaired last."""
    return json.loads(status(db))["databases"][0].get("notice", "")


def sent_since(location, before: set) -> int:
    """Bytes of the files that are new."""
    return sum(f.size for f in location.files(0) if f.path not in before)


def files(location) -> set:
    return {f.path for f in location.files(0)}


def plainly(shell, *statements: str) -> None:
    """Runs statements in a shell that does not load the extension."""
    session = shell()
    session.run(".open app.db\n" + "\n".join(s + ";" for s in statements))
    session.end()


def settled(sums, location) -> bytes:
    """The checksums, once they are those of the last transaction."""
    data = sums.read_bytes()
    return data if int.from_bytes(data[16:24], "little") == location.last_txid() else b""


CHECKPOINTS = ["", "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)"]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_while_we_are_open(checkpoint, start, shell, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db", watch_interval="200ms"))
    fill(primary, rows=500)
    sync(primary)
    last = location.last_txid()
    plainly(shell, "UPDATE t SET name = 'plain' WHERE id <= 10", checkpoint or "SELECT 1")
    # Nobody commits and nobody asks: only the look at the files can show it.
    until(lambda: location.last_txid() > last, 10, "what the shell wrote")
    assert_replica_is(primary, location, tmp_path)
    plainly(shell, "UPDATE t SET name = 'again' WHERE id <= 10", checkpoint or "SELECT 1", "DELETE FROM t WHERE id = 50")
    insert(primary)
    assert_replica_is(primary, location, tmp_path)
    assert primary.one("SELECT count(*) FROM t WHERE name = 'again'") == 10


def test_while_we_are_closed_ten_rows(start, shell, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    primary = start("python", location).open(uri)
    fill(primary, rows=int(os.environ.get("LITESTREAM_FOREIGN_ROWS", "20000")))
    for n in range(5):
        primary.run(f"UPDATE t SET data = randomblob(300) WHERE id % 1000 = {n}")
        sync(primary)
    primary.close()
    size = (tmp_path / "app.db").stat().st_size
    before = files(location)
    plainly(shell, "UPDATE t SET name = 'plain' WHERE id IN (1, 999, 2000, 5000, 5001, 9000, 12000, 15000, 17000, 19999)")
    primary = start("python", location).open(uri)
    assert_replica_is(primary, location, tmp_path)
    assert primary.one("SELECT count(*) FROM t WHERE name = 'plain'") == 10
    sent = sent_since(location, before)
    print(f"database {size} bytes, sent {sent}")
    assert sent < size / 50
    assert "what differs is sent" in notice(primary)


@pytest.mark.parametrize("opened", [False, True])
def test_vacuum(opened, start, shell, location, tmp_path):
    uri = location.primary(tmp_path / "app.db", watch_interval="200ms")
    primary = start("python", location).open(uri)
    fill(primary, rows=20000)
    primary.run("DELETE FROM t WHERE id % 3 = 0")
    sync(primary)
    if not opened:
        primary.close()
    plainly(shell, "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)")
    if not opened:
        primary = start("python", location).open(uri)
    assert_replica_is(primary, location, tmp_path)
    insert(primary)
    assert_replica_is(primary, location, tmp_path)


def test_without_checksums_it_is_compared_with_the_replica(start, shell, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    primary = start("python", location).open(uri)
    fill(primary, rows=2000)
    primary.close()
    (replica_state(tmp_path / "app.db") / "pages.sums").unlink()
    plainly(shell, "UPDATE t SET name = 'plain' WHERE id <= 10")
    primary = start("python", location).open(uri)
    assert_replica_is(primary, location, tmp_path)
    assert "what differs is sent" in notice(primary)
    # From then on there are checksums.
    primary.close()
    before = files(location)
    plainly(shell, "UPDATE t SET name = 'again' WHERE id <= 10")
    primary = start("python", location).open(uri)
    assert_replica_is(primary, location, tmp_path)
    assert sent_since(location, before) < 100_000


@pytest.mark.parametrize("harm", ["flip", "cut", "old"])
def test_checksums_that_are_not_right_are_not_believed(harm, start, shell, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    primary = start("python", location).open(uri)
    fill(primary, rows=2000)
    sync(primary)
    primary.close()
    sums = replica_state(tmp_path / "app.db") / "pages.sums"
    old = sums.read_bytes()
    primary = start("python", location).open(uri)
    # More files than are read to bring old checksums up to date.
    for n in range(20):
        primary.run(f"UPDATE t SET name = 'ours' WHERE id = {n * 100 + 1}")
        sync(primary)
    primary.close()
    plainly(shell, "UPDATE t SET name = 'row ' || (id - 1) WHERE name = 'ours'")
    now = bytearray(sums.read_bytes())
    if harm == "flip":
        now[500] ^= 1
    sums.write_bytes({"flip": bytes(now), "cut": bytes(now[:900]), "old": old}[harm])
    primary = start("python", location).open(uri)
    assert_replica_is(primary, location, tmp_path)
    assert "what differs is sent" in notice(primary)


def test_after_kill_9_the_checksums_are_brought_up_to_date(start, shell, location, tmp_path):
    uri = location.primary(tmp_path / "app.db")
    primary = start("python", location).open(uri)
    fill(primary, rows=5000)
    sync(primary)
    sums = replica_state(tmp_path / "app.db") / "pages.sums"
    old = until(lambda: settled(sums, location), 10, "checksums of the last transaction")
    for n in range(3):
        primary.run(f"UPDATE t SET name = 'ours' WHERE id = {n * 1000 + 1}")
        sync(primary)
    primary.worker.kill()
    # As if it had died before it noted what it had sent.
    sums.write_bytes(old)
    before = files(location)
    plainly(shell, "UPDATE t SET name = 'row ' || id WHERE name = 'ours'", "PRAGMA wal_checkpoint(TRUNCATE)")
    primary = start("python", location).open(uri)
    assert_replica_is(primary, location, tmp_path)
    assert sent_since(location, before) < 200_000
    assert "what differs is sent" in notice(primary)
