"""A deployment changes the replica's URL while the old process still runs, or a script has another URL than the service.

Several processes may have a database open; one publishes it, to one replica. A process whose replica is another one is
refused when it opens the database, with both values and what to do, whichever of them came first, and
`litestream_sync` never succeeds for a replica that gets nothing. When the old process is gone, however it went, the new one
works, and its replica gets everything. Credentials may differ: they are renewed while a service runs.
"""

import pytest

from harness.location import Location
from harness.s3 import S3Server
from harness.sql import fill, insert, restore, sync
from harness.worker import SqlError


def assert_replica_is(db, location: Location, path) -> None:
    assert sync(db) == location.last_txid()
    restore(db, location, path)
    assert db.worker.open(path, "restored").content() == db.content()


@pytest.mark.parametrize("across", [False, True], ids=["process", "processes"])
def test_another_url_is_refused_with_both(start, in_s3, in_folder, tmp_path, across):
    worker = start("python", in_s3)
    app = worker.open(in_s3.primary(tmp_path / "app.db"))
    fill(app)
    sync(app)
    other = start("python", in_s3) if across else worker
    with pytest.raises(SqlError) as refused:
        other.open(in_folder.primary(tmp_path / "app.db"), "other").rows("SELECT * FROM t")
    said = str(refused.value)
    assert f"replica={in_folder.url}" in said and f"replica={in_s3.url}" in said and "end before" in said
    with pytest.raises(SqlError):
        other.open(in_folder.primary(tmp_path / "app.db"), "other").one("SELECT litestream_sync(5)")
    assert not in_folder.folder.exists()
    # Whoever has the same replica is welcome.
    same = other.open(in_s3.primary(tmp_path / "app.db"), "same")
    insert(same)
    assert sync(same) == in_s3.last_txid()


def test_the_same_url_at_another_endpoint_is_another_replica(start, in_s3, tmp_path):
    """The variation: a bucket of the same name on another server."""
    server = S3Server(tmp_path / "s3")
    try:
        bucket = in_s3.url.removeprefix("s3://").split("/")[0]
        elsewhere = Location.s3(server.bucket(bucket), "app", server.endpoint)
        assert elsewhere.url == in_s3.url
        old = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
        fill(old)
        sync(old)
        new = start("python", in_s3)
        with pytest.raises(SqlError) as refused:
            new.open(elsewhere.primary(tmp_path / "app.db")).one("SELECT litestream_sync(5)")
        assert f"endpoint={server.endpoint}" in str(refused.value)
        assert f"endpoint={in_s3.settings['endpoint']}" in str(refused.value)
        old.worker.kill()
        db = new.open(elsewhere.primary(tmp_path / "app.db"))
        # By its URL it is a replica that lost everything: somebody must say that it is to begin there.
        db.one("SELECT litestream_resume('force')")
        assert_replica_is(db, elsewhere, tmp_path / "restored.db")
    finally:
        server.wipe()


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_deployment_changes_the_url_while_the_old_process_runs(start, in_s3, in_folder, tmp_path, end):
    old = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(old)
    sync(old)
    new = start("python", in_s3)
    uri = in_folder.primary(tmp_path / "app.db")
    with pytest.raises(SqlError, match="is open with replica="):
        new.open(uri).one("SELECT litestream_sync(5)")
    insert(old, rows=5)
    if end == "kill":
        old.worker.kill()
    else:
        old.close()
    db = new.open(uri)
    insert(db)
    assert_replica_is(db, in_folder, tmp_path / "restored.db")
    # And the old one is not let back in by chance.
    with pytest.raises(SqlError, match="is open with replica="):
        start("python", in_s3).open(in_s3.primary(tmp_path / "app.db")).rows("SELECT * FROM t")


def test_a_standby_keeps_others_out_when_the_publisher_is_gone(start, in_s3, in_folder, tmp_path):
    publisher = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(publisher)
    standby = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    standby.one("SELECT count(*) FROM t")
    publisher.worker.kill()
    with pytest.raises(SqlError, match="is open with replica="):
        start("python", in_s3).open(in_folder.primary(tmp_path / "app.db")).rows("SELECT * FROM t")
    insert(standby)
    assert_replica_is(standby, in_s3, tmp_path / "restored.db")


def test_credentials_may_differ(start, in_s3, tmp_path):
    old = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(old)
    sync(old)
    key, secret = in_s3.env["AWS_ACCESS_KEY_ID"], in_s3.env["AWS_SECRET_ACCESS_KEY"]
    new = start("python").open(in_s3.primary(tmp_path / "app.db", access_key_id=key, secret_access_key=secret))
    insert(new)
    assert sync(new) == in_s3.last_txid()
    old.worker.kill()
    insert(new)
    assert sync(new) == in_s3.last_txid()
    third = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    assert_replica_is(third, in_s3, tmp_path / "restored.db")
