"""Bad input gets a message that names the thing and the remedy, where the user looks: in the error of
the call. Nothing is lost by it, and no secret is in it."""

import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.location import Location, sqlite_uri
from harness.outage import ACCESS_DENIED
from harness.paths import LIBRARY
from harness.proxy import Status
from harness.s3 import REGION, SECRET_KEY, credentials, free_port
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError


def says(message: str, *words: str) -> None:
    """Asserts that a message has all these words, whatever their case, and no secret."""
    missing = [w for w in words if w.lower() not in message.lower()]
    assert not missing, f"{missing} not in: {message}"
    assert SECRET_KEY not in message and "wrong-secret" not in message


def refusal(worker, uri: str) -> str:
    """The error of an open, or else of the first read."""
    with pytest.raises(SqlError) as error:
        worker.open(uri, "refused").rows("SELECT * FROM sqlite_schema")
    return str(error.value)


def filled(start, location, tmp_path, rows=2000):
    """A primary whose replica has a snapshot and a few more files; and what it holds."""
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(primary, rows)
    sync(primary)
    for _ in range(3):
        insert(primary, rows=20)
        sync(primary)
    return primary


# --- settings ---


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({}, ["no replica URL", "app.db", "replica=", "LITESTREAM_REPLICA_URL"]),
        ({"replica": "ftp://host/path"}, ["ftp", "s3://", "file://"]),
        ({"replica": "bucket/path"}, ["bucket/path", "s3://"]),
        ({"replica": "s3://"}, ["s3://", "bucket"]),
        ({"replica": "file:///tmp/r", "litestream_synk": "1s"}, ["litestream_synk"]),
        ({"replica": "file:///tmp/r", "sync_interval": "soon"}, ["sync_interval", "soon", "1s"]),
        ({"replica": "file:///tmp/r", "role": "leader"}, ["role", "leader", "primary", "replica"]),
        ({"replica": "s3://b/p?endpont=x"}, ["endpont", "endpoint"]),
    ],
    ids=["no-url", "unknown-scheme", "no-scheme", "no-bucket", "unknown-parameter", "bad-value", "bad-role",
         "unknown-setting"],
)
def test_a_wrong_setting_is_named(parameters, words, start, host, tmp_path):
    message = refusal(start(host), sqlite_uri(tmp_path / "app.db", vfs="litestream", **parameters))
    says(message, *words)
    assert not (tmp_path / "app.db").exists()


def test_the_shell_shows_why_an_open_was_refused(shell, tmp_path):
    session = shell()
    session.run(f".load {LIBRARY.with_suffix('')}")
    output = session.run(".open 'file:app.db?vfs=litestream'\nSELECT 1;")
    says(output, "no replica URL", "replica=")


def test_a_refused_attach_is_explained_by_status(start, host, tmp_path):
    db = start(host).open(tmp_path / "plain.db")
    with pytest.raises(SqlError) as error:
        db.rows("ATTACH ? AS app", sqlite_uri(tmp_path / "app.db", vfs="litestream"))
    table = "\n".join(str(row) for row in db.rows("SELECT * FROM litestream_status"))
    says(str(error.value) + table, "no replica URL", "replica=")


# --- the store ---


def elsewhere(in_s3: Location, problem: str) -> tuple[Location, list[str]]:
    """A location that does not work, and what a message must name."""
    if problem == "unreachable":
        endpoint = f"http://127.0.0.1:{free_port()}"
        return in_s3.at(endpoint), [endpoint.removeprefix("http://")]
    if problem == "wrong-credentials":
        env = credentials("wrong-key", "wrong-secret")
        return Location(in_s3.url, in_s3.folder, in_s3.settings, env), [in_s3.folder.parent.name, "credentials"]
    bucket = Path("/nowhere/bucket-that-is-not-there")
    return Location.s3(bucket, "app", in_s3.settings["endpoint"]), ["bucket-that-is-not-there", in_s3.settings["endpoint"]]


PROBLEMS = ["unreachable", "wrong-credentials", "missing-bucket"]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_replica_that_cannot_be_reached_says_why(problem, start, host, in_s3):
    location, words = elsewhere(in_s3, problem)
    began = time.monotonic()
    message = refusal(start(host, location), location.replica(open_timeout="2s"))
    says(message, *words)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_restore_that_cannot_reach_the_replica_says_why(problem, start, in_s3, tmp_path):
    location, words = elsewhere(in_s3, problem)
    db = start("python", location).open(":memory:")
    with pytest.raises(SqlError) as error:
        restore(db, location, tmp_path / "restored.db")
    says(str(error.value), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_primary_works_on_and_status_says_why_nothing_arrives(problem, start, host, in_s3, tmp_path):
    location, words = elsewhere(in_s3, problem)
    uri = location.primary(tmp_path / "app.db", close_timeout="500ms")
    worker = start(host, location)
    primary = worker.open(uri)
    fill(primary)
    with pytest.raises(SqlError) as error:
        sync(primary, 1)
    says(str(error.value), *words)
    until(lambda: all(w.lower() in status(primary).lower() for w in words), 10, f"{words} in status")
    says(status(primary), *words)
    primary.close()
    worker.end()
    # Nothing is lost by it.
    again = start(host, in_s3).open(in_s3.primary(tmp_path / "app.db"))
    sync(again)
    restore(again, in_s3, tmp_path / "restored.db")
    assert again.worker.open(tmp_path / "restored.db", "restored").content() == again.content()


def test_an_empty_replica_is_waited_for_and_then_said_to_be_empty(start, host, location):
    worker = start(host, location)
    began = time.monotonic()
    message = refusal(worker, location.replica(open_timeout="1s"))
    assert 1 <= time.monotonic() - began < 4
    says(message, "empty", location.url)


def test_a_replica_that_fills_while_it_is_waited_for_opens(start, location, tmp_path):
    reader = start("python", location)
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    # The request is on its way before the primary has anything.
    reader._process.stdin.write(
        b'{"op": "open", "name": "db", "target": "%s"}\n' % location.replica(poll_interval="100ms").encode())
    reader._process.stdin.flush()
    fill(primary)
    sync(primary)
    assert reader._line("open", 15) == b'{"ok": null}'
    # It may have opened the first state, and follows.
    until(lambda: reader.call("exec", name="db", sql="SELECT count(*) FROM t") == [[200]], 5, "the last state")


# --- LTX files that are not what they should be ---


def truncate(file):
    file.path.write_bytes(file.path.read_bytes()[: file.size * 2 // 3])


def empty(file):
    file.path.write_bytes(b"")


def flip_a_bit_of_a_page(file):
    data = bytearray(file.path.read_bytes())
    data[100 + (len(data) - 100) // 3] ^= 0x10
    file.path.write_bytes(data)


def flip_a_bit_of_a_frame_header(file):
    data = bytearray(file.path.read_bytes())
    data[103] ^= 0x01  # the low byte of the first frame's page number
    file.path.write_bytes(data)


def flip_a_bit_of_the_header(file):
    data = bytearray(file.path.read_bytes())
    data[23] ^= 0x01  # the low byte of the first TXID
    file.path.write_bytes(data)


def flip_a_bit_of_the_index(file):
    data = bytearray(file.path.read_bytes())
    data[-30] ^= 0x04
    file.path.write_bytes(data)


def hold_another_transaction(file):
    """A file whose name does not say what is in it: a later file's content under this name."""
    others = [p for p in file.path.parent.glob("*.ltx") if p != file.path]
    file.path.write_bytes(others[0].read_bytes())


DAMAGE = [truncate, empty, flip_a_bit_of_a_frame_header, flip_a_bit_of_a_page, flip_a_bit_of_the_header, flip_a_bit_of_the_index,
          hold_another_transaction]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_restore_names_a_damaged_file_and_leaves_nothing_behind(damage, start, location, tmp_path):
    primary = filled(start, location, tmp_path)
    target = tmp_path / "out" / "restored.db"
    snapshot = [f for f in location.files() if f.min == 1][-1]
    damage(snapshot)
    with pytest.raises(SqlError) as error:
        restore(primary, location, target)
    says(str(error.value), snapshot.path.name)
    assert not target.exists() and list(tmp_path.rglob("*restored*")) == []


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_replica_never_gives_wrong_rows_from_a_damaged_file(damage, start, host, location, tmp_path):
    """LTX has one checksum for a whole file, so that a flipped bit inside of a page is seen in files that are
    read whole (up to 1 MiB, as here), and in a larger one by a restore."""
    primary = filled(start, location, tmp_path)
    right = primary.content()
    snapshot = [f for f in location.files() if f.min == 1][-1]
    damage(snapshot)
    reader = start(host, location)
    try:
        got = reader.open(location.replica(open_timeout="1s")).content()
    except SqlError as error:
        if "malformed" not in str(error) and "I/O" not in str(error):
            says(str(error), snapshot.path.name)
        table = str(reader.open(":memory:", "plain").rows("SELECT * FROM litestream_status"))
        says(str(error) + table, snapshot.path.name)
    else:
        assert got == right


def test_a_file_with_a_wrong_name_is_no_part_of_the_replica(start, location, tmp_path):
    primary = filled(start, location, tmp_path)
    last = location.files(0)[-1]
    (last.path.parent / "notes.txt").write_text("hello")
    (last.path.parent / "0000000000000009-0000000000000001.ltx").write_bytes(last.path.read_bytes())
    (last.path.parent / f"{last.path.name}.tmp").write_bytes(b"half")
    reader = start("python", location)
    assert reader.open(location.replica()).content() == primary.content()
    restore(reader.open(":memory:", "plain"), location, tmp_path / "restored.db")


def test_a_hole_in_the_replica_is_named(start, location, tmp_path):
    primary = filled(start, location, tmp_path)
    last_txid = location.last_txid()
    hole = location.files(0)[-2]
    hole.path.unlink()
    with pytest.raises(SqlError) as error:
        restore(primary, location, tmp_path / "restored.db", txid=f"{last_txid:016x}")
    says(str(error.value), f"{hole.min:016x}")
    assert not (tmp_path / "restored.db").exists()


def test_a_txid_that_the_replica_does_not_have_is_named(start, location, tmp_path):
    primary = filled(start, location, tmp_path)
    with pytest.raises(SqlError) as error:
        restore(primary, location, tmp_path / "restored.db", txid="00000000000fffff")
    says(str(error.value), "00000000000fffff", f"{location.last_txid():016x}")


# --- local files ---


def test_a_file_that_is_not_a_database_is_refused(start, host, in_folder, tmp_path):
    (tmp_path / "app.db").write_bytes(b"This is a text, and a rather long one. " * 200)
    before = (tmp_path / "app.db").read_bytes()
    message = refusal(start(host, in_folder), in_folder.primary(tmp_path / "app.db"))
    says(message, "not a database")
    assert (tmp_path / "app.db").read_bytes() == before
    assert in_folder.files() == []


def test_a_replica_of_another_page_size_is_named(start, location, tmp_path):
    other = start("python", location).open(location.primary(tmp_path / "other.db"))
    other.run("PRAGMA page_size=1024")
    fill(other)
    sync(other)
    files = location.files()
    plain = start("python", load=False).open(tmp_path / "app.db")
    plain.run("PRAGMA page_size=8192", "PRAGMA journal_mode=WAL")
    fill(plain)
    plain.close()
    worker = start("python", location)
    with pytest.raises(SqlError) as error:
        sync(worker.open(location.primary(tmp_path / "app.db")), 5)
    says(str(error.value), "page size", "1024", "8192")
    assert {f.path for f in location.files()} == {f.path for f in files}, "the other database's replica is untouched"
    assert worker.open(tmp_path / "app.db", "plain").one("SELECT count(*) FROM t") == 200


@pytest.mark.parametrize("path", ["/proc/nowhere/restored.db", "/dev/null/restored.db"])
def test_a_restore_target_that_cannot_be_written_is_named(path, start, location, tmp_path):
    primary = filled(start, location, tmp_path, rows=10)
    with pytest.raises(SqlError) as error:
        restore(primary, location, Path(path))
    says(str(error.value), path.rpartition("/")[0])


def test_a_replica_folder_that_cannot_be_written_is_named(start, host, tmp_path):
    location = Location.file(Path("/proc/nowhere/replica"))
    primary = start(host).open(location.primary(tmp_path / "app.db", close_timeout="100ms"))
    fill(primary)
    with pytest.raises(SqlError) as error:
        sync(primary, 1)
    says(str(error.value), "/proc/nowhere")
    assert primary.one("SELECT count(*) FROM t") == 200


def test_a_database_path_that_cannot_be_written_is_named(start, host, in_folder):
    message = refusal(start(host), in_folder.primary("/proc/nowhere/app.db"))
    says(message, "/proc/nowhere/app.db")


def test_writing_on_a_replica_is_refused(start, host, location, tmp_path):
    filled(start, location, tmp_path)
    replica = start(host, location).open(location.replica())
    for statement in ("INSERT INTO t(name) VALUES ('x')", "CREATE TABLE u(x)", "VACUUM", "PRAGMA user_version=3"):
        with pytest.raises(SqlError, match="(?i)read-?only"):
            replica.rows(statement)
    assert replica.one("PRAGMA user_version") == 0
    assert not list(tmp_path.glob("replica.db*")), "a replica has no file"


def test_a_full_disk_under_the_replica_loses_nothing(start, tmp_path):
    """A limit on the size of files makes write() fail as a full disk does, and can be lifted again."""
    location = Location.file(tmp_path / "replica")
    worker = start("python")
    uri = location.primary(tmp_path / "app.db", sync_interval="100ms")
    primary = worker.open(uri)
    fill(primary)
    sync(primary)
    # The database's own file is checkpointed into what it has; the large commit stays in the WAL.
    primary.run("PRAGMA wal_autocheckpoint=0", "PRAGMA wal_checkpoint(TRUNCATE)")
    insert(primary, rows=500, size=2000)
    sync(primary)
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (200_000, hard))
    with pytest.raises(SqlError):
        insert(primary, rows=5000, size=2000)  # the host's own WAL hits the limit first
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (hard, hard))
    insert(primary, rows=5)
    sync(primary, 20)
    restore(primary, location, tmp_path / "restored.db")
    assert worker.open(tmp_path / "restored.db", "restored").content() == primary.content()


@pytest.mark.parametrize("name", ["file:app.db?mode=memory", "file::memory:?cache=shared", "file:?cache=private", "file:/app?mode=memory"])
@pytest.mark.parametrize("mode", ["", "&mode=ro"])
def test_a_database_in_memory_or_without_a_name_is_not_replicated_and_says_so(name, mode, start, host, in_folder):
    if "mode=memory" in name and mode:
        mode = "&role=replica"
    worker = start(host, in_folder)
    with pytest.raises(SqlError, match="in memory or without a name.*give it a file name"):
        worker.open(f"{name}&vfs=litestream&replica={in_folder.url}{mode}")
    for plain in (":memory:", "", "file::memory:", "file:x?mode=memory"):
        assert worker.open(plain, "plain").one("SELECT 1") == 1


def test_who_may_not_look_for_an_old_format_restores_todays(start, through_proxy, proxy, tmp_path):
    """Litestream 0.3's folder `generations/` is looked for too, and is not what a message should be about."""
    writer = start("python", through_proxy)
    primary = writer.open(through_proxy.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    proxy.fault = lambda request: Status(403, ACCESS_DENIED) if "generations" in request.target else None
    restore(primary, through_proxy, tmp_path / "restored.db")
    assert writer.open(tmp_path / "restored.db", "restored").content() == primary.content()
    with pytest.raises(SqlError, match="empty"):
        restore(primary, replace(through_proxy, url=through_proxy.url + "/empty"), tmp_path / "empty.db")
