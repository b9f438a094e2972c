"""A database is handed from Litestream's sidecar to the library, and back, while a program writes it.

The sidecar published after our last transaction, so that the next open found files that are not ours, and stopped as if
another primary had taken over; and back, the sidecar could not continue after a file of ours that named no place in the
WAL. Now an open takes the sidecar's files for what they are, where the database holds what the newest of them do: all its
pages are equal, or they were where that file ends, and the WAL has what came after. A copy that is older is refused as
before, and nothing is buried. Who runs both at once is told so.

Litestream's header of a file has node id 0. It makes a full copy by itself when it is started and the WAL is not the one
that the newest file names, as when the last connection closed and deleted it; where the WAL stayed, it makes none.
"""

import json
import shutil

import pytest

from harness import litestream
from harness.ltxfile import LtxFile
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

ROWS = "SELECT count(*) FROM t"
SEEMS = "Litestream sidecar seems to run"


def sidecar(location, tmp_path):
    return litestream.Replicate(tmp_path / "app.db", location, tmp_path, snapshot="1h", levels=("1h",), l0_retention="1h")


def program(start, tmp_path):
    """A program without the library."""
    db = start("python", load=False).open(tmp_path / "app.db", "program")
    db.run("PRAGMA journal_mode=WAL")
    return db


def state(db) -> dict:
    return json.loads(status(db))["databases"][0]


def written_by(location) -> dict[int, LtxFile]:
    """The files of level 0 by TXID."""
    return {f.max: LtxFile.read(f.path) for f in location.files(0)}


def baselines(location) -> tuple[list[int], list[int]]:
    """The TXIDs of full copies, the sidecar's and ours."""
    whole = {txid: file.node_id for txid, file in written_by(location).items() if file.is_whole}
    return [t for t, node in whole.items() if node == 0], [t for t, node in whole.items() if node]


def contents(location):
    return {f.path: f.path.read_bytes() for f in location.files()}


def assert_restores(start, location, tmp_path, expected, **options):
    """Both restore what is `expected`."""
    reader = start("python", location)
    theirs = litestream.restore(location, tmp_path / "theirs.db", **options)
    restore(reader.open(":memory:"), location, tmp_path / "ours.db", **{k: f"{v:016x}" for k, v in options.items()})
    for path in (theirs, tmp_path / "ours.db"):
        restored = reader.open(path, path.stem)
        assert restored.content() == expected
        assert restored.one("PRAGMA integrity_check") == "ok"
        restored.close()
        path.unlink()


def assert_contiguous(location):
    txids = [f.max for f in location.files(0)]
    assert txids == list(range(1, len(txids) + 1))
    assert location.gaps() == []


def test_there_and_back_ten_times_while_a_client_has_it_open(start, in_s3, tmp_path):
    """The client writes before, during and after each of the two, and the WAL stays."""
    client = program(start, tmp_path)
    fill(client)
    ours = start("python", in_s3)
    states = {}
    for n in range(10):
        with sidecar(in_s3, tmp_path) as theirs:
            insert(client)
            theirs.sync()
            insert(client)
        insert(client)
        primary = ours.open(in_s3.primary(tmp_path / "app.db"))
        insert(client)
        txid = sync(primary)
        assert "sidecar published" in state(primary)["notice"]
        states[txid] = client.content()
        insert(primary)
        sync(primary)
        insert(client)
        primary.close()
    assert_contiguous(in_s3)
    made = baselines(in_s3)
    print(f"full copies: the sidecar's {made[0]}, ours {made[1]}, of {in_s3.last_txid()} transactions")
    assert made == ([1], []), "the first of all, and no other one"
    with sidecar(in_s3, tmp_path) as theirs:
        theirs.sync()
    assert_restores(start, in_s3, tmp_path, client.content())
    for txid in list(states)[::4]:
        assert_restores(start, in_s3, tmp_path, states[txid], txid=txid)


def test_there_and_back_ten_times_and_each_is_closed(start, in_folder, tmp_path):
    """The program ends, then the sidecar, then the program starts with the library: the WAL is deleted in between."""
    ours, states = start("python", in_folder), {}
    client = program(start, tmp_path)
    fill(client)
    client.close()
    for n in range(10):
        before = in_folder.last_txid()
        with sidecar(in_folder, tmp_path) as theirs:
            client = program(start, tmp_path)
            insert(client)
            client.close()
            theirs.sync()
        last = in_folder.last_txid()
        assert last > before
        primary = ours.open(in_folder.primary(tmp_path / "app.db"))
        assert sync(primary) == last, "it is all there"
        assert f"published up to {last:016x}" in state(primary)["notice"]
        insert(primary)
        states[sync(primary)] = primary.content()
        primary.close()
    assert_contiguous(in_folder)
    made = baselines(in_folder)
    print(f"full copies: the sidecar's {made[0]}, ours {made[1]}, of {in_folder.last_txid()} transactions")
    assert (len(made[0]), made[1]) == (10, []), "one at each start of the sidecar, which found another WAL"
    assert_restores(start, in_folder, tmp_path, list(states.values())[-1])
    for txid in list(states)[:-1:4]:
        assert_restores(start, in_folder, tmp_path, states[txid], txid=txid)


def test_the_sidecar_was_killed(start, in_folder, tmp_path):
    """What it had not sent is in the WAL."""
    client = program(start, tmp_path)
    fill(client)
    with sidecar(in_folder, tmp_path) as theirs:
        insert(client)
        theirs.sync()
        for _ in range(20):
            insert(client)
        theirs.kill()
    insert(client)
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    sync(primary)
    assert_contiguous(in_folder)
    assert baselines(in_folder) == ([1], [])
    assert_restores(start, in_folder, tmp_path, client.content())


def test_the_wal_began_again_after_the_sidecar_ended(start, in_folder, tmp_path):
    """The program closed what the sidecar had published, began again without either, and was killed."""
    client = program(start, tmp_path)
    fill(client)
    with sidecar(in_folder, tmp_path) as theirs:
        insert(client)
        theirs.sync()
        client.close()
    later = program(start, tmp_path)
    later.run("PRAGMA wal_checkpoint(TRUNCATE)")
    insert(later, rows=5)
    later.worker.kill()
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    sync(primary)
    assert primary.one(ROWS) == 206
    assert baselines(in_folder) == ([1], [])
    assert_restores(start, in_folder, tmp_path, primary.content())


def test_the_sidecar_continues_after_a_file_without_a_wal(start, in_folder, tmp_path):
    """Our only file is a copy of a database that had no WAL."""
    plain = start("python", load=False).open(tmp_path / "app.db")
    fill(plain)
    plain.close()
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    last = sync(primary)
    primary.close()
    client = program(start, tmp_path)
    with sidecar(in_folder, tmp_path) as theirs:
        insert(client)
        until(lambda: in_folder.last_txid() > last, 10, "the sidecar's first file")
        theirs.sync()
    assert_contiguous(in_folder)
    assert_restores(start, in_folder, tmp_path, client.content())


@pytest.mark.parametrize("commits", [0, 1, 30])
@pytest.mark.parametrize("has_state", [True, False])
def test_yesterdays_copy_is_no_continuation(has_state, commits, start, in_folder, tmp_path):
    """A copy with its WAL, of the sidecar's time, comes back when the sidecar has published more."""
    client = program(start, tmp_path)
    fill(client)
    client.run("CREATE TABLE sums(day, sum)")
    if has_state:
        primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
        sync(primary)
        primary.close()
    files = ["app.db", "app.db-wal"]
    with sidecar(in_folder, tmp_path) as theirs:
        insert(client)
        theirs.sync()
        [shutil.copy(tmp_path / name, tmp_path / f"yesterday-{name}") for name in files]
        for n in range(4):
            client.run(f"INSERT INTO sums VALUES ({n}, {n})")
        theirs.sync()
        client.worker.kill()
    before = contents(in_folder)
    [file.unlink() for file in tmp_path.glob("app.db*") if file.name in ("app.db", "app.db-wal", "app.db-shm")]
    [shutil.copy(tmp_path / f"yesterday-{name}", tmp_path / name) for name in files]
    client = program(start, tmp_path)
    for n in range(commits):
        client.run(f"INSERT INTO sums VALUES ({n}, -1)")
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    with pytest.raises(SqlError, match=f"{SEEMS}.*litestream_restore.*litestream_resume"):
        sync(primary, 20)
    insert(primary)
    assert state(primary)["state"] == "stopped"
    primary.close()
    assert contents(in_folder) == before


def test_commits_whose_wal_is_gone_stop_until_somebody_says_so(start, in_folder, tmp_path):
    client = program(start, tmp_path)
    fill(client)
    with sidecar(in_folder, tmp_path) as theirs:
        insert(client)
        theirs.sync()
    insert(client)
    client.close()
    before = contents(in_folder)
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    with pytest.raises(SqlError, match=SEEMS):
        sync(primary, 20)
    assert contents(in_folder) == before
    primary.one("SELECT litestream_resume('force')")
    sync(primary)
    assert_contiguous(in_folder)
    assert_restores(start, in_folder, tmp_path, primary.content())


def test_a_sidecar_that_runs_beside_us_is_named(start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db", watch_interval="1h"))
    fill(primary)
    last = sync(primary)
    with sidecar(location, tmp_path) as theirs:
        until(lambda: location.last_txid() > last, 20, "a file of the sidecar's")
        insert(primary)
        with pytest.raises(SqlError, match=SEEMS):
            sync(primary, 20)
        assert state(primary)["state"] == "stopped" and SEEMS in state(primary)["last_error"]
        theirs.sync()
    primary.one("SELECT litestream_resume()")
    sync(primary)
    assert "published up to" in state(primary)["notice"]
    insert(primary)
    sync(primary)
    assert_contiguous(location)
    assert_restores(start, location, tmp_path, primary.content())
