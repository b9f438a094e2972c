"""The folder of the database, or that of local state, cannot be written.

Where SQLite itself can work we do not get in its way: the database works, status says what is wrong, and replication heals
when the cause goes. Where it cannot, the open says why.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import outage
from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.worker import SqlError


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written in `folder`, though what is open already can."""
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, text=True)
    if bound.returncode:
        pytest.skip(f"a folder cannot be made read-only here: {bound.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_state_folder_becomes_read_only(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.refuse()
    with read_only(tmp_path / ".app.db-litestream"):
        for _ in range(5):
            insert(db, rows=300)
            db.run("PRAGMA wal_checkpoint(TRUNCATE)")
        until(lambda: "Read-only" in status(db) + (tmp_path / "host.log").read_text(), 15, "it is told")
    proxy.accept()
    outage.assert_caught_up(db, in_s3, tmp_path)


def test_a_state_folder_that_is_read_only_from_the_start(start, location, tmp_path):
    state = tmp_path / ".app.db-litestream"
    state.mkdir()
    worker = start("python", location)
    with read_only(state):
        with pytest.raises(SqlError, match="(?i)read-only") as refused:
            worker.open(location.primary(tmp_path / "app.db")).run("CREATE TABLE t(x)")
        assert ".app.db-litestream" in str(refused.value)
    db = worker.open(location.primary(tmp_path / "app.db"), "again")
    fill(db)
    sync(db)
    outage.assert_caught_up(db, location, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(start, through_proxy, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    worker = start("python", through_proxy)
    with pytest.raises(SqlError, match=str(folder)):
        worker.open(through_proxy.primary(folder / "app.db"))
