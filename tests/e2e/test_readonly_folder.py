"""The folder of the database, or that of local state, cannot be written.

Where SQLite itself can work we do not get in its way: the database works, status says what is wrong, and replication heals
when the cause goes. Where it cannot, the open says why.
"""

import os
import subprocess

import pytest

from harness import outage
from harness.small_disk import small_disk
from harness.sql import fill, insert, status, sync
from harness.wait import until


def remount(folder, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def test_the_state_folder_becomes_read_only(start, through_proxy, proxy, tmp_path):
    with small_disk(tmp_path / ".app.db-litestream", 8) as state:
        worker = start("python", through_proxy, env=outage.logged(tmp_path))
        db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
        fill(db)
        sync(db)
        proxy.refuse()
        remount(state, "ro")
        for _ in range(5):
            insert(db, rows=300)
            db.run("PRAGMA wal_checkpoint(TRUNCATE)")
        until(lambda: "Read-only" in status(db) + (tmp_path / "host.log").read_text(), 15, "it is told")
        remount(state, "rw")
        proxy.accept()
        outage.assert_caught_up(db, through_proxy, tmp_path)
        db.close()
        worker.kill()


def test_a_state_folder_that_is_read_only_from_the_start(start, through_proxy, tmp_path):
    with small_disk(tmp_path / ".app.db-litestream", 8) as state:
        remount(state, "ro")
        worker = start("python", through_proxy, env=outage.logged(tmp_path))
        with pytest.raises(Exception, match="(?i)read-only") as refused:
            worker.open(through_proxy.primary(tmp_path / "app.db")).run("CREATE TABLE t(x)")
        assert ".app.db-litestream" in str(refused.value)
        remount(state, "rw")
        db = worker.open(through_proxy.primary(tmp_path / "app.db"), "again")
        fill(db)
        sync(db)
        db.close()
        worker.kill()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(start, through_proxy, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    worker = start("python", through_proxy)
    with pytest.raises(Exception, match=str(folder)):
        worker.open(through_proxy.primary(folder / "app.db"))
