"""Files of two histories lie in one folder, and every restore of them looks well.

A nightly copy without `--delete` after the project began anew, a file of another database copied in, two sidecars on
one path: what was restored had rows of both, `integrity_check` was ok, and `litestream_verify` was clean. Now each file
of ours carries the lineage of its replica; of files without one what contradicts itself is found.
"""

import shutil
import time

import pytest

from harness import litestream
from harness.location import Location
from harness.sql import restore, sync
from harness.wait import until
from harness.worker import SqlError

QUIET = {"poll_interval": "1h"}


def lineages(location) -> set[int]:
    """Those that the files of a replica carry."""
    return {int.from_bytes(f.path.read_bytes()[88:96], "big") for f in location.files()}


def mixed(db, location) -> list[list]:
    """What verify says of histories: severity, file and message."""
    return db.load().rows("SELECT severity, name, message FROM litestream_verify(?) WHERE problem = 'mixed'", location.full_url)


def project(start, location, path, who: str, txids: int, **parameters):
    """A primary whose rows say whose they are, and whose replica has that many transactions."""
    db = start("python", location).open(location.primary(path, **parameters))
    db.run("BEGIN", "CREATE TABLE note(id INTEGER PRIMARY KEY, who TEXT, text BLOB)", "CREATE TABLE other(x)",
           "INSERT INTO other VALUES (randomblob(40000))", "COMMIT")
    sync(db)
    while location.last_txid() < txids:
        db.rows("INSERT INTO note(who, text) VALUES (?, randomblob(900))", who)
        sync(db)
    assert location.last_txid() == txids
    return db


def begin_anew(folder, name="app.db"):
    for path in folder.glob(f"*{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def nightly(start, tmp_path):
    """A copy of a replica of 12 commits over which a replica of 5 commits was copied, and a reader since the first."""
    work, copy = Location.file(tmp_path / "replica"), Location.file(tmp_path / "copy")
    (tmp_path / "work").mkdir()
    old = project(start, work, tmp_path / "work" / "app.db", "old", 12)
    shutil.copytree(work.folder, copy.folder)
    reader = start("python").open(copy.replica(poll_interval="50ms"))
    assert reader.rows("SELECT DISTINCT who FROM note") == [["old"]]
    old.close()
    begin_anew(tmp_path / "work")
    shutil.rmtree(work.folder)
    new = project(start, work, tmp_path / "work" / "app.db", "new", 5)
    shutil.copytree(work.folder, copy.folder, dirs_exist_ok=True)
    return copy, new, reader


def test_a_nightly_copy_over_an_older_project(start, nightly, tmp_path):
    copy, new, reader = nightly
    first, second = lineages(copy)
    db = start("python").open(":memory:")
    found = mixed(db, copy)
    assert {row[0] for row in found} == {"error"} and len(found) == 7, found
    assert all(f"{lineage:016x}" in found[0][2] for lineage in (first, second)) and "TXIDs" in found[0][2]
    with pytest.raises(SqlError) as error:
        restore(db, copy, tmp_path / "restored.db")
    assert all(f"{lineage:016x}" in str(error.value) for lineage in (first, second)), error.value
    assert not list(tmp_path.glob("*restored*"))
    # The message names a state that is of one history.
    assert f"{5:016x}" in str(error.value)
    restore(db, copy, tmp_path / "restored.db", txid=f"{5:016x}")
    again = start("python").open(tmp_path / "restored.db")
    assert again.content().tables == new.content().tables
    # Somebody who followed stays with what it had; nobody new gets a mixture.
    poll(reader)
    assert reader.rows("SELECT DISTINCT who FROM note") == [["old"]]
    with pytest.raises(SqlError, match="two histories lie in one replica"):
        start("python").open(copy.replica(open_timeout="1s")).rows("SELECT count(*) FROM note")
    # As the message says: the older files moved away.
    for _, name, _ in found:
        (copy.level(0) / name).unlink()
    assert mixed(db, copy) == []
    restore(db, copy, tmp_path / "after.db")
    assert start("python").open(tmp_path / "after.db").content().tables == new.content().tables


def poll(reader):
    try:
        reader.one("PRAGMA litestream_poll")
    except SqlError:
        pass


def test_a_file_of_another_database_is_copied_in(start, tmp_path):
    ours, theirs = Location.file(tmp_path / "ours"), Location.file(tmp_path / "theirs")
    db = project(start, ours, tmp_path / "app.db", "ours", 4)
    other = project(start, theirs, tmp_path / "other.db", "theirs", 6)
    reader = start("python").open(ours.replica(**QUIET))
    assert reader.rows("SELECT DISTINCT who FROM note") == [["ours"]]
    name = f"{5:016x}-{5:016x}.ltx"
    shutil.copy(theirs.level(0) / name, ours.level(0) / name)
    fresh = start("python").open(":memory:")
    assert len(mixed(fresh, ours)) >= 1
    with pytest.raises(SqlError, match="two histories lie in one replica"):
        restore(fresh, ours, tmp_path / "restored.db")
    with pytest.raises(SqlError, match="two histories lie in one replica"):
        reader.one("PRAGMA litestream_poll")
    assert reader.rows("SELECT DISTINCT who FROM note") == [["ours"]]
    # The primary does not go on after it either, in this process or the next.
    db.rows("INSERT INTO note(who) VALUES ('ours')")
    with pytest.raises(SqlError, match="another primary wrote|lineage"):
        sync(db, 10)
    other.close()


def test_a_primary_does_not_go_on_after_another_history_of_the_same_length(start, tmp_path):
    """The whole replica is another one: nothing is missing, nothing is ahead."""
    ours, theirs = Location.file(tmp_path / "ours"), Location.file(tmp_path / "theirs")
    project(start, ours, tmp_path / "app.db", "ours", 5).close()
    project(start, theirs, tmp_path / "other.db", "theirs", 5).close()
    shutil.rmtree(ours.folder)
    shutil.copytree(theirs.folder, ours.folder)
    db = start("python").open(ours.primary(tmp_path / "app.db"))
    db.rows("INSERT INTO note(who) VALUES ('ours')")
    with pytest.raises(SqlError, match="holds another history"):
        sync(db, 10)
    assert len(lineages(ours)) == 1
    # Somebody decides: the history of the replica goes on, with this database.
    db.one("SELECT litestream_resume('force')")
    sync(db)
    assert len(lineages(ours)) == 1
    restore(db, ours, tmp_path / "restored.db")
    assert start("python").open(tmp_path / "restored.db").content().tables == db.content().tables


def test_a_lineage_lasts_through_merges_restarts_and_litestream(start, location, tmp_path):
    db = project(start, location, tmp_path / "app.db", "one", 3, levels="1s,2s", snapshot_interval="2s")
    (lineage,) = lineages(location)
    assert lineage != 0
    deadline = time.monotonic() + 30
    while not {0, 1, 2, 9} <= {f.level for f in location.files()} and time.monotonic() < deadline:
        db.rows("INSERT INTO note(who) VALUES ('one')")
        sync(db)
        time.sleep(0.2)
    assert {0, 1, 2, 9} <= {f.level for f in location.files()}
    assert lineages(location) == {lineage}
    db.close()
    # Without the state folder, and after the sidecar, which knows no lineages.
    shutil.rmtree(tmp_path / ".app.db-litestream")
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    db.rows("INSERT INTO note(who) VALUES ('two')")
    sync(db)
    assert lineages(location) == {lineage}
    db.close()
    plain = start("python", load=False).open(tmp_path / "app.db")
    before = location.last_txid()
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path):
        plain.rows("INSERT INTO note(who) VALUES ('sidecar')")
        until(lambda: location.last_txid() > before, 20, "the sidecar's next file")
    plain.close()
    assert lineages(location) == {lineage, 0}
    shutil.rmtree(tmp_path / ".app.db-litestream")
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    db.rows("INSERT INTO note(who) VALUES ('three')")
    sync(db)
    assert lineages(location) <= {lineage, 0}
    assert mixed(db, location) == []
    restore(db, location, tmp_path / "restored.db")
    content = start("python").open(tmp_path / "restored.db").content()
    assert content.tables == db.content().tables
    copy = litestream.restore(location, tmp_path / "theirs.db")
    assert start("python").open(copy).content().tables == content.tables
    assert litestream.read_by_vfs(location).tables == content.tables


def test_files_without_a_lineage_are_continued_with_one(start, in_folder, tmp_path):
    plain = start("python", load=False).open(tmp_path / "app.db")
    plain.run("PRAGMA journal_mode=WAL", "CREATE TABLE note(id INTEGER PRIMARY KEY, who TEXT, text BLOB)",
              "INSERT INTO note(who, text) VALUES ('sidecar', randomblob(40000))")
    with litestream.Replicate(tmp_path / "app.db", in_folder, tmp_path):
        before = in_folder.last_txid()
        plain.rows("INSERT INTO note(who, text) VALUES ('sidecar', randomblob(900))")
        until(lambda: in_folder.last_txid() > before, 20, "the sidecar's next file")
    plain.close()
    assert lineages(in_folder) == {0}
    shutil.rmtree(tmp_path / ".app.db-litestream")
    for n in range(2):
        db = start("python").open(in_folder.primary(tmp_path / "app.db"))
        db.rows("INSERT INTO note(who) VALUES ('ours')")
        sync(db)
        assert len(lineages(in_folder)) == 2
        assert mixed(db, in_folder) == []
        restore(db, in_folder, tmp_path / f"restored-{n}.db")
        assert start("python").open(tmp_path / f"restored-{n}.db").content().tables == db.content().tables
        db.close()


def test_two_sidecars_on_one_path_are_found(start, in_folder, tmp_path):
    """Of Litestream's own files: what contradicts itself."""
    databases = []
    for who in ("one", "two"):
        db = start("python", load=False).open(tmp_path / f"{who}.db")
        db.run("PRAGMA journal_mode=WAL", "CREATE TABLE note(id INTEGER PRIMARY KEY, who TEXT, text BLOB)")
        databases.append((who, db))
    fresh = start("python").open(":memory:")
    with litestream.Replicate(tmp_path / "one.db", in_folder, tmp_path), \
            litestream.Replicate(tmp_path / "two.db", in_folder, tmp_path):
        def write():
            for who, db in databases:
                db.rows("INSERT INTO note(who, text) VALUES (?, randomblob(2000))", who)
        until(lambda: write() or mixed(fresh, in_folder), 40, "a contradiction", every=0.3)


def test_a_file_of_litestreams_that_contradicts_the_snapshot_is_not_restored(start, tmp_path):
    """Without a lineage: the last file of level 0 is of another database of the same size."""
    replicas = []
    for who in ("one", "two"):
        db = start("python", load=False).open(tmp_path / f"{who}.db")
        db.run("PRAGMA journal_mode=WAL", "CREATE TABLE note(id INTEGER PRIMARY KEY, who TEXT, text BLOB)")
        replica = Location.file(tmp_path / who)
        with litestream.Replicate(tmp_path / f"{who}.db", replica, tmp_path, levels=("1h",), snapshot="1s", l0_retention="1h"):
            for _ in range(4):
                before = replica.last_txid()
                db.rows("INSERT INTO note(who, text) VALUES (?, randomblob(900))", who)
                until(lambda: replica.last_txid() > before, 20, "the next file")
            until(lambda: any(f.max == replica.last_txid() for f in replica.files(9)), 20, "a snapshot")
        replicas.append(replica)
    one, two = replicas
    fresh = start("python").open(":memory:")
    last = f"{one.last_txid():016x}"
    assert mixed(fresh, one) == [] and restore(fresh, one, tmp_path / "good.db")["txid"] == last
    shutil.copy(two.level(0) / f"{last}-{last}.ltx", one.level(0))
    assert {row[0] for row in mixed(fresh, one)} == {"error"}
    with pytest.raises(SqlError, match="two histories lie in one replica"):
        restore(fresh, one, tmp_path / "bad.db")
    assert not (tmp_path / "bad.db").exists()


def test_what_litestream_does_by_right_is_no_contradiction(start, in_folder, tmp_path):
    """WAL restarts, restarts of the sidecar, and writes while it is away."""
    db = start("python", load=False).open(tmp_path / "app.db")
    db.run("PRAGMA journal_mode=WAL", "CREATE TABLE note(id INTEGER PRIMARY KEY, who TEXT, text BLOB)")

    def write(n):
        for _ in range(n):
            db.rows("INSERT INTO note(who, text) VALUES ('one', randomblob(3000))")
            time.sleep(0.03)

    for _ in range(2):
        with litestream.Replicate(tmp_path / "app.db", in_folder, tmp_path) as theirs:
            write(20)
            # Litestream keeps it from being more than a PASSIVE one.
            db.run("PRAGMA busy_timeout=100", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA busy_timeout=10000")
            write(10)
            db.run("DELETE FROM note WHERE id % 3 = 0", "VACUUM")
            theirs.sync()
        write(3)
        db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert in_folder.files(1) and in_folder.files(9)
    fresh = start("python").open(":memory:")
    assert fresh.load().rows("SELECT * FROM litestream_verify(?)", in_folder.full_url) == []
    restore(fresh, in_folder, tmp_path / "restored.db")


def test_a_replica_keeps_its_lineage_when_litestream_goes_on_with_it(start, in_folder, tmp_path):
    """Ours, the sidecar, and ours again without any memory of the first time: one history, which restores."""
    path = tmp_path / "app.db"
    db = project(start, in_folder, path, "one", 3)
    content = db.content()
    db.close()
    [lineage] = lineages(in_folder)
    shutil.rmtree(tmp_path / ".app.db-litestream")
    plain = start("python", load=False).open(path)
    before = in_folder.last_txid()
    with litestream.Replicate(path, in_folder, tmp_path):
        plain.rows("INSERT INTO note(who, text) VALUES ('one', randomblob(900))")
        until(lambda: in_folder.last_txid() > before, 20, "a file of Litestream's")
    plain.close()
    assert lineages(in_folder) == {lineage, 0}
    shutil.rmtree(tmp_path / ".app.db-litestream", ignore_errors=True)
    for file in tmp_path.glob("app.db*"):
        file.unlink()
    fresh = start("python", in_folder).open(":memory:")
    restore(fresh, in_folder, path)
    shutil.rmtree(tmp_path / ".app.db-litestream")
    db = start("python", in_folder).open(in_folder.primary(path))
    db.rows("INSERT INTO note(who, text) VALUES ('one', randomblob(900))")
    sync(db)
    assert lineages(in_folder) == {lineage, 0}
    assert mixed(fresh, in_folder) == []
    restore(fresh, in_folder, tmp_path / "restored.db")
    assert start().open(tmp_path / "restored.db").content() == db.content() != content
