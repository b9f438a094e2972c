"""Packs: a primary puts the pages that every look-up begins with beside its large files, below `vfs/` in the replica.

A reader that finds one needs one round trip for a row, as it does without one in the end. Nothing depends on a pack: whatever
is in its place costs time and never a wrong row. Litestream does not know of them and leaves them alone.
"""

import json
import random
import shutil
import sqlite3
import time

import pytest

from harness import litestream, ltx4
from harness.location import Location, Ltx
from harness.paths import ROOT
from harness.proxy import CutBody, Hang, LateAnswer, Status, Trickle
from harness.sql import fill, insert, restore, sync
from harness.wait import until

ROWS = 30_000
ROW = "SELECT id, name, length(data) FROM t WHERE id = ?"
KEY = json.loads((ROOT / "tests" / "golden" / "ltx4" / "keys.json").read_text())[0]
SCHEMA = "SELECT count(*) FROM sqlite_schema"
QUIET = {"poll_interval": "1h"}


def packs(location: Location) -> list[str]:
    folder = location.folder / "vfs"
    return sorted(path.name for path in folder.glob("*.pack")) if folder.is_dir() else []


def pack_of(file: Ltx) -> str:
    return f"{file.level}-{file.min:016x}-{file.max:016x}.pack"


def path_of(location: Location, file: Ltx):
    return location.folder / "vfs" / pack_of(file)


def plain(path, rows: int = ROWS):
    """A database that nobody replicates yet."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB); CREATE INDEX t_name ON t(name)")
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
                   " INSERT INTO t(name, data) SELECT 'row ' || i, randomblob(400) FROM n", (rows,))
    db.close()
    return path


@pytest.fixture
def primary(start, location, tmp_path):
    """A primary whose replica begins with one large file, and its pack."""
    db = start("python", location).open(location.primary(plain(tmp_path / "app.db")))
    sync(db)
    until(lambda: packs(location), 20, "the pack")
    return db


def requests_of_rows(start, location, proxy, **parameters) -> int:
    """The requests of a fresh process for twenty rows here and there, after its open."""
    db = start("python", location).open(location.replica(**QUIET, **parameters))
    assert db.one(SCHEMA) == 2
    before = len(proxy.requests)
    pick = random.Random(3)
    for _ in range(20):
        row = pick.randrange(1, ROWS)
        assert db.rows(ROW, row) == [[row, f"row {row}", 400]]
    return len(proxy.requests) - before


@pytest.mark.parametrize("location", ["s3"], indirect=True)
def test_a_row_takes_one_request(start, primary, location, through_proxy, proxy):
    with_pack = requests_of_rows(start, through_proxy, proxy)
    assert len([r for r in proxy.requests if "/vfs/" in r.target]) == 1
    without = requests_of_rows(start, through_proxy, proxy, pack="off")
    assert len([r for r in proxy.requests if "/vfs/" in r.target]) == 1, "pack=off asks for none"
    assert with_pack <= 21 < without


@pytest.mark.parametrize("location", ["s3"], indirect=True)
def test_it_comes_in_the_round_of_the_page_index(start, primary, location, through_proxy, proxy):
    proxy.delay = 0.5
    db = start("python", through_proxy).open(through_proxy.replica(**QUIET))
    assert db.one(SCHEMA) == 2
    gets = [request for request in proxy.requests if request.kind == "GET"]
    assert any("/vfs/" in request.target for request in gets)
    assert max(r.at for r in gets) - min(r.at for r in gets) < proxy.delay, [r.target for r in gets]


@pytest.mark.parametrize("location", ["s3"], indirect=True)
@pytest.mark.parametrize("fault", [Hang(), Trickle(7, 1), CutBody(1000), LateAnswer(3), Status(403), Status(500),
                                   Status(200, b"<html>")],
                         ids=["silence", "trickles", "cut", "late", "denied", "broken", "something else"])
def test_a_store_that_does_not_give_it_holds_nobody_up(start, primary, location, through_proxy, proxy, fault):
    proxy.fault = lambda request: fault if "/vfs/" in request.target else None
    began = time.monotonic()
    db = start("python", through_proxy).open(through_proxy.replica(**QUIET))
    assert db.one(SCHEMA) == 2
    assert time.monotonic() - began < 4
    assert db.content() == primary.content()


def test_each_large_full_copy_gets_one_and_small_files_none(start, primary, location):
    first = location.files(0)[0]
    assert packs(location) == [pack_of(first)]
    insert(primary)
    sync(primary)
    primary.one("SELECT litestream_snapshot()")
    assert packs(location) == [pack_of(first), pack_of(location.files(9)[0])]
    reader = start("python", location).open(location.replica())
    assert reader.content() == primary.content()


def test_a_small_database_has_none(start, location, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    db.one("SELECT litestream_snapshot()")
    db.close()
    assert packs(location) == []


def test_with_pack_off_none_is_written(start, location, tmp_path):
    db = start("python", location).open(location.primary(plain(tmp_path / "app.db"), pack="off"))
    sync(db)
    db.one("SELECT litestream_snapshot()")
    db.close()
    assert location.files(9) or location.files(0)[0].size > 1 << 20
    assert packs(location) == []


def cut(data: bytes) -> bytes:
    return data[:len(data) // 2]


def flipped(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]


def later(data: bytes) -> bytes:
    return b"LSVPACK9" + data[8:]


@pytest.mark.parametrize("damage", [cut, flipped, later, lambda _: b"", lambda data: data * 50],
                         ids=["cut", "a bit", "of a later version", "empty", "large"])
def test_a_damaged_pack_costs_time_only(start, host, in_folder, tmp_path, damage):
    db = start("python", in_folder).open(in_folder.primary(plain(tmp_path / "app.db")))
    sync(db)
    until(lambda: packs(in_folder), 20, "the pack")
    path = path_of(in_folder, in_folder.files(0)[0])
    path.write_bytes(damage(path.read_bytes()))
    reader = start(host, in_folder).open(in_folder.replica())
    assert reader.content() == db.content()


def test_a_pack_of_another_database_costs_time_only(start, host, in_folder, tmp_path):
    db = start("python", in_folder).open(in_folder.primary(plain(tmp_path / "app.db")))
    sync(db)
    elsewhere = Location.file(tmp_path / "elsewhere")
    other = start("python", elsewhere).open(elsewhere.primary(plain(tmp_path / "other.db")))
    sync(other)
    until(lambda: packs(in_folder) and packs(elsewhere), 20, "the packs")
    ours, theirs = (path_of(place, place.files(0)[0]) for place in (in_folder, elsewhere))
    assert ours.name == theirs.name and ours.read_bytes() != theirs.read_bytes()
    shutil.copy(theirs, ours)
    reader = start(host, in_folder).open(in_folder.replica())
    assert reader.content() == db.content()


def test_a_pack_of_an_earlier_or_a_later_state_costs_time_only(start, host, in_folder, tmp_path):
    db = start("python", in_folder).open(in_folder.primary(plain(tmp_path / "app.db")))
    first = sync(db)
    db.one("SELECT litestream_snapshot()")
    then = db.content()
    # The same pages have other rows, and the interior pages of the index other keys.
    db.run("UPDATE t SET name = 'again ' || (30001 - id)")
    sync(db)
    db.one("SELECT litestream_snapshot()")
    earlier, later = in_folder.files(9)
    contents = {file: path_of(in_folder, file).read_bytes() for file in (earlier, later)}
    assert contents[earlier] != contents[later]
    path_of(in_folder, earlier).write_bytes(contents[later])
    path_of(in_folder, later).write_bytes(contents[earlier])
    worker = start(host, in_folder)
    assert worker.open(in_folder.replica()).content() == db.content()
    past = worker.open(in_folder.replica(asof=f"{first:016x}"), "past")
    assert past.content() == then


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "encrypted"])
def test_a_bit_that_is_another_at_a_thousand_places_costs_time_only(start, in_folder, tmp_path, identity, sealed):
    settings = {"age_recipient": KEY["recipient"]} if sealed else {}
    db = start("python", in_folder).open(in_folder.primary(plain(tmp_path / "app.db", 2600), **settings))
    sync(db)
    until(lambda: packs(in_folder), 20, "the pack")
    path, source, pick = path_of(in_folder, in_folder.files(0)[0]), db.content(), random.Random(19)
    good = path.read_bytes()
    worker = start("python", in_folder)
    for n, at in enumerate(pick.sample(range(len(good)), 1000)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << pick.randrange(8)]) + good[at + 1:])
        # By a URL of its own, so that it shares nothing with the reader before.
        link = tmp_path / f"link-{n}"
        link.symlink_to(in_folder.folder)
        reader = worker.open(Location.file(link).replica(**QUIET, **({"age_identity_file": identity} if sealed else {})))
        assert reader.content() == source, f"byte {at}"
        reader.close()


def test_retention_removes_it_with_its_file_and_what_others_left(start, location, tmp_path):
    uri = location.primary(plain(tmp_path / "app.db"), levels="1s", snapshot_interval="1s", snapshot_retention="1s",
                           l0_retention="1s", sync_interval="50ms")
    db = start("python", location).open(uri)
    sync(db)
    first = pack_of(location.files(0)[0])
    until(lambda: first in packs(location), 20, "the pack")
    orphan = location.folder / "vfs" / "9-0000000000000001-0000000000ffffff.pack"
    shutil.copy(location.folder / "vfs" / first, orphan)

    def tidy() -> bool:
        insert(db)
        sync(db)
        there = packs(location)
        return first not in there and orphan.name not in there and len(there) > 0

    until(tidy, 60, "packs of files that are gone are removed", every=0.3)
    db.close()
    assert {pack for pack in packs(location) if pack.startswith("9-")} <= {pack_of(file) for file in location.files(9)}


def test_litestream_restores_reads_and_leaves_them_alone(start, primary, location, tmp_path):
    primary.one("SELECT litestream_snapshot()")
    insert(primary)
    sync(primary)
    before = {name: (location.folder / "vfs" / name).read_bytes() for name in packs(location)}
    assert len(before) == 2
    source = primary.content()
    restored = litestream.restore(location, tmp_path / "theirs.db")
    assert primary.worker.open(restored, "theirs").content() == source
    restore(primary, location, tmp_path / "ours.db")
    assert primary.worker.open(tmp_path / "ours.db", "ours").content() == source
    last = primary.one("SELECT max(id) FROM t")
    for row in (1, ROWS // 2, last):
        assert litestream.by_vfs(location, lambda db: db.rows(ROW, row)) == primary.rows(ROW, row)
    assert {name: (location.folder / "vfs" / name).read_bytes() for name in packs(location)} == before


def test_the_sidecar_goes_on_and_an_outdated_pack_is_ignored_and_removed_later(start, host, location, tmp_path):
    worker = start("python", location)
    db = worker.open(location.primary(plain(tmp_path / "app.db")))
    sync(db)
    until(lambda: packs(location), 20, "the pack")
    before = packs(location)
    content = [(location.folder / "vfs" / name).read_bytes() for name in before]
    worker.end()
    program = start("python", load=False).open(tmp_path / "app.db", "program")
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path) as sidecar:
        for _ in range(30):
            insert(program, 20)
            sidecar.sync()
        until(lambda: {1, 2, 9} <= sidecar.compacted(), 60, "its levels and a snapshot")
        source = program.content()
        sidecar.sync()
        assert packs(location) == before
        assert [(location.folder / "vfs" / name).read_bytes() for name in before] == content
        reader = start(host, location).open(location.replica())
        assert reader.content() == source
    program.worker.end()
    # What it was made of goes, as Litestream's retention would have it in the end.
    for file in location.files():
        if pack_of(file) in before:
            file.path.unlink()
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    insert(db)
    sync(db)
    db.one("SELECT litestream_snapshot()")
    until(lambda: not set(before) & set(packs(location)), 20, "the outdated pack is removed")
    reader = start(host, location).open(location.replica("again.db"))
    assert reader.content() == db.content()


@pytest.fixture
def identity(tmp_path) -> str:
    path = tmp_path / "key.txt"
    path.write_text(KEY["identity"] + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("location", ["s3"], indirect=True)
def test_a_row_of_an_encrypted_replica_takes_one_request(start, location, through_proxy, proxy, tmp_path, identity):
    db = start("python", location).open(location.primary(plain(tmp_path / "app.db"), age_recipient=KEY["recipient"]))
    sync(db)
    until(lambda: packs(location), 20, "the pack")
    with_pack = requests_of_rows(start, through_proxy, proxy, age_identity_file=identity)
    assert len([r for r in proxy.requests if "/vfs/" in r.target]) == 1
    without = requests_of_rows(start, through_proxy, proxy, age_identity_file=identity, pack="off")
    assert with_pack <= 21 < without


@pytest.mark.parametrize("sealed", [True, False])
def test_nothing_of_the_rows_is_in_the_pack_of_an_encrypted_replica(start, in_folder, tmp_path, sealed):
    path = plain(tmp_path / "app.db")
    with sqlite3.connect(path) as program:
        program.execute("UPDATE t SET name = randomblob(16)")
        tokens = [token for token, in program.execute("SELECT name FROM t")]
    program.close()
    settings = {"age_recipient": KEY["recipient"]} if sealed else {}
    db = start("python", in_folder).open(in_folder.primary(path, **settings))
    sync(db)
    until(lambda: packs(in_folder), 20, "the pack")
    data = path_of(in_folder, in_folder.files(0)[0]).read_bytes()
    # The keys of the interior pages of the index.
    assert (sum(token in data for token in tokens) > 50) is not sealed


def test_another_program_opens_each_pack_of_an_encrypted_replica(start, in_folder, tmp_path, identity):
    db = start("python", in_folder).open(in_folder.primary(
        plain(tmp_path / "app.db"), age_recipient=KEY["recipient"], levels="1s,2s", sync_interval="50ms"))
    sync(db)
    until(lambda: packs(in_folder), 20, "the pack")
    orphan = in_folder.folder / "vfs" / "9-0000000000000001-0000000000ffffff.pack"
    shutil.copy(in_folder.folder / "vfs" / packs(in_folder)[0], orphan)
    db.one("SELECT litestream_snapshot()")
    assert [name for name in packs(in_folder) if name.startswith("9-")] == [pack_of(file) for file in in_folder.files(9)]
    db.run("UPDATE t SET data = randomblob(401)")
    sync(db)
    until(lambda: insert(db) or sync(db) and any(name.startswith("2-") for name in packs(in_folder)), 30, "the pack of a merge", every=0.3)
    names, seen = set(packs(in_folder)), set()
    for file in in_folder.files():
        if pack_of(file) not in names:
            continue
        pack, data = path_of(in_folder, file).read_bytes(), file.path.read_bytes()
        key = ltx4.content_key(data, bytes.fromhex(KEY["private_hex"]))
        found = ltx4.pack(pack, data, key)
        assert found and all(data[offset:offset + len(frame)] == frame for offset, frame in found.values())
        with pytest.raises(ltx4.Refused):
            ltx4.pack(pack, data, bytes(32))
        seen.add(file.level)
    assert {2, 9} <= seen, seen
    reader = start("python", in_folder).open(in_folder.replica(age_identity_file=identity))
    assert reader.content() == db.content()


def test_a_plain_pack_in_an_encrypted_replica_costs_time_only(start, host, in_folder, tmp_path, identity):
    elsewhere = Location.file(tmp_path / "elsewhere")
    other = start("python", elsewhere).open(elsewhere.primary(plain(tmp_path / "other.db")))
    db = start("python", in_folder).open(in_folder.primary(plain(tmp_path / "app.db"), age_recipient=KEY["recipient"]))
    for one in (db, other):
        sync(one)
    until(lambda: packs(in_folder) and packs(elsewhere), 20, "the packs")
    shutil.copy(path_of(elsewhere, elsewhere.files(0)[0]), path_of(in_folder, in_folder.files(0)[0]))
    reader = start(host, in_folder).open(in_folder.replica(age_identity_file=identity))
    assert reader.content() == db.content()
