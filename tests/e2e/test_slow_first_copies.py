"""Many databases send their first copies over a link on which nothing moves. Each of them keeps a thread, and what it read,
until it is through, which may be hours. Whatever else the process does does not wait for them: the first copy and the snapshot
of a database in a folder, and those in another bucket of the same server.
"""

import shutil
import sqlite3
from dataclasses import replace

import pytest

from harness.healing import assert_restores
from harness.location import Location
from harness.proxy import Hang
from harness.sql import fill, insert, sync
from harness.wait import until

COPIES = 12
# What a bucket gets at the same time.
AT_ONCE = 4
# Long enough for a machine with much to do, and no copy is through by then.
PATIENCE = 15


@pytest.fixture
def stuck(start, through_proxy, proxy, tmp_path):
    """The process with those databases."""
    with sqlite3.connect(tmp_path / "seed.db") as db:
        db.execute("CREATE TABLE t(x)")
        db.executemany("INSERT INTO t VALUES (randomblob(?))", [(1 << 20,)] * 24)
    db.close()
    proxy.fault = lambda request: Hang() if "partNumber" in request.target else None
    worker = start("python", through_proxy)
    for n in range(COPIES):
        path = shutil.copy(tmp_path / "seed.db", tmp_path / f"large-{n}.db")
        location = replace(through_proxy, url=f"{through_proxy.url}-{n}")
        worker.open(location.primary(path, part_size="5MiB", close_timeout="0s")).run("INSERT INTO t VALUES (1)")
    (tmp_path / "seed.db").unlink()
    until(lambda: sum("partNumber" in request.target for request in proxy.requests) >= AT_ONCE, timeout=60, what="the copies")
    return worker


def another_bucket(location: Location) -> Location:
    folder = location.folder.parents[1] / "another-bucket"
    folder.mkdir()
    return Location.s3(folder, "app", location.settings["endpoint"])


@pytest.mark.parametrize("where", ["a folder", "another bucket"])
def test_nothing_else_waits_for_them(stuck, proxy, through_proxy, in_folder, tmp_path, where):
    location = in_folder if where == "a folder" else another_bucket(through_proxy)
    db = stuck.open(location.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    # More than is sent from memory.
    insert(db, rows=20, size=300_000)
    sync(db, PATIENCE)
    db.one("SELECT litestream_snapshot()")
    insert(db)
    sync(db, PATIENCE)
    assert_restores(db, location, tmp_path)
    begun = {request.path for request in proxy.requests if "partNumber" in request.target and "/app-" in request.path}
    assert len(begun) == AT_ONCE, "the others wait for their turn"
