"""Somebody asks whether a backup would restore, before it is needed.

Real replicas, ours and Litestream's, are damaged on purpose: each damage is found and named, and sound
replicas have no findings.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import litestream
from harness.location import Location, Ltx
from harness.sql import fill, insert, sync
from harness.wait import until

ERROR, WARNING = "error", "warning"


def verify(db, location: Location, **options) -> list[tuple]:
    """Severity, problem, level and name of each finding."""
    return [tuple(row[:4]) for row in findings(db, location, **options)]


def findings(db, location: Location, **options) -> list[list]:
    return db.load().rows("SELECT * FROM litestream_verify(?, ?)", location.full_url, json.dumps(options))


def ours(start, location: Location, folder: Path, page_size: int = 4096) -> None:
    """A replica that a primary of ours wrote: one file for each sync."""
    writer = start("python", location)
    plain = writer.open(folder / "app.db", "plain")
    plain.run(f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL")
    plain.close()
    primary = writer.open(location.primary(folder / "app.db"))
    fill(primary, rows=300)
    for _ in range(5):
        sync(primary)
        insert(primary, rows=10)
    sync(primary)
    primary.close()


UNCOMPACTED = {"levels": ("1h",), "snapshot": "1h", "l0_retention": "1h"}


def litestreams(start, location: Location, folder: Path, page_size: int = 4096, **intervals) -> None:
    """A replica that Litestream wrote, compacted unless the intervals say otherwise."""
    source = start("python", load=False).open(folder / "app.db")
    source.run(f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL")
    fill(source, rows=300)
    with litestream.Replicate(folder / "app.db", location, folder, **intervals) as theirs:
        for _ in range(6):
            before = location.last_txid()
            insert(source, rows=10)
            until(lambda: location.last_txid() > before, 15, "litestream's next file")
        if intervals != UNCOMPACTED:
            wanted = {0, 1} if intervals else {0, 1, 2, 9}
            until(lambda: wanted <= theirs.compacted(), 30, "litestream's compaction")
    source.close()


WRITERS = {
    "ours": ours,
    "litestream": lambda start, location, folder: litestreams(start, location, folder, **UNCOMPACTED),
}


@pytest.fixture(params=sorted(WRITERS))
def replica(request, start, location, tmp_path) -> Location:
    """A sound replica with at least five files in level 0, and what only they hold."""
    WRITERS[request.param](start, location, tmp_path)
    assert len(location.files(0)) >= 5
    return location


@pytest.fixture
def db(start, location):
    return start("python", location).open(":memory:")


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 16384, 65536])
@pytest.mark.parametrize("write", [ours, litestreams])
def test_a_sound_replica_has_no_findings(write, page_size, start, db, location, tmp_path):
    write(start, location, tmp_path, page_size)
    assert findings(db, location) == []
    assert findings(db, location, quick=True) == []


def flip(file: Ltx, at: int) -> None:
    data = bytearray(file.path.read_bytes())
    data[at] ^= 0x20
    file.path.write_bytes(data)


def index_at(file: Ltx) -> int:
    """Where the page index begins: its size stands before the trailer."""
    end = file.size - 24
    return end - int.from_bytes(file.path.read_bytes()[end:end + 8], "big")


DAMAGES: dict[str, Callable[[Ltx], None]] = {
    # The rows are random bytes, so the middle of a file is a page's own content.
    "a page": lambda file: flip(file, file.size // 2),
    "the header": lambda file: flip(file, 90),
    "the index": lambda file: flip(file, index_at(file) + 3),
    "the size of the index": lambda file: flip(file, file.size - 17),
    "the trailer": lambda file: flip(file, file.size - 3),
    "the end": lambda file: file.path.write_bytes(file.path.read_bytes()[: file.size // 2]),
    "all": lambda file: file.path.write_bytes(b""),
}


def test_damage_within_a_file_is_found(replica, db):
    files = sorted(replica.files(), key=lambda file: file.size)
    for file in (files[-1], files[0]):
        sound = file.path.read_bytes()
        for where, damage in DAMAGES.items():
            damage(file)
            assert verify(db, replica) == [(ERROR, "corrupt", file.level, file.path.name)], where
            if where not in ("a page", "the header", "the trailer"):
                assert verify(db, replica, quick=True) == [(ERROR, "corrupt", file.level, file.path.name)], where
            file.path.write_bytes(sound)
    assert findings(db, replica) == []


def test_a_missing_file_is_found(replica, db):
    middle = replica.files(0)[2]
    middle.path.unlink()
    for quick in (False, True):
        [(severity, problem, _, _, first, last, message)] = findings(db, replica, quick=quick)
        assert (severity, problem) == (ERROR, "gap")
        assert (int(first, 16), int(last, 16)) == (middle.min, middle.max)
        assert first in message


def test_a_missing_file_that_another_level_makes_up_for_is_a_warning(start, db, location, tmp_path):
    litestreams(start, location, tmp_path, levels=("1s",), snapshot="1h", l0_retention="1h")
    compacted = max(file.max for file in location.files(1))
    middle = [file for file in location.files(0) if 1 < file.min and file.max < compacted][0]
    middle.path.unlink()
    assert [(severity, problem) for severity, problem, *_ in findings(db, location)] == [(WARNING, "gap")]


def test_overlapping_files_are_found(start, db, location, tmp_path):
    litestreams(start, location, tmp_path, levels=("1s",), snapshot="1h", l0_retention="1h")
    merged = [file for file in location.files(1) if file.max > file.min][0]
    assert findings(db, location) == [], "that levels overlap is what compaction does"
    # A sound file where it does not belong.
    shutil.copy(merged.path, location.level(0) / merged.path.name)
    found = verify(db, location)
    assert found and all(row[:3] == (ERROR, "overlap", 0) for row in found), found


def test_a_wrong_name_is_found(replica, db):
    last = replica.files(0)[-1]
    wrong = last.path.with_name(f"{last.min + 1:016x}-{last.max + 1:016x}.ltx")
    last.path.rename(wrong)
    for quick in (False, True):
        assert (ERROR, "name", 0, wrong.name) in verify(db, replica, quick=quick)
        assert (ERROR, "gap") in [row[:2] for row in verify(db, replica, quick=quick)]
    wrong.rename(last.path)
    stray = shutil.copy(last.path, last.path.with_name("copy.ltx"))
    [(severity, problem, level, name)] = verify(db, replica)
    assert (severity, problem, level) == (WARNING, "stray", None) and name.endswith("/copy.ltx")
    Path(stray).unlink()
    assert findings(db, replica) == []


def test_a_primary_proves_in_the_background_that_its_replica_restores(start, in_folder, tmp_path):
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", verify_interval="300ms"))
    fill(primary)
    last = f"{sync(primary):016x}"

    def status():
        return dict(zip(("proven", "at", "error"), primary.rows(
            "SELECT verified_txid, verified_at, last_error FROM litestream_status")[0], strict=True))

    until(lambda: status()["proven"] == last, 20, "the proof of what is in the replica")
    assert status()["at"].startswith("20") and status()["error"] is None
    # Somebody damages what is there, and the next proof tells.
    largest = max(in_folder.files(), key=lambda file: file.size)
    flip(largest, largest.size // 2)
    insert(primary)
    sync(primary)
    until(lambda: status()["error"], 20, "the damage to be noticed")
    assert "verification found 1 problem" in status()["error"]
    assert status()["proven"] == last, "what was proven before stays known"


def test_an_empty_replica_and_a_wrong_option_say_so(db, location):
    assert [row[1] for row in findings(db, location)] == ["empty"]
    with pytest.raises(Exception, match="unknown parameter 'fast'"):
        findings(db, location, fast=True)


def test_levels_that_were_shortened_leave_no_gap(start, location, tmp_path):
    """The files of levels that are used no more are left to retention; until then they are no finding."""
    short = dict(snapshot_interval="1s", snapshot_retention="2s", l0_retention="1s", sync_interval="50ms")
    worker = start("python", location)
    db = worker.open(location.primary(tmp_path / "app.db", levels="1s,2s,3s", **short))
    fill(db, rows=20)

    def goes_on() -> None:
        insert(db, 1)
        sync(db)

    until(lambda: goes_on() or location.files(3), 20, "level 3", every=0.05)
    assert findings(db, location) == []
    db.close()
    former = {(file.level, file.max) for file in location.files(2, 3)}
    db = worker.open(location.primary(tmp_path / "app.db", levels="1s", **short))
    last = max(txid for _, txid in former)
    until(lambda: goes_on() or all(file.max > last + 3 for file in location.files(9)), 20, "later snapshots", every=0.05)
    assert findings(db, location) == []
    until(lambda: goes_on() or not location.files(2, 3), 20, "the end of levels 2 and 3", every=0.05)
    assert findings(db, location) == []
    # And the other way round: a level that is used again begins behind all that.
    db.close()
    db = worker.open(location.primary(tmp_path / "app.db", levels="1s,2s", **short))
    until(lambda: goes_on() or location.files(2), 20, "level 2", every=0.05)
    assert findings(db, location) == []
