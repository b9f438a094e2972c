"""One file of the replica is damaged: a bad disk, a copy that was cut off.

Whoever meets it treats it as missing from then on: a merge, a snapshot, a verification. Nothing of it gets into
another file, what was before it can be restored still, and the database, which is sound, is sent as a whole so that its
newest state can be restored too.
"""

import re
import shutil
import time

import pytest

from harness.healing import assert_healed, assert_restores, bytes_of, flip, open_primary, reopen, state_of
from harness.litestream import restore as litestream_restore
from harness.sql import insert, restore, sync, txid
from harness.wait import until
from harness.worker import SqlError


def cut(file) -> None:
    file.path.write_bytes(file.path.read_bytes()[:-40])


def cut_to_nothing(file) -> None:
    file.path.write_bytes(b"")


DAMAGE = {"a byte": flip, "a byte of the header": lambda file: flip(file, 0.0), "cut off": cut, "empty": cut_to_nothing}


@pytest.mark.parametrize("ask, damage", [
    ("litestream_resume('force')", "a byte"),
    ("litestream_resume('force')", "empty"),
    ("litestream_snapshot()", "a byte of the header"),
    ("litestream_snapshot()", "cut off"),
])
def test_what_is_damaged_is_healed_when_somebody_asks(start, location, tmp_path, ask, damage):
    open_primary(start, location, tmp_path).close()
    # What this process did not write it does not have in memory.
    db = reopen(start, location, tmp_path)
    last = sync(db)
    before = location.files()[2].max
    DAMAGE[damage](location.files()[3])
    kept = bytes_of(location.files())
    assert txid(db.one(f"SELECT {ask}")) == last + 1
    assert_healed(db, location, tmp_path, last, kept)
    restore(db, location, tmp_path / "before.ours.db", txid=f"{before:016x}")
    litestream_restore(location, tmp_path / "before.theirs.db", txid=before)
    assert (tmp_path / "before.ours.db").read_bytes() == (tmp_path / "before.theirs.db").read_bytes()


def test_what_other_files_lead_around_is_healed_too(start, location, tmp_path):
    """This library restores around it, Litestream does not."""
    db = open_primary(start, location, tmp_path, levels="1s,1h", l0_retention="1h")
    until(lambda: location.files(1), 20, "a merge")
    flip(location.files(1)[0])
    last = sync(db)
    assert txid(db.one("SELECT litestream_resume('force')")) == last + 1
    until(lambda: location.files(9), 20, "a snapshot")
    insert(db)
    assert sync(db) == last + 2
    assert_restores(db, location, tmp_path)
    db.one("SELECT litestream_resume('force')")
    assert sync(db) == last + 2, "once is enough"


@pytest.mark.parametrize("damage", ["a byte", "cut off"])
def test_a_merge_leaves_out_what_is_damaged(start, location, tmp_path, damage):
    open_primary(start, location, tmp_path).close()
    last = location.last_txid()
    damaged = location.files()[3]
    DAMAGE[damage](damaged)
    # What this process merges it did not write.
    db = reopen(start, location, tmp_path, levels="1s,2s")
    insert(db)
    sync(db)
    until(lambda: location.files(9) and location.files(1), 15, "a snapshot and a merge")
    assert all(not f.min <= damaged.min <= f.max for f in location.files(1, 2)), "it was merged"
    assert location.files(1)[0].max == damaged.min - 1, "what is before it is merged without it"
    until(lambda: "had lost transactions" in state_of(db)["notice"], 15, "the end of the healing")
    assert location.last_txid() > last
    until(lambda: "last_error" not in state_of(db), 15, "the end of the error")
    assert_restores(db, location, tmp_path)
    restore(db, location, tmp_path / "before.db", txid=f"{damaged.min - 1:016x}")


def test_a_verification_that_finds_damage_has_it_healed(start, location, tmp_path):
    db = open_primary(start, location, tmp_path, verify_interval="1s")
    flip(location.files()[2])
    insert(db)
    sync(db)
    until(lambda: location.files(9), 20, "a snapshot")
    assert_restores(db, location, tmp_path)


def test_the_newest_file_is_damaged_where_replication_begins(start, location, tmp_path):
    open_primary(start, location, tmp_path).close()
    last = location.last_txid()
    flip(location.files()[-1], 0.0)
    kept = bytes_of(location.files())
    db = reopen(start, location, tmp_path)
    assert sync(db) == last + 1
    assert_healed(db, location, tmp_path, last, kept)


def test_a_damaged_snapshot_is_replaced_by_a_later_one(start, location, tmp_path):
    db = open_primary(start, location, tmp_path)
    first = txid(db.one("SELECT litestream_snapshot()"))
    # What led there beside it is gone by now, as retention has it.
    for file in location.files(0)[:-1]:
        file.path.unlink()
    [snapshot] = location.files(9)
    flip(snapshot)
    kept = bytes_of(location.files())
    assert txid(db.one("SELECT litestream_snapshot()")) == first + 1
    assert_healed(db, location, tmp_path, first, kept)


def test_without_auto_recover_damage_stops_replication(start, location, tmp_path):
    open_primary(start, location, tmp_path).close()
    flip(location.files()[3])
    db = reopen(start, location, tmp_path, levels="1s", auto_recover="false")
    insert(db)
    sync(db)
    until(lambda: state_of(db)["state"] == "stopped", 15, "the end of replication")
    with pytest.raises(SqlError, match="lost transactions.*damaged.*litestream_resume\\('force'\\)"):
        sync(db)
    db.one("SELECT litestream_resume('force')")
    assert_restores(db, location, tmp_path)


def misname(location, file, later: int):
    """A copy of `file` under the name of the `later` transaction."""
    stray = file.path.with_name(f"{later:016x}-{later:016x}.ltx")
    stray.write_bytes(file.path.read_bytes())
    return stray


@pytest.mark.parametrize("way_out", ["remove", "force"])
@pytest.mark.parametrize("later", [1, 4])
@pytest.mark.parametrize("damage", ["a byte of the header", "cut off", "empty", "misnamed"])
def test_a_damaged_file_that_is_named_after_a_later_transaction(start, location, tmp_path, damage, later, way_out):
    """Nothing says what it was. If the database went on before it, its newest state could not be restored: the file ends the
    replica by its name."""
    open_primary(start, location, tmp_path).close()
    last = location.last_txid()
    stray = misname(location, location.files()[-1], last + later)
    if damage != "misnamed":
        DAMAGE[damage](next(f for f in location.files() if f.path == stray))
    kept = bytes_of(location.files())
    db = reopen(start, location, tmp_path)
    insert(db)
    for _ in range(2):
        with pytest.raises(SqlError, match=f"ends with level 0 file .*{last + later:016x}.*damaged.*litestream_resume\\(\\)"):
            sync(db)
    assert bytes_of(location.files()) == kept
    if way_out == "remove":
        stray.unlink()
        db.one("SELECT litestream_resume()")
        assert sync(db) == last + 1
        assert_restores(db, location, tmp_path)
    else:
        db.one("SELECT litestream_resume('force')")
        assert sync(db) == last + later + 1
        assert_restores(db, location, tmp_path)
        insert(db)
        sync(db)
        assert_restores(db, location, tmp_path, "later")
        assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize("auto_recover", ["true", "false"])
@pytest.mark.parametrize("which", [-1, 3], ids=["the newest", "one before"])
@pytest.mark.parametrize("damage", ["a byte of the header", "a byte", "gone"])
def test_a_state_before_the_damage_is_restored_and_said_to_be_the_present(start, location, tmp_path, damage, which, auto_recover):
    """At 3 a.m.: the last state cannot be restored, one before it can, and life goes on from there."""
    open_primary(start, location, tmp_path).close()
    last = location.last_txid()
    file = location.files()[which]
    file.path.unlink() if damage == "gone" else DAMAGE[damage](file)
    host = start("python", location)
    memory = host.open(":memory:")
    restore(memory, location, tmp_path / "app2.db", txid=f"{file.max - 1:016x}", rewind=True)
    db = host.open(location.primary(tmp_path / "app2.db", close_timeout="30s", sync_interval="50ms", auto_recover=auto_recover))
    insert(db)
    assert sync(db) >= location.last_txid() >= last
    assert "last_error" not in state_of(db)
    assert_restores(db, location, tmp_path)


@pytest.mark.parametrize("ask", ["litestream_resume('force')", "litestream_snapshot()", "litestream_resume()", None])
@pytest.mark.parametrize("later", [1, 4])
@pytest.mark.parametrize("damage", ["a byte of the header", "empty", "misnamed"])
def test_it_comes_while_the_database_is_open(start, location, tmp_path, damage, later, ask):
    """A look that somebody asks for meets it, or the file that is to get its name does."""
    db = open_primary(start, location, tmp_path)
    last = sync(db)
    stray = misname(location, location.files()[-1], last + later)
    if damage != "misnamed":
        DAMAGE[damage](next(f for f in location.files() if f.path == stray))
    says = f"ends with level 0 file .*{last + later:016x}.*damaged.*litestream_resume\\('force'\\)"
    if ask:
        with pytest.raises(SqlError, match=says):
            db.one(f"SELECT {ask}")
    for _ in range(later):
        if not ask:
            insert(db)
        try:
            sync(db)
        except SqlError as e:
            assert re.search(says, str(e)), e
            break
    else:
        pytest.fail("nobody noticed it")
    assert state_of(db)["state"] == "stopped"
    db.one("SELECT litestream_resume('force')")
    assert sync(db) > last + later
    insert(db)
    sync(db)
    assert_restores(db, location, tmp_path)


def test_an_earlier_database_whose_newest_state_is_damaged(start, location, tmp_path):
    """It is not brought forward, now or after a retry, and what can be restored is said."""
    db = open_primary(start, location, tmp_path)
    sync(db)
    db.close()
    db.worker.end()
    shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name} before"), ignore=lambda _, names: {"replica"} & {*names})
    db = reopen(start, location, tmp_path)
    insert(db)
    last = sync(db)
    db.close()
    db.worker.end()
    before = tmp_path.with_name(f"{tmp_path.name} before")
    for name in ("app.db", ".app.db-litestream"):
        old, new = before / name, tmp_path / name
        shutil.rmtree(new) if new.is_dir() else new.unlink()
        shutil.copytree(old, new) if old.is_dir() else shutil.copy2(old, new)
    flip(location.files()[-1])
    db = reopen(start, location, tmp_path)
    for _ in range(2):
        with pytest.raises(SqlError, match=f"an earlier state.*not brought forward: .*{last:016x}.ltx.*without it.*restore up to"):
            sync(db)


@pytest.mark.parametrize("level", [0, 1])
def test_a_time_before_the_damaged_file_is_restored(start, location, tmp_path, level):
    """A header that cannot be read tells no time: those beside it do."""
    db = open_primary(start, location, tmp_path, levels="1s,1h", l0_retention="1h")
    until(lambda: location.files(1), 20, "a merge")
    before = location.last_txid()
    merged = {f.path for f in location.files(1)}
    time.sleep(0.05)
    moment = db.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
    expected = db.content()
    time.sleep(0.05)
    insert(db)
    sync(db)
    until(lambda: {f.path for f in location.files(1)} - merged, 20, "another merge")
    db.close()
    [damaged] = [f for f in location.files(level) if f.min > before][-1:]
    flip(damaged, 0.0)
    restored = tmp_path / "restored.db"
    memory = start("python", location).open(":memory:")
    restore(memory, location, restored, timestamp=moment)
    assert start().open(restored).content() == expected
