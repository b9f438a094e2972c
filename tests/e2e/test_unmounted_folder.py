"""The disk of a replica in a folder is not mounted: its mount point, an empty folder, is there in its place.

That is no replica that lost its files. Nothing is written there, replication stops and says why, and goes on with
`litestream_resume()` or the next open when the disk is back, with what was committed meanwhile.
"""

import os
import shutil

import pytest

from harness.healing import assert_restores, open_primary, reopen, state_of
from harness.sql import insert, sync
from harness.wait import until
from harness.worker import SqlError


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


def test_a_folder_that_is_removed_with_all_that_is_in_it_is_healed(start, in_folder, tmp_path):
    db = open_primary(start, in_folder, tmp_path)
    last = in_folder.last_txid()
    shutil.rmtree(in_folder.folder)
    insert(db)
    assert sync(db) > last
    until(lambda: in_folder.files(9), 10, "a snapshot")
    assert_restores(db, in_folder, tmp_path)
