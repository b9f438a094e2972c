"""A backup that Litestream 0.3 made years ago is all that is left, encrypted or not.

The real Litestream 0.3.13 writes the replicas, with several snapshots and WAL files, while the source
changes; the source's content is kept for three points in time. Litestream 0.5.17 cannot say whether we are
right: it reads only the last WAL file of such a replica, and no encrypted one.
"""

import itertools
import json
import time
from datetime import datetime, timezone

import pytest

from harness import age
from harness.compare import Content
from harness.litestream import Replicate as Replicate05
from harness.litestream03 import Replicate, segments, snapshots, wal_indexes
from harness.sql import fill, insert, restore
from harness.wait import until
from harness.worker import SqlError


NO_TRANSACTIONS = "Litestream 0.3 wrote the replica, which counts no transactions.*litestream_restore"


@pytest.fixture(scope="module")
def keys():
    return age.generate()


@pytest.fixture
def source(start, tmp_path):
    """A database that a plain host writes."""
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run("PRAGMA journal_mode=WAL")
    fill(source, rows=400)
    return source


@pytest.fixture
def db(start, location):
    return start("python", location).open(":memory:")


def content_of(start, path) -> Content:
    return start("python", load=False).open(path).content()


def settle(start, source, theirs, tmp_path) -> tuple[str, Content]:
    """A time at which all is replicated, and the source's content then."""
    numbers = iter(range(1_000_000))

    def settled():
        before = source.content()
        path = theirs.restore(tmp_path / f"settling-{time.time_ns()}-{next(numbers)}.db")
        at = datetime.now(timezone.utc)
        try:
            restored = content_of(start, path)
        except SqlError:
            return None  # 0.3.13 restores what it has not uploaded all of into a broken database
        # Litestream writes into the database too, when it checkpoints.
        same = restored == before == source.content()
        return (at.isoformat(timespec="milliseconds"), before) if same else None

    at, content = until(settled, 30, "litestream 0.3.13 has replicated all")
    # S3 lists times in seconds: what follows must be in another one.
    until(lambda: time.time() >= int(datetime.fromisoformat(at).timestamp()) + 1, what="the next second")
    return at, content


def change(source, step: int) -> None:
    insert(source, rows=300)
    source.run(f"UPDATE t SET name = 'step {step} ' || id WHERE id % 7 = {step}",
               f"DELETE FROM t WHERE id % 11 = {step}", f"PRAGMA user_version = {step}")


@pytest.fixture(params=["plain", "age"])
def key(request, keys):
    """The identity and recipient that a replica is encrypted with, or None."""
    return keys if request.param == "age" else None


def options(key, **more) -> dict:
    return more | ({"age_identity": key[0]} if key else {})


def test_latest_and_three_points_in_time(start, location, source, db, tmp_path, key):
    points = []
    with Replicate(tmp_path / "app.db", location, tmp_path, keys=key, snapshot="2s", checkpoint_pages=60) as theirs:
        for step in range(3):
            change(source, step)
            points.append(settle(start, source, theirs, tmp_path))
        change(source, 3)
        latest = settle(start, source, theirs, tmp_path)[1]
    assert len(wal_indexes(location)) > 2 and len(snapshots(location)) > 1, "the replica is too simple"
    for n, (at, expected) in enumerate(points):
        report = restore(db, location, tmp_path / f"at-{n}.db", **options(key, timestamp=at))
        assert content_of(start, tmp_path / f"at-{n}.db") == expected, at
        assert report["txid"] is None and len(report["generation"]) == 16
    restore(db, location, tmp_path / "latest.db", **options(key))
    assert content_of(start, tmp_path / "latest.db") == latest
    with pytest.raises(SqlError, match="no state of that time or earlier; it covers 20"):
        restore(db, location, tmp_path / "early.db", **options(key, timestamp="2020-01-01T00:00:00Z"))
    assert_it_can_be_looked_at(db, location, points[0][0])
    with pytest.raises(SqlError, match=NO_TRANSACTIONS):
        restore(db, location, tmp_path / "early.db", **options(key, txid="0000000000000001"))
    assert not (tmp_path / "early.db").exists()


def assert_it_can_be_looked_at(db, location, first: str) -> None:
    """The plan lists what a restore takes; to verify is to restore, and that is what is said."""
    db.load()
    sql = "SELECT step, name, size, level, min_txid FROM litestream_restore_plan(?, ?)"
    latest = db.rows(sql, location.full_url, "{}")
    assert [row[0] for row in latest] == list(range(1, len(latest) + 1))
    names = [row[1] for row in latest]
    assert "/snapshots/" in names[0] and all("/wal/" in name for name in names[1:]) and len(names) > 1
    assert all((location.folder / name).stat().st_size == size for _, name, size, _, _ in latest)
    assert all(row[3:] == [None, None] for row in latest)
    earlier = db.rows(sql, location.full_url, json.dumps({"timestamp": first}))
    assert earlier[0][1] != names[0], "an earlier time has an earlier snapshot"
    [[severity, message]] = db.rows("SELECT severity, message FROM litestream_verify(?)", location.full_url)
    assert severity == "error" and "Litestream 0.3" in message and "integrity_check" in message
    for table in ("litestream_history", "litestream_retention_plan"):
        with pytest.raises(SqlError, match=NO_TRANSACTIONS):
            db.rows(f"SELECT * FROM {table}(?)", location.full_url)
    with pytest.raises(SqlError, match=NO_TRANSACTIONS):
        db.worker.open(location.replica(open_timeout="100ms"), "in place").rows("SELECT * FROM t")


@pytest.mark.parametrize("page_size", [512, 65536])
def test_other_page_sizes(start, in_folder, tmp_path, page_size, keys):
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run(f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL")
    fill(source, rows=200)
    with Replicate(tmp_path / "app.db", in_folder, tmp_path, keys=keys) as theirs:
        insert(source, rows=50)
        source.run("DELETE FROM t WHERE id > 100", "VACUUM")
        expected = settle(start, source, theirs, tmp_path)[1]
    restore(start("python").open(":memory:"), in_folder, tmp_path / "r.db", **options(keys))
    assert content_of(start, tmp_path / "r.db") == expected


def test_of_several_generations_the_one_that_was_written(start, location, source, db, tmp_path):
    points = []
    for step in range(2):
        with Replicate(tmp_path / "app.db", location, tmp_path) as theirs:
            change(source, step)
            points.append(settle(start, source, theirs, tmp_path))
        # Without its own records Litestream begins anew.
        for path in sorted((tmp_path / ".app.db-litestream").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert len(list((location.folder / "generations").iterdir())) == 2
    for n, (at, expected) in enumerate(points):
        restore(db, location, tmp_path / f"at-{n}.db", timestamp=at)
        assert content_of(start, tmp_path / f"at-{n}.db") == expected, at
    restore(db, location, tmp_path / "latest.db")
    assert content_of(start, tmp_path / "latest.db") == points[-1][1]


def test_after_the_change_to_litestream_05_each_time_has_its_format(start, location, source, db, tmp_path):
    with Replicate(tmp_path / "app.db", location, tmp_path) as theirs:
        change(source, 1)
        at, old = settle(start, source, theirs, tmp_path)
    change(source, 2)
    with Replicate05(tmp_path / "app.db", location, tmp_path):
        before = location.last_txid()
        insert(source, rows=10)
        until(lambda: location.last_txid() > before, 15, "litestream 0.5's next file")
    new = source.content()
    report = restore(db, location, tmp_path / "new.db")
    assert report["txid"] and report["generation"] is None
    assert content_of(start, tmp_path / "new.db").tables["t"] == new.tables["t"]
    restore(db, location, tmp_path / "old.db", timestamp=at)
    assert content_of(start, tmp_path / "old.db") == old


def test_who_went_back_to_litestream_03_gets_what_that_wrote(start, location, source, db, tmp_path):
    with Replicate05(tmp_path / "app.db", location, tmp_path):
        insert(source, rows=10)
    change(source, 1)
    until(lambda: time.time() > max(f.path.stat().st_mtime for f in location.files()) + 1, what="the next second")
    with Replicate(tmp_path / "app.db", location, tmp_path) as theirs:
        change(source, 2)
        _, expected = settle(start, source, theirs, tmp_path)
    assert restore(db, location, tmp_path / "r.db")["generation"]
    assert content_of(start, tmp_path / "r.db") == expected


@pytest.fixture
def backup(start, in_folder, source, tmp_path, keys):
    """A replica in a folder, encrypted, with several WAL files and segments, and its database."""
    with Replicate(tmp_path / "app.db", in_folder, tmp_path, keys=keys, checkpoint_pages=60) as theirs:
        for step in range(3):
            change(source, step)
            settle(start, source, theirs, tmp_path)
    assert len(segments(in_folder)) > 3 and len(wal_indexes(in_folder)) > 1
    return in_folder


def refused(start, backup, tmp_path, **given) -> str:
    """The error of a restore, which leaves nothing behind."""
    (tmp_path / "out").mkdir(exist_ok=True)
    with pytest.raises(SqlError) as error:
        restore(start("python").open(":memory:"), backup, tmp_path / "out" / "r.db", **given)
    assert list((tmp_path / "out").iterdir()) == []
    return str(error.value)


def test_only_the_right_identity_opens_a_backup(start, backup, tmp_path, keys):
    other = age.generate()[0]
    assert "encrypted with age; give age_identity_file" in refused(start, backup, tmp_path)
    message = refused(start, backup, tmp_path, age_identity=other)
    assert "not for any of the identities given" in message and other not in message
    message = refused(start, backup, tmp_path, age_identity=keys[0][:-1])
    assert "age_identity" in message and keys[0][20:40] not in message
    assert "keys.txt" in refused(start, backup, tmp_path, age_identity_file=str(tmp_path / "keys.txt"))
    (tmp_path / "keys.txt").write_text(f"# created: today\n# public key: {keys[1]}\n{other}\n{keys[0]}\n")
    report = restore(start("python").open(":memory:"), backup, tmp_path / "r.db",
                     age_identity_file=str(tmp_path / "keys.txt"))
    assert keys[0] not in json.dumps(report)


def test_damage_is_named_and_leaves_nothing(start, backup, tmp_path, keys):
    [snapshot, *_] = snapshots(backup)
    middle = segments(backup)[1]
    for path in (snapshot, middle):
        sound = path.read_bytes()
        flipped = bytearray(sound)
        flipped[len(flipped) // 2] ^= 1
        for damaged in (bytes(flipped), sound[: len(sound) // 2], sound[:-1], sound + b"x", b""):
            path.write_bytes(damaged)
            message = refused(start, backup, tmp_path, age_identity=keys[0])
            assert path.name in message or "snapshot" in message, message
        path.write_bytes(sound)
    # Nothing tells how long a WAL file was, so that only its last piece is not missed.
    followed = [a for a, b in itertools.pairwise(segments(backup)) if a.name[:8] == b.name[:8]]
    assert followed
    for path in followed:
        moved = path.rename(tmp_path / "moved")
        message = refused(start, backup, tmp_path, age_identity=keys[0])
        assert "missing" in message, f"without {path.name}: {message}"
        moved.rename(path)
    restore(start("python").open(":memory:"), backup, tmp_path / "r.db", age_identity=keys[0])
