"""A byte is not what the primary wrote: in a file of the replica, and in the hydration file.

LZ4 notices little, and LTX has one checksum for a file and none for a page. Hydration reported 100 percent,
`integrity_check` was ok, and the rows were wrong. Now what is in the hydration file was checked: by the checksum of
its LTX file when it came, by a checksum of its own since then.
"""

import sqlite3

import pytest

from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.worker import SqlError

QUIET = {"poll_interval": "1h"}
SECRET = bytes((n * n * 7 + n // 3) % 251 for n in range(300))
"""A value that does not compress, so that it is in files as it is."""


@pytest.fixture
def primary(start, in_s3, tmp_path):
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary, rows=8_000)
    primary.rows("INSERT INTO t(name, data) VALUES ('the one', ?)", SECRET)
    # It is on a page that does not change any more.
    insert(primary, rows=100)
    sync(primary)
    primary.one("SELECT litestream_snapshot()")
    insert(primary)
    sync(primary)
    return primary


def change(path, where=150) -> bytes:
    """Flips a bit of the value wherever the file has it; what the file was."""
    good = path.read_bytes()
    assert SECRET in good, f"the value is not in {path}"
    bad = bytearray(SECRET)
    bad[where] ^= 1
    with open(path, "r+b") as file:
        file.write(good.replace(SECRET, bytes(bad)))
    return good


def snapshot(location):
    """The large file that has the value."""
    return next(f.path for f in reversed(location.files()) if f.size > 1 << 20 and SECRET in f.path.read_bytes())


def progress(replica) -> float:
    return float(replica.one("PRAGMA litestream_hydration_progress"))


def complete(replica) -> None:
    until(lambda: progress(replica) == 100, 60, "hydration")


def value(replica) -> bytes:
    return replica.one("SELECT data FROM t WHERE name = 'the one'")


def column(replica, name: str) -> str:
    return replica.one(f"SELECT {name} FROM litestream_status") or ""


def test_a_changed_byte_in_the_replica_is_not_served(start, host, primary, in_s3, tmp_path):
    file = snapshot(in_s3)
    good = change(file)
    replica = start(host, in_s3).open(in_s3.replica(tmp_path / "copy.db", hydrate=1, **QUIET))
    until(lambda: "fails its checksum" in status(replica), 60, "a notice of the damage")
    assert file.name in status(replica)
    assert progress(replica) < 100
    with pytest.raises(SqlError, match="malformed"):
        value(replica)
    with pytest.raises(SqlError):
        replica.rows("VACUUM INTO ?", str(tmp_path / "vacuumed.db"))
    # Put right by a copy of the file from elsewhere.
    file.write_bytes(good)
    again = start(host, in_s3).open(in_s3.replica(tmp_path / "copy.db", hydrate=1, hydration_path="again.db"))
    complete(again)
    assert again.content() == primary.content()


def hydrated(start, host, location, tmp_path):
    replica = start(host, location).open(location.replica(tmp_path / "copy.db", hydrate=1, cache_size="1MiB", **QUIET))
    complete(replica)
    return replica, tmp_path / ".copy.db-litestream" / "hydration.db"


def test_a_changed_byte_in_the_hydration_file_is_noticed(start, host, primary, in_s3, tmp_path):
    replica, path = hydrated(start, host, in_s3, tmp_path)
    change(path)
    assert value(replica) == SECRET
    notice = column(replica, "notice")
    assert "hydration.db were not what had been written" in notice and " pages read from" in notice, notice
    complete(replica)
    assert replica.content() == primary.content()
    until(lambda: SECRET in path.read_bytes(), 30, "the page is put right")
    # While nobody has it open.
    replica.worker.kill()
    change(path)
    replica, _ = hydrated(start, host, in_s3, tmp_path)
    assert value(replica) == SECRET
    assert "hydration.db" in column(replica, "notice")


def test_another_program_that_writes_into_the_hydration_file_changes_nothing(start, host, primary, in_s3, tmp_path):
    replica, path = hydrated(start, host, in_s3, tmp_path)
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("UPDATE t SET data = 'forged'")
        other.commit()
    other.close()
    assert value(replica) == SECRET
    assert replica.content() == primary.content()
    assert "another program wrote" in column(replica, "notice")
    complete(replica)
    assert replica.content() == primary.content()
