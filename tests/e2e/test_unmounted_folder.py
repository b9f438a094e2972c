"""The disk of a replica in a folder is not mounted: its mount point, an empty folder, is there in its place.

That is no replica that lost its files. Nothing is written there, replication stops and says why, and goes on with
`litestream_resume()` or the next open when the disk is back, with what was committed meanwhile.

Or another disk is mounted there, with another replica that ends at the same transaction, as two replicas in step do: only
the history that its files are of tells them apart.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from harness import age
from harness.healing import QUIET, assert_restores, open_primary, reopen, state_of
from harness.location import Location
from harness.paths import ROOT
from harness.several import assert_each_is, content, primary_of, states
from harness.sql import fill, insert, restore, sync
from harness.wait import until
from harness.worker import Connection, SqlError


def unmount(location, tmp_path) -> None:
    os.rename(location.folder, tmp_path / "disk")
    location.folder.mkdir()


def mount(location, tmp_path) -> None:
    shutil.rmtree(location.folder)
    os.rename(tmp_path / "disk", location.folder)


@pytest.fixture(params=["true", "false"])
def auto_recover(request) -> str:
    """Neither heals it."""
    return request.param


def test_the_disk_goes_while_it_is_open(start, in_folder, tmp_path, auto_recover):
    db = open_primary(start, in_folder, tmp_path, auto_recover=auto_recover)
    unmount(in_folder, tmp_path)
    insert(db)
    with pytest.raises(SqlError, match="not mounted.*litestream_resume\\(\\)"):
        sync(db)
    state = state_of(db)
    assert state["state"] == "stopped" and "not mounted" in state["last_error"]
    assert list(in_folder.folder.rglob("*")) == [], "the mount point was written to"
    with pytest.raises(SqlError, match="not mounted"):
        db.one("SELECT litestream_resume()")
    mount(in_folder, tmp_path)
    db.one("SELECT litestream_resume()")
    insert(db)
    sync(db)
    assert in_folder.gaps() == [] and in_folder.files(9) == []
    assert_restores(db, in_folder, tmp_path)


@pytest.mark.parametrize("meanwhile", ["commits", "a restart of the WAL", "a close"])
def test_the_disk_of_an_encrypted_replica_is_back(start, in_folder, tmp_path, meanwhile):
    """Nobody can compare it: since the moment when replication stopped, which pages are changed is noted all the same."""
    secret, recipient = age.generate()
    (tmp_path / "identity").write_text(secret)
    db = open_primary(start, in_folder, tmp_path, age_recipient=recipient)
    last = sync(db)
    unmount(in_folder, tmp_path)
    for _ in range(3):
        insert(db)
        with pytest.raises(SqlError, match="not mounted"):
            sync(db)
    if meanwhile == "a restart of the WAL":
        assert db.one("PRAGMA wal_checkpoint(TRUNCATE)") == 0
        insert(db)
    if meanwhile == "a close":
        db.close()
    mount(in_folder, tmp_path)
    if meanwhile == "a close":
        db = reopen(start, in_folder, tmp_path, age_recipient=recipient)
    else:
        db.one("SELECT litestream_resume()")
    assert sync(db) == last + 1 and in_folder.files(9) == []
    insert(db)
    sync(db)
    expected = db.content()
    restore(db, in_folder, tmp_path / "restored.db", age_identity_file=str(tmp_path / "identity"))
    assert content(db, tmp_path / "restored.db") == expected


@pytest.mark.parametrize("before", ["closed", "killed"])
@pytest.mark.parametrize("asks", [False, True])
def test_the_recipients_of_an_encrypted_replica_are_back(start, in_folder, tmp_path, asks, before):
    """A session lacks them, commits, and may ask for replication to go on: the next one that has them goes on."""
    secret, recipient = age.generate()
    (tmp_path / "identity").write_text(secret)
    db = open_primary(start, in_folder, tmp_path, age_recipient=recipient)
    last = sync(db)
    if before == "closed":
        db.close()
    else:
        db.worker.kill()
    db = reopen(start, in_folder, tmp_path)
    insert(db)
    for how in ["", "'force'"] if asks else []:
        with pytest.raises(SqlError, match="encrypted"):
            db.one(f"SELECT litestream_resume({how})")
    db.close()
    db = reopen(start, in_folder, tmp_path, age_recipient=recipient)
    assert sync(db) == last + 1 and in_folder.files(9) == []
    expected = db.content()
    restore(db, in_folder, tmp_path / "restored.db", age_identity_file=str(tmp_path / "identity"))
    assert content(db, tmp_path / "restored.db") == expected


@pytest.mark.parametrize("was", ["restored over", "restored elsewhere"])
def test_the_disk_is_not_there_after_a_restore(start, in_folder, tmp_path, was):
    """A restored database whose replica is empty begins a new one: not on the mount point, nor is a commit confirmed there."""
    db = open_primary(start, in_folder, tmp_path)
    last = sync(db)
    db.close()
    path = tmp_path / ("app.db" if was == "restored over" else "other.db")
    restore(start("python", in_folder).open(":memory:"), in_folder, path, force=True)
    if was == "restored elsewhere":
        # Now it is known where the replica is.
        db = start("python", in_folder).open(in_folder.primary(path, **QUIET))
        sync(db)
        db.close()
    unmount(in_folder, tmp_path)
    db = start("python", in_folder).open(in_folder.primary(path, **QUIET))
    insert(db)
    with pytest.raises(SqlError, match="not mounted"):
        sync(db)
    assert list(in_folder.folder.rglob("*")) == [], "the mount point was written to"
    mount(in_folder, tmp_path)
    db.one("SELECT litestream_resume()")
    assert sync(db) == last + 1
    assert_restores(db, in_folder, tmp_path)


def test_a_folder_is_made_anew_before_anything_is_in_it(start, in_folder, tmp_path):
    """Nothing was published there: whatever folder is there is the place."""
    in_folder.folder.mkdir()
    plain = start("python", load=False).open(tmp_path / "app.db")
    fill(plain)
    # Its copy takes a while.
    insert(plain, rows=100, size=1 << 20)
    plain.close()
    worker = start("python", in_folder)
    worker.open(in_folder.primary(tmp_path / "app.db", **QUIET)).one("SELECT count(*) FROM t")
    until(lambda: list((tmp_path / ".app.db-litestream").rglob("place.json")), every=0.001)
    worker.kill()
    assert in_folder.files() == []
    os.rename(in_folder.folder, tmp_path / "old")
    in_folder.folder.mkdir()
    db = reopen(start, in_folder, tmp_path)
    sync(db)
    assert_restores(db, in_folder, tmp_path)


def test_a_restored_database_is_published_to_another_disk_by_force(start, in_folder, tmp_path):
    db = open_primary(start, in_folder, tmp_path)
    db.close()
    restore(start("python", in_folder).open(":memory:"), in_folder, tmp_path / "app.db", force=True)
    unmount(in_folder, tmp_path)
    db = reopen(start, in_folder, tmp_path)
    insert(db)
    with pytest.raises(SqlError, match="not mounted"):
        sync(db)
    db.one("SELECT litestream_resume('force')")
    insert(db)
    sync(db)
    assert_restores(db, in_folder, tmp_path)


def test_the_disk_is_not_there_when_it_is_opened(start, in_folder, tmp_path, auto_recover):
    open_primary(start, in_folder, tmp_path).close()
    unmount(in_folder, tmp_path)
    db = reopen(start, in_folder, tmp_path, auto_recover=auto_recover)
    insert(db)
    with pytest.raises(SqlError, match="not mounted"):
        sync(db)
    assert list(in_folder.folder.rglob("*")) == []
    db.close()
    mount(in_folder, tmp_path)
    db = reopen(start, in_folder, tmp_path, auto_recover=auto_recover)
    sync(db)
    assert in_folder.gaps() == [] and in_folder.files(9) == []
    assert_restores(db, in_folder, tmp_path)


def test_the_mount_point_was_written_to_by_somebody_else(start, in_folder, tmp_path):
    db = open_primary(start, in_folder, tmp_path)
    unmount(in_folder, tmp_path)
    in_folder.level(0).mkdir(parents=True)
    oldest = min((tmp_path / "disk" / "ltx" / "0").iterdir())
    shutil.copy(oldest, in_folder.level(0))
    insert(db)
    with pytest.raises(SqlError, match="not mounted"):
        sync(db)
    assert len(in_folder.files()) == 1
    # Somebody who knows better.
    db.one("SELECT litestream_resume('force')")
    assert_restores(db, in_folder, tmp_path)


def test_the_same_files_on_another_disk_are_the_same_replica(start, in_folder, tmp_path):
    db = open_primary(start, in_folder, tmp_path)
    shutil.copytree(in_folder.folder, tmp_path / "copy")
    shutil.rmtree(in_folder.folder)
    os.rename(tmp_path / "copy", in_folder.folder)
    insert(db)
    sync(db)
    assert in_folder.files(9) == [] and in_folder.gaps() == []
    assert_restores(db, in_folder, tmp_path)


def test_the_same_files_on_another_disk_after_a_rewind(start, in_folder, tmp_path):
    """The database was restored over itself to be the present, and the replica's folder was copied to another disk: local state
    remembers the first one."""
    db = open_primary(start, in_folder, tmp_path)
    last = sync(db)
    db.close()
    restore(start("python", in_folder).open(":memory:"), in_folder, tmp_path / "app.db", txid=f"{last - 2:016x}", rewind=True,
            force=True)
    other = tmp_path / "other disk"
    shutil.copytree(in_folder.folder, other)
    shutil.rmtree(in_folder.folder)
    os.rename(other, in_folder.folder)
    db = reopen(start, in_folder, tmp_path)
    assert sync(db) == last + 1
    assert_restores(db, in_folder, tmp_path)


def test_a_folder_that_is_removed_with_all_that_is_in_it_is_healed(start, in_folder, tmp_path):
    db = open_primary(start, in_folder, tmp_path)
    last = in_folder.last_txid()
    shutil.rmtree(in_folder.folder)
    insert(db)
    assert sync(db) > last
    until(lambda: in_folder.files(9), 10, "a snapshot")
    assert_restores(db, in_folder, tmp_path)


@pytest.fixture
def second(tmp_path) -> Location:
    return Location.file(tmp_path / "second")


KEY = json.loads((ROOT / "tests" / "golden" / "ltx4" / "keys.json").read_text())[0]


@pytest.fixture(params=["plain", "sealed"])
def options(request, tmp_path) -> dict[str, object]:
    """Files that are sealed say nothing of their history, but for who wrote them."""
    if request.param == "plain":
        return QUIET
    (tmp_path / "recipients").write_text(KEY["recipient"] + "\n")
    return QUIET | {"age_recipients_file": tmp_path / "recipients"}


def change_places(one: Location, two: Location) -> None:
    os.rename(one.folder, one.folder.with_name("aside"))
    os.rename(two.folder, one.folder)
    os.rename(one.folder.with_name("aside"), two.folder)


def files_of(*locations: Location) -> list[str]:
    return [str(file.path) for location in locations for file in location.files()]


@pytest.mark.parametrize("when", ["open", "closed for a moment", "closed"])
def test_two_folders_change_places(start, in_folder, second, tmp_path, options, when):
    uri = primary_of(tmp_path / "app.db", in_folder, second, **options)
    worker = start("python", in_folder)
    filled = worker.open(str(tmp_path / "app.db"), "plain")
    fill(filled, rows=300)
    filled.close()
    db = worker.open(uri)
    sync(db)
    insert(db)
    sync(db)
    assert in_folder.last_txid() == second.last_txid()
    if when != "open":
        db.close()
    change_places(in_folder, second)
    before = files_of(in_folder, second)
    if when != "open":
        db = (worker if when == "closed for a moment" else start("python", in_folder)).open(uri)
    insert(db)
    with pytest.raises(SqlError, match="is not the folder that it was, and it holds another history|another history"):
        sync(db)
    until(lambda: [state["state"] for state in states(db).values()] == ["stopped", "stopped"], 10, "both stop")
    assert files_of(in_folder, second) == before, "one was written to"
    change_places(in_folder, second)
    if options is QUIET:
        db.one("SELECT litestream_resume()")
        sync(db)
        assert_each_is(db, tmp_path, in_folder, second)
        return
    # Nothing here opens them to compare them.
    db.one("SELECT litestream_resume('force')")
    sync(db)
    identity = tmp_path / "identity"
    identity.write_text(KEY["identity"] + "\n")
    identity.chmod(0o600)
    for number, location in enumerate([in_folder, second]):
        restored = tmp_path / f"restored.{number}.db"
        restore(db, location, restored, age_identity_file=str(identity))
        assert content(db, restored) == db.content()


def test_the_replica_of_another_database_takes_the_place(start, in_folder, second, tmp_path):
    db = open_primary(start, in_folder, tmp_path)
    other = open_other(start, second, tmp_path)
    while second.last_txid() < in_folder.last_txid():
        insert(other)
        sync(other)
    other.close()
    assert in_folder.last_txid() == second.last_txid()
    change_places(in_folder, second)
    before = files_of(in_folder)
    insert(db)
    with pytest.raises(SqlError, match="is not the folder that it was, and it holds another history"):
        sync(db)
    assert files_of(in_folder) == before
    change_places(in_folder, second)
    db.one("SELECT litestream_resume()")
    sync(db)
    assert_restores(db, in_folder, tmp_path)


def open_other(start, location: Location, folder: Path) -> Connection:
    other = start("python", location).open(location.primary(folder / "other.db", **QUIET))
    fill(other, rows=10)
    return other


def test_all_is_removed_and_begun_again_in_the_same_process(start, in_folder, tmp_path):
    """As a suite of tests does at one path."""
    worker = start("python", in_folder)
    for rows in (300, 10, 20):
        db = worker.open(in_folder.primary(tmp_path / "app.db", **QUIET))
        fill(db, rows=rows)
        sync(db)
        assert_restores(db, in_folder, tmp_path, str(rows))
        db.close()
        for path in tmp_path.glob("app.db*"):
            path.unlink()
        shutil.rmtree(tmp_path / ".app.db-litestream")
        shutil.rmtree(in_folder.folder)
