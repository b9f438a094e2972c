"""Credentials are renewed in the shared file while the process runs, and the old ones end. Whatever is asked next reads the
file again: the primary, a replica, a restore. So it does when the file was broken for a moment, and when a new region or a new
key came by the configuration file.
"""

import pytest

from harness.proxy import Proxy
from harness.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

NEW = ("new-access-key", "new-secret-key-that-must-never-be-printed")
COUNT = "SELECT count(*) FROM t"


def write(path, key: str, secret: str) -> None:
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")


@pytest.fixture
def renewed(s3):
    """A server that knows only the new keys, on the same objects."""
    server = S3Server(s3.root, keys=NEW)
    yield server
    server.stop()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "credentials"
    write(path, ACCESS_KEY, SECRET_KEY)
    return path


@pytest.fixture
def worker(start, file):
    return start("python", env={"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_EC2_METADATA_DISABLED": "true",
                                "AWS_CONFIG_FILE": str(file.with_name("config"))})


def turn_to(proxy: Proxy, server: S3Server) -> None:
    """From now on the old keys are refused."""
    proxy.refuse()
    proxy.upstream = server.port
    proxy.accept()


def test_a_renewed_file_is_read_again(worker, through_proxy, proxy, renewed, file, tmp_path):
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="10ms"))
    fill(db, 10)
    sync(db)
    replica = worker.open(through_proxy.replica(poll_interval="1h"), "replica")
    assert replica.one(COUNT) == 10
    write(file, *NEW)
    turn_to(proxy, renewed)
    restore(db, through_proxy, tmp_path / "copy.db")
    replica.one("PRAGMA litestream_poll")
    insert(db)
    sync(db, 10)
    replica.one("PRAGMA litestream_poll")
    assert replica.one(COUNT) == 11
    assert NEW[1] not in status(db)


def test_a_file_that_was_broken_for_a_moment_is_read_again(worker, through_proxy, proxy, renewed, file, tmp_path):
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="10ms"))
    fill(db, 10)
    sync(db)
    file.write_text("")
    turn_to(proxy, renewed)
    insert(db)
    with pytest.raises(SqlError):
        sync(db, 0.5)
    with pytest.raises(SqlError):
        restore(db, through_proxy, tmp_path / "copy.db")
    write(file, *NEW)
    restore(db, through_proxy, tmp_path / "copy.db")
    sync(db, 20)
    until(lambda: "last_error" not in status(db), 5)
