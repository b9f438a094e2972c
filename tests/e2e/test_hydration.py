"""The whole database in a local file, downloaded in the background."""

import os
import sqlite3

import pytest

from harness.sql import fill, insert, sync
from harness.wait import until
from harness.worker import SqlError

QUIET = {"poll_interval": "1h"}


@pytest.fixture
def primary(start, in_s3, tmp_path):
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary, rows=20_000)
    sync(primary)
    for _ in range(5):
        insert(primary)
        sync(primary)
    return primary


def progress(replica) -> float:
    return float(replica.one("PRAGMA litestream_hydration_progress"))


def complete(replica) -> None:
    until(lambda: progress(replica) == 100, 60, "hydration")


def test_afterwards_nothing_is_asked_of_the_store(start, host, primary, through_proxy, proxy, tmp_path):
    replica = start(host, through_proxy).open(through_proxy.replica(tmp_path / "copy.db", hydrate=1, **QUIET))
    complete(replica)
    before = len(proxy.requests)
    assert replica.content() == primary.content()
    assert len(proxy.requests) == before

    path = tmp_path / ".copy.db-litestream" / "hydration.db"
    assert replica.one("PRAGMA litestream_hydration_file") == str(path)
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    # It follows, and what it follows to needs no further request either.
    insert(primary, 50)
    sync(primary)
    replica.one("PRAGMA litestream_poll")
    before = len(proxy.requests)
    assert replica.content() == primary.content()
    assert len(proxy.requests) == before
    # The file is a database.
    copy = tmp_path / "opened.db"
    copy.write_bytes(path.read_bytes())
    with sqlite3.connect(copy) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM t").fetchone() == (20_055,)


def test_the_environment_of_litestreams_extension_does_the_same(start, host, primary, in_s3, tmp_path):
    env = {"LITESTREAM_HYDRATION_ENABLED": "true", "LITESTREAM_HYDRATION_PATH": str(tmp_path / "h" / "it.db")}
    replica = start(host, in_s3, env=env).open(in_s3.replica(**QUIET))
    complete(replica)
    assert replica.one("PRAGMA litestream_hydration_file") == str(tmp_path / "h" / "it.db")
    assert (tmp_path / "h" / "it.db").exists()
    assert replica.content() == primary.content()


def test_without_it_there_is_no_file(start, host, primary, in_s3, tmp_path):
    before = set(os.listdir(tmp_path))
    replica = start(host, in_s3).open(in_s3.replica(tmp_path / "copy.db", **QUIET))
    assert replica.content() == primary.content()
    assert progress(replica) == 0
    assert replica.one("PRAGMA litestream_hydration_file") == ""
    assert set(os.listdir(tmp_path)) == before
    with pytest.raises(SqlError, match="cannot be set"):
        replica.one("PRAGMA litestream_hydration_progress = 3")


def test_a_killed_download_goes_on(start, host, primary, through_proxy, proxy, tmp_path):
    uri = through_proxy.replica(tmp_path / "copy.db", hydrate=1, **QUIET)
    proxy.delay = 0.2
    record = tmp_path / ".copy.db-litestream" / "hydration.db-record"
    first = start(host, through_proxy).open(uri)
    until(record.exists, 60, every=0.001)
    first.worker.kill()
    proxy.delay = 0.0
    for _ in range(2):
        replica = start(host, through_proxy).open(uri)
        complete(replica)
        assert replica.content() == primary.content()
        until(lambda: record.stat().st_size > 100, 10)
        replica.worker.kill()
    # A third process finds everything there.
    mark = len(proxy.requests)
    replica = start(host, through_proxy).open(uri)
    complete(replica)
    # A pack is asked for up to the most that one may have.
    files = [r for r in proxy.requests[mark:] if "/vfs/" not in r.target]
    large = [r for r in files if (span := r.headers.get("range", "").removeprefix("bytes=").split("-"))[0]
             and int(span[1]) - int(span[0]) > 300_000]
    assert large == []
    assert replica.content() == primary.content()


def test_a_file_of_another_program_is_not_overwritten(start, host, primary, in_s3, tmp_path):
    """Nor the database of an open primary, which would go on with pages of another one."""
    other = start(host, in_s3).open(f"file:{tmp_path}/other.db?vfs=litestream&replica=file://{tmp_path}/other")
    other.run("CREATE TABLE mine(x)", "INSERT INTO mine VALUES (1)", "PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / "note.txt").write_text("mine")
    for name in ("other.db", "note.txt"):
        with pytest.raises(SqlError, match="give another hydration_path"):
            start(host, in_s3).open(in_s3.replica(tmp_path / "copy.db", hydrate=1, hydration_path=tmp_path / name, **QUIET))
    assert (tmp_path / "note.txt").read_text() == "mine"
    assert other.rows("SELECT x FROM mine") == [[1]] and other.content().integrity == "ok"


def test_two_processes_do_not_share_the_file(start, host, primary, in_s3, tmp_path):
    uri = in_s3.replica(tmp_path / "copy.db", hydrate=1, **QUIET)
    first = start(host, in_s3).open(uri)
    complete(first)
    second = start(host, in_s3).open(uri)
    assert second.content() == primary.content()
    assert progress(second) == 0
    assert "hydration.db is in use" in second.one("SELECT last_error FROM litestream_status")
    first.worker.kill()
    complete(second)
    assert second.content() == primary.content()
    until(lambda: second.one("SELECT last_error FROM litestream_status") is None, 30)
