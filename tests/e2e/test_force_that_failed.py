"""`litestream_resume('force')` that answered an error is not carried out later.

Whoever was told that it failed decides anew: what the replica holds is not buried when the store is back.
"""

import json
import time

import pytest

from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError


def contents(location):
    return {f.path: f.path.read_bytes() for f in location.files()}


def state_of(db):
    return json.loads(status(db))["databases"][0]


@pytest.fixture
def stopped(start, through_proxy, in_s3, tmp_path):
    """A primary that was stopped, since its replica lost the last transactions."""
    uri = through_proxy.primary(tmp_path / "app.db", auto_recover="false")
    db = start("python", through_proxy).open(uri)
    fill(db)
    sync(db)
    insert(db, rows=50)
    sync(db)
    # A file is written twice to find that out, and would be there again.
    until(lambda: state_of(db)["fencing"] != "unproven", 30, "it is known whether the store keeps conditions")
    db.close()
    in_s3.files()[-1].path.unlink()
    db = start("python", through_proxy).open(uri)
    until(lambda: state_of(db)["state"] == "stopped", 10)
    return db


def assert_not_carried_out(db, location, proxy, before):
    proxy.accept()
    insert(db)
    until(lambda: state_of(db)["state"] == "stopped", 10)
    with pytest.raises(SqlError, match="litestream_resume"):
        sync(db, 5)
    # As long as the one who publishes would take to notice that the store is back.
    time.sleep(2.5)
    assert contents(location) == before
    assert state_of(db)["state"] == "stopped"


def force_for_a_second(db):
    db.interrupted("SELECT litestream_resume('force')", after=1)


def test_the_store_is_away(stopped, in_s3, proxy):
    before = contents(in_s3)
    proxy.refuse()
    with pytest.raises(SqlError):
        force_for_a_second(stopped)
    assert_not_carried_out(stopped, in_s3, proxy, before)


def test_another_process_says_it_and_is_killed(stopped, start, through_proxy, in_s3, proxy, tmp_path):
    """A variation: nobody is there any more to take it back."""
    before = contents(in_s3)
    proxy.refuse()
    other = start("python", through_proxy)
    other.open(through_proxy.primary(tmp_path / "app.db"))
    other.begin("exec", name="db", sql="SELECT litestream_resume('force')", params=())
    until(lambda: state_of(stopped)["state"] != "stopped", 10)
    other.kill()
    until(lambda: state_of(stopped)["state"] == "stopped", 10)
    assert_not_carried_out(stopped, in_s3, proxy, before)


def test_it_is_said_again_and_works(stopped, start, in_s3, proxy, tmp_path):
    proxy.refuse()
    with pytest.raises(SqlError):
        force_for_a_second(stopped)
    proxy.accept()
    stopped.one("SELECT litestream_resume('force')")
    restore(stopped, in_s3, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").content() == stopped.content()
