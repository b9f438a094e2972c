"""A primary that has recipients only: all that it writes is sealed, and it reads back no more than it must.

Files are opened by `harness/ltx4.py`, which is written from the description of the format alone.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from harness import litestream, ltx4
from harness.location import Location
from harness.paths import ROOT
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

KEYS = json.loads((ROOT / "tests" / "golden" / "ltx4" / "keys.json").read_text())
TO = [key["recipient"] for key in KEYS]
SECRETS = [bytes.fromhex(key["private_hex"]) for key in KEYS]
QUICK = {"levels": "1s,2s,4s", "sync_interval": "20ms", "l0_retention": "3s"}


@pytest.fixture
def identity(tmp_path) -> str:
    path = tmp_path / "key.txt"
    path.write_text(KEYS[0]["identity"] + "\n")
    path.chmod(0o600)
    return str(path)


def recipients_file(folder: Path, *places: int) -> Path:
    path = folder / f"recipients-{'-'.join(map(str, places))}"
    path.write_text("# who may read\n" + "".join(f"{TO[place]}\n" for place in places))
    return path


def content_keys(folder: Path) -> list[bytes]:
    """The content keys that are kept in the folder of local state."""
    [path] = folder.glob(".*-litestream/replicas/*/keys")
    data = path.read_bytes()
    slots = [data[n:n + 96] for n in range(0, len(data), 96)]
    return [slot[56:88] for slot in slots if slot[0] and slot[2]]


def opened_here(location: Location, folder: Path) -> list[tuple[int, int, int]]:
    """Level and transactions of the files of a replica that keys which are kept here open."""
    keys, found = content_keys(folder), []
    for file in location.files():
        data = file.path.read_bytes()
        for key in keys:
            try:
                ltx4.pages(data, key, every=1 << 30)
            except ltx4.Refused:
                continue
            found.append((file.level, file.min, file.max))
    return found


def all_sealed(location: Location) -> bool:
    return all(file.path.read_bytes()[:4] == b"LTX4" for file in location.files())


def same(start, location: Location, identity: str, path: Path, expected, **options) -> dict:
    db = start("python", location).open(":memory:").load()
    report = restore(db, location, path, age_identity_file=identity, **options)
    assert start("python", load=False).open(path).content().tables == expected.tables
    return report


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("places", [(0,), (0, 1, 2)])
def test_another_program_opens_each_file(start, in_folder, tmp_path, page_size, places):
    db = start("python", in_folder).open(in_folder.primary(
        tmp_path / "app.db", age_recipients_file=recipients_file(tmp_path, *places), **QUICK))
    db.run(f"PRAGMA page_size={page_size}", "PRAGMA journal_mode=WAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    sync(db)
    for _ in range(3):
        insert_small(db)
        sync(db)
    until(lambda: in_folder.files(1), 20, "a merge")
    assert db.one("SELECT litestream_snapshot()")
    db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    expected = (tmp_path / "app.db").read_bytes()
    files = in_folder.files()
    assert {file.level for file in files} >= {0, 1, 9}
    for file in files:
        data = file.path.read_bytes()
        for place in places:
            assert len(ltx4.content_key(data, SECRETS[place])) == 32
        assert ltx4.pages(data, ltx4.content_key(data, SECRETS[places[-1]]))
        with pytest.raises(ltx4.Refused):
            ltx4.content_key(data, os.urandom(32))
    newest = max((file for file in files if file.level == 9), key=lambda file: file.max).path.read_bytes()
    found = ltx4.pages(newest, ltx4.content_key(newest, SECRETS[0]))
    assert b"".join(page for _, page in sorted(found.items())) == expected


def insert_small(db) -> None:
    db.run("INSERT INTO t(v) SELECT hex(randomblob(60)) FROM (VALUES (1), (2), (3))")


def test_a_database_of_one_page_and_one_of_many_megabytes(start, in_folder, tmp_path, identity):
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", age_recipient=TO[0]))
    db.run("PRAGMA journal_mode=WAL", "PRAGMA user_version=7")
    sync(db)
    for file in in_folder.files(0):
        data = file.path.read_bytes()
        assert list(ltx4.pages(data, ltx4.content_key(data, SECRETS[0]))) == [1]
    # Of more than fits into memory at once: it goes through a waiting file.
    db.run("CREATE TABLE big(v)", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) "
                                  "INSERT INTO big SELECT randomblob(60000) FROM n")
    sync(db, 60)
    large = max(in_folder.files(0), key=lambda file: file.size)
    assert large.size > 20_000_000
    data = large.path.read_bytes()
    assert ltx4.pages(data, ltx4.content_key(data, SECRETS[0]), every=500)
    same(start, in_folder, identity, tmp_path / "r.db", db.content())


def test_no_content_key_and_no_nonce_comes_twice(start, in_folder, tmp_path):
    worker = start("python", in_folder)
    db = worker.open(in_folder.primary(tmp_path / "app.db", age_recipient=TO[0], **QUICK))
    fill(db, rows=5)
    for _ in range(40):
        insert(db)
        sync(db)
    keys, nonces = {}, set()
    for file in in_folder.files():
        data = file.path.read_bytes()
        keys.setdefault(data[100:180], []).append(file.path)
        for nonce in ltx4.nonces(data):
            assert nonce not in nonces
            nonces.add(nonce)
    assert len(keys) >= 40 and all(len(paths) == 1 for paths in keys.values())


def test_the_machine_opens_nothing_that_was_merged_and_no_snapshot(start, in_folder, tmp_path, identity):
    worker = start("python", in_folder)
    uri = in_folder.primary(tmp_path / "app.db", age_recipient=TO[0], snapshot_interval="3s", **QUICK)
    db = worker.open(uri)
    fill(db, rows=5)
    for round_ in range(4):
        for _ in range(30):
            insert(db)
        sync(db)
        if round_ % 2 == 0:
            worker.kill()
            worker = start("python", in_folder)
            db = worker.open(uri)
        until(lambda: in_folder.files(1), 20, "a merge")
    # What the highest level begins with is whole too: a snapshot is due when more came.
    until(lambda: insert(db) or (in_folder.files(3) and in_folder.files(9)), 40, "the highest level, and a snapshot", every=0.2)
    sync(db)
    expected = db.content()
    opened = opened_here(in_folder, tmp_path)
    assert opened, "what is still to be merged opens"
    merged = {level: max((file.max for file in in_folder.files(level + 1)), default=0) for level in (0, 1, 2)}
    for level, _, last in opened:
        assert level < 3 and last > merged[level], (level, last, merged)
    assert all_sealed(in_folder)
    [keys] = tmp_path.glob(".*-litestream/replicas/*/keys")
    assert keys.stat().st_mode & 0o007 == 0
    same(start, in_folder, identity, tmp_path / "r.db", expected)
    db = start("python", in_folder).open(":memory:").load()
    assert db.rows("SELECT * FROM litestream_verify(?, ?)", in_folder.url, json.dumps({"age_identity_file": identity})) == []


def test_a_lost_key_holds_nothing_up(start, in_folder, tmp_path, identity):
    uri = in_folder.primary(tmp_path / "app.db", age_recipient=TO[0], **QUICK)
    worker = start("python", in_folder)
    db = worker.open(uri)
    fill(db, rows=5)
    sync(db)
    insert(db)
    last = sync(db)
    assert last > 1
    worker.kill()
    [keys] = tmp_path.glob(".*-litestream/replicas/*/keys")
    keys.unlink()
    db = start("python", in_folder).open(uri)
    for _ in range(20):
        insert(db)
    sync(db)
    until(lambda: in_folder.files(9), 30, "a snapshot from the database")
    until(lambda: any(file.min > last for file in in_folder.files(1)), 30, "merges go on behind what cannot be read")
    same(start, in_folder, identity, tmp_path / "r.db", db.content())


def tokens_in(folder: Path, tokens: list[bytes], *but: str) -> set[bytes]:
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in but:
            content = path.read_bytes()
            found |= {token for token in tokens if token in content}
    return found


@pytest.mark.parametrize("sealed", [True, False])
def test_nothing_of_the_rows_lies_anywhere(start, through_proxy, in_s3, proxy, tmp_path, sealed):
    """Tokens in rows that are deleted again, with an outage in between; unsealed the same search finds them."""
    tokens = [os.urandom(16) for _ in range(300)]
    settings = {"age_recipient": TO[0]} if sealed else {}
    worker = start("python", through_proxy)
    db = worker.open(through_proxy.primary(tmp_path / "app.db", levels="1s,2s", sync_interval="50ms", **settings))
    db.run("CREATE TABLE t(v)")
    found, database = set(), ("app.db", "app.db-wal", "app.db-shm")

    def look() -> None:
        found.update(tokens_in(tmp_path, tokens, *database), tokens_in(in_s3.folder, tokens))

    for n, token in enumerate(tokens):
        if n == 100:
            proxy.refuse()
        if n == 200:
            proxy.accept()
        db.run(f"INSERT INTO t VALUES (x'{token.hex()}')")
        if n % 10 == 9:
            if n < 100 or n >= 200:
                sync(db, 60)
            look()
    db.run("DELETE FROM t")
    sync(db, 60)
    look()
    worker.kill()
    look()
    assert len(found) == 0 if sealed else len(found) >= 297


def test_waiting_files_are_sealed_and_go_out_after_a_kill(start, through_proxy, in_s3, proxy, tmp_path, identity):
    uri = through_proxy.primary(tmp_path / "app.db", age_recipient=TO[0], sync_interval="50ms")
    worker = start("python", through_proxy)
    db = worker.open(uri)
    fill(db, rows=5)
    sync(db)
    proxy.refuse()

    def waiting() -> list[Path]:
        return list(tmp_path.glob(".*-litestream/replicas/*/spool/*.ltx"))

    def more_wait() -> bool:
        insert(db)
        return len(waiting()) > 4

    until(more_wait, 20, "waiting files", every=0.2)
    assert {path.read_bytes()[:4] for path in waiting()} == {b"LTX4"}
    expected = db.content()
    worker.kill()
    proxy.accept()
    db = start("python", through_proxy).open(uri)
    until(lambda: not waiting(), 30, "all was sent")
    sync(db)
    same(start, in_s3, identity, tmp_path / "r.db", expected)


def refuses(worker, uri: str, match: str, name: str) -> None:
    db = worker.open(uri, name)
    db.run("CREATE TABLE IF NOT EXISTS more(v)", "INSERT INTO more VALUES (1)")
    with pytest.raises(SqlError, match=match):
        db.rows("SELECT litestream_sync(10)")
    db.close()


def test_other_recipients_or_none_publish_nothing(start, in_folder, tmp_path, identity):
    worker = start("python", in_folder)

    def sealed(**settings) -> str:
        return in_folder.primary(tmp_path / "app.db", **settings)

    db = worker.open(sealed(age_recipient=TO[0]))
    fill(db, rows=5)
    sync(db)
    db.close()
    worker.end()
    before = {file.path: file.path.read_bytes() for file in in_folder.files()}
    for n, settings in enumerate(({}, {"age_recipient": TO[1]}, {"age_recipients_file": recipients_file(tmp_path, 0, 1)})):
        worker = start("python", in_folder)
        refuses(worker, sealed(**settings), "is encrypted.*nothing is published", f"other-{n}")
        worker.end()
    assert {file.path: file.path.read_bytes() for file in in_folder.files()} == before
    # Nor where the bucket was wiped, nor to a copy of it where local state is lost.
    shutil.move(in_folder.folder, tmp_path / "aside")
    worker = start("python", in_folder)
    refuses(worker, sealed(), "is encrypted.*nothing is published", "wiped")
    worker.end()
    assert not in_folder.files()
    shutil.rmtree(in_folder.folder, ignore_errors=True)
    shutil.move(tmp_path / "aside", in_folder.folder)
    state = tmp_path / ".app.db-litestream"
    shutil.move(state, tmp_path / "state-aside")
    worker = start("python", in_folder)
    refuses(worker, sealed(), "is encrypted.*nothing plain is published", "lost")
    worker.end()
    shutil.rmtree(state)
    worker = start("python", in_folder)
    db = worker.open(sealed(age_recipient=TO[0]), "lost, sealed")
    db.run("INSERT INTO more VALUES (2)")
    with pytest.raises(SqlError, match="cannot be compared.*identity"):
        db.rows("SELECT litestream_sync(10)")
    assert {file.path: file.path.read_bytes() for file in in_folder.files()} == before
    # The way out without an identity: a full copy.
    db.rows("SELECT litestream_resume('force')")
    sync(db)
    assert all_sealed(in_folder)
    same(start, in_folder, identity, tmp_path / "r.db", db.content())


def test_recipients_are_changed_by_a_word(start, in_folder, tmp_path, identity):

    def uri(place: int) -> str:
        return in_folder.primary(tmp_path / "app.db", age_recipient=TO[place], **QUICK)

    worker = start("python", in_folder)
    db = worker.open(uri(0))
    fill(db, rows=5)
    first = sync(db)
    before = db.content()
    db.close()
    worker.end()
    db = start("python", in_folder).open(uri(1))
    insert(db)
    with pytest.raises(SqlError, match="litestream_resume"):
        sync(db)
    db.rows("SELECT litestream_resume('force')")
    # Nothing was lost, and nobody says so.
    [[notice, since, to]] = db.rows("SELECT notice, sealed_since, sealed_to FROM litestream_status")
    assert "lost" not in notice and f"a full copy of the database is there as {first + 1:016x}" in notice
    assert (since, to) == (f"{1:016x}", TO[1][:12] + "...")
    assert "hole_found" not in db.load().one("SELECT litestream_metrics()")
    insert(db)
    sync(db)
    other = tmp_path / "other.txt"
    other.write_text(KEYS[1]["identity"] + "\n")
    until(lambda: any(file.max > first for file in in_folder.files(9)), 20, "a snapshot at once")
    same(start, in_folder, str(other), tmp_path / "new.db", db.content())
    # Older states are in files for either of them: what was not merged yet was merged for the new ones.
    both = tmp_path / "both.txt"
    both.write_text("".join(f"{key['identity']}\n" for key in KEYS[:2]))
    same(start, in_folder, str(both), tmp_path / "old.db", before, txid=first)
    with pytest.raises(SqlError, match="none of theirs"):
        restore(start("python").open(":memory:").load(), in_folder, tmp_path / "no.db", age_identity_file=identity)


def test_turned_on_for_a_replica_with_a_history(start, in_folder, tmp_path, identity):
    worker = start("python", in_folder)
    db = worker.open(in_folder.primary(tmp_path / "app.db", **QUICK))
    fill(db, rows=5)
    insert(db)
    last = sync(db)
    plain = db.content()
    db.close()
    worker.end()
    before = {file.path for file in in_folder.files()}
    uri = in_folder.primary(tmp_path / "app.db", age_recipient=TO[0], **QUICK)
    worker = start("python", in_folder)
    db = worker.open(uri)
    insert(db)
    sync(db)
    assert f"plain_until={last:016x}" in status(db)
    until(lambda: any(file.max > last for file in in_folder.files(9)), 20, "a snapshot at once")
    for _ in range(10):
        insert(db)
        sync(db)
    until(lambda: any(file.min > last for file in in_folder.files(1)), 20, "a merge of what is sealed")
    for file in in_folder.files():
        # A snapshot that was due already is of the last plain state, and sealed.
        assert file.path in before or file.path.read_bytes()[:4] == b"LTX4", file
    same(start, in_folder, identity, tmp_path / "new.db", db.content())
    same(start, in_folder, identity, tmp_path / "old.db", plain, txid=last, plain_until=last)
    [row] = db.rows("SELECT sealed_since, sealed_to FROM litestream_status")
    assert list(row) == [f"{last + 1:016x}", TO[0][:12] + "..."]
    # Level 1 continues behind what was not encrypted: that is no gap.
    options = json.dumps({"age_identity_file": identity, "plain_until": last})
    reader = start("python", load=False).open(":memory:").load()
    assert reader.rows("SELECT severity, message FROM litestream_verify(?, ?)", in_folder.url, options) == []
    worker.end()
    db = start("python", in_folder).open(uri)
    insert(db)
    sync(db)
    same(start, in_folder, identity, tmp_path / "again.db", db.content())


def test_each_replica_has_its_own_recipients_or_none(start, tmp_path, identity):
    sealed, plain = Location.file(tmp_path / "sealed"), Location.file(tmp_path / "plain")
    worker = start("python")
    db = worker.open(f"file:{tmp_path}/app.db?vfs=litestream&replica={sealed.url}%3Fage_recipient={TO[0]}&replica={plain.url}")
    fill(db, rows=50)
    for _ in range(5):
        insert(db)
        sync(db)
    assert all_sealed(sealed) and {file.path.read_bytes()[:4] for file in plain.files()} == {b"LTX1"}
    same(start, sealed, identity, tmp_path / "r.db", db.content())
    nonces = [nonce for file in sealed.files() for nonce in ltx4.nonces(file.path.read_bytes())]
    assert len(nonces) == len(set(nonces))


def test_a_file_that_somebody_else_put_there_is_none_of_ours(start, in_folder, tmp_path):
    """A file with the name of the next transaction, sealed for the same recipient: replication stops."""
    uri = in_folder.primary(tmp_path / "app.db", age_recipient=TO[0])
    other = Location.file(tmp_path / "elsewhere")
    foreign = start("python").open(other.primary(tmp_path / "foreign.db", age_recipient=TO[0]))
    db = start("python", in_folder).open(uri)
    for one in (foreign, db):
        fill(one, rows=5)
        sync(one)
    last = sync(db)
    while sync(foreign) <= last:
        insert(foreign)
    for file in other.files(0):
        if file.min > last:
            shutil.copy(file.path, in_folder.level(0) / file.path.name)
    insert(db)
    with pytest.raises(SqlError, match="another primary"):
        sync(db)


def test_a_restored_database_goes_on(start, in_folder, tmp_path, identity):
    """What a restore leaves says where the database is, without a key."""
    worker = start("python", in_folder)
    db = worker.open(in_folder.primary(tmp_path / "app.db", age_recipient=TO[0]))
    fill(db, rows=5)
    sync(db)
    db.close()
    worker.end()
    worker = start("python", in_folder)
    restore(worker.open(":memory:"), in_folder, tmp_path / "new.db", age_identity_file=identity)
    db = worker.open(in_folder.primary(tmp_path / "new.db", age_recipient=TO[0]), "restored")
    insert(db)
    sync(db)
    same(start, in_folder, identity, tmp_path / "r.db", db.content())


def test_with_an_identity_for_one_open_a_lost_state_folder_costs_nothing(start, in_folder, tmp_path, identity):
    worker = start("python", in_folder)
    db = worker.open(in_folder.primary(tmp_path / "app.db", age_recipient=TO[0]))
    fill(db, rows=5)
    sync(db)
    db.close()
    worker.end()
    last = in_folder.last_txid()
    shutil.rmtree(tmp_path / ".app.db-litestream")
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", age_recipient=TO[0], age_identity_file=identity))
    insert(db)
    assert sync(db) == last + 1
    same(start, in_folder, identity, tmp_path / "r.db", db.content())


def test_an_earlier_state_is_brought_forward_with_an_identity_only(start, in_folder, tmp_path, identity):
    """Another machine took over, and the first one comes back."""
    first, second = tmp_path / "first", tmp_path / "second"

    def uri(machine: Path, **settings) -> str:
        return in_folder.primary(machine / "app.db", age_recipient=TO[0], **settings)

    for machine, work in ((first, fill), (second, insert)):
        machine.mkdir()
        worker = start("python", in_folder)
        if work is insert:
            restore(worker.open(":memory:", "restore").load(), in_folder, machine / "app.db", age_identity_file=identity)
        db = worker.open(uri(machine))
        work(db)
        sync(db)
        latest = db.content()
        db.close()
        worker.end()
    worker = start("python", in_folder)
    db = worker.open(uri(first))
    with pytest.raises(SqlError, match="earlier state.*age_identity_file"):
        db.rows("SELECT litestream_sync(10)")
    db.close()
    worker.end()
    db = start("python", in_folder).open(uri(first, age_identity_file=identity))
    sync(db)
    assert db.content() == latest


def test_a_hole_is_healed_without_an_identity(start, in_folder, tmp_path, identity):
    uri = in_folder.primary(tmp_path / "app.db", age_recipient=TO[0])
    worker = start("python", in_folder)
    db = worker.open(uri)
    fill(db, rows=5)
    for _ in range(3):
        sync(db)
        insert(db)
    sync(db)
    in_folder.files(0)[1].path.unlink()
    worker.kill()
    worker = start("python", in_folder)
    db = worker.open(uri)
    insert(db)
    sync(db)
    until(lambda: in_folder.files(9), 20, "a full copy that is a snapshot")
    assert all_sealed(in_folder)
    same(start, in_folder, identity, tmp_path / "r.db", db.content())
    # And where the newest is gone.
    max(in_folder.files(), key=lambda file: file.max).path.unlink()
    for file in [file for file in in_folder.files() if file.max == in_folder.last_txid]:
        file.path.unlink()
    worker.kill()
    db = start("python", in_folder).open(uri)
    insert(db)
    sync(db)
    same(start, in_folder, identity, tmp_path / "s.db", db.content())


def test_another_process_takes_over(start, in_folder, tmp_path, identity):
    uri = in_folder.primary(tmp_path / "app.db", age_recipient=TO[0], **QUICK)
    first, second = start("python", in_folder), start("python", in_folder)
    db = first.open(uri)
    fill(db, rows=5)
    sync(db)
    other = second.open(uri)
    insert(other)
    sync(other)
    before = other.content()
    first.kill()
    insert(other)
    until(lambda: sync(other, 20) > 2, 30, "what the other one sent")
    until(lambda: in_folder.files(1), 20, "a merge by keys of both")
    assert other.content() != before and all_sealed(in_folder)
    same(start, in_folder, identity, tmp_path / "r.db", other.content())
    # One that has another list, or none, stands by and never publishes.
    third = start("python", in_folder)
    plain = third.open(in_folder.primary(tmp_path / "app.db", **QUICK))
    second.kill()
    count = len(in_folder.files(0))
    insert(plain)
    with pytest.raises(SqlError, match="is encrypted"):
        until(lambda: sync(plain, 5) and False, 30, "an error")
    assert all_sealed(in_folder) and len(in_folder.files(0)) <= count


def test_litestream_itself_opens_nothing_of_it(start, in_folder, tmp_path):
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db", age_recipient=TO[0]))
    fill(db, rows=5)
    sync(db)
    before = {file.path: file.path.read_bytes() for file in in_folder.files()}
    with pytest.raises(RuntimeError, match="invalid LTX file"):
        litestream.restore(in_folder, tmp_path / "theirs.db")
    assert not (tmp_path / "theirs.db").exists()
    assert {file.path: file.path.read_bytes() for file in in_folder.files()} == before
