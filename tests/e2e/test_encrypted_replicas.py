"""A replica that somebody sealed, page by page, is read with the identity and by nobody else.

The replicas are those that the reference implementation wrote (`tests/golden/ltx4`), each with the database that a restore to a
transaction must equal byte for byte.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from harness import age
from harness.litestream03 import Replicate as Replicate03
from harness.location import Location
from harness.paths import ROOT
from harness.sql import fill, restore, status, sync
from harness.wait import until
from harness.worker import SqlError

GOLDEN = ROOT / "tests" / "golden" / "ltx4"
KEYS = json.loads((GOLDEN / "keys.json").read_text())
SAMPLES = {
    "one-recipient-4096": ([0], 5, {}),
    "three-recipients-512": ([1], 5, {}),
    "turned-on-at-3-4096": ([1], 5, {"plain_until": 2}),
    "key-changed-at-4-65536": ([0, 1], 5, {}),
    "with-checksums-4096": ([1], 1, {}),
}
ONE = "one-recipient-4096"


@pytest.fixture
def key_file(tmp_path):
    """Writes identities into a file, as `age-keygen` does."""

    def write(places: list[int], form: str = "identity") -> Path:
        path = tmp_path / f"key-{'-'.join(map(str, places))}.txt"
        path.write_text("# created: 2026-11-29\n" + "".join(f"{KEYS[place][form]}\n" for place in places))
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def sample(tmp_path):
    """A copy of a replica of the reference implementation."""

    def copy(name: str = ONE) -> Location:
        shutil.copytree(GOLDEN / name / "ltx", tmp_path / name / "ltx")
        return Location.file(tmp_path / name)

    return copy


def secrets() -> list[str]:
    """What must not be seen anywhere: the longest parts of all private keys in both forms."""
    return [form for key in KEYS for form in (key["identity"][16:], key["private_hex"])]


def assert_no_secret(*texts: object) -> None:
    for text in texts:
        for secret in secrets():
            assert secret.lower() not in str(text).lower()


@pytest.mark.parametrize("name", SAMPLES)
def test_every_transaction_is_restored_and_read(start, sample, key_file, tmp_path, name):
    places, last, options = SAMPLES[name]
    location, identity = sample(name), key_file(places)
    db = start("python", location).open(":memory:").load()
    reader = start("apsw", location)
    for n in range(1, last + 1):
        target = tmp_path / f"at-{n}.db"
        report = restore(db, location, target, txid=n, age_identity_file=str(identity), **options)
        assert target.read_bytes() == (GOLDEN / name / f"at-{n}.db").read_bytes(), n
        assert report["sealed"] == report["files"] - (min(n, 2) if options else 0)
        expected = start("python", load=False).open(target).content()
        view = reader.open(location.replica(asof=f"{n:016x}", age_identity_file=identity, **options), f"at {n}")
        assert view.content() == expected, n
    latest = reader.open(location.replica(age_identity_file=identity, **options), "latest")
    assert latest.content() == start("python", load=False).open(tmp_path / f"at-{last}.db").content()


@pytest.mark.parametrize(("name", "places", "more", "says"), [
    (ONE, [], {}, "0000000000000001.ltx.*set age_identity_file"),
    (ONE, [1], {}, "0000000000000001.ltx.*sealed to 1 recipient, and the identity that is given is none of theirs"),
    ("three-recipients-512", [], {}, "set age_identity_file"),
    ("key-changed-at-4-65536", [0], {}, "0000000000000004.ltx.*age_identity_file"),
    ("key-changed-at-4-65536", [1], {}, "0000000000000001.ltx.*age_identity_file"),
    ("turned-on-at-3-4096", [1], {}, "0000000000000001.ltx.*it is not sealed.*give as plain_until the last TXID of that time"),
    ("turned-on-at-3-4096", [1], {"plain_until": 1}, "0000000000000002.ltx.*after TXID 0000000000000001 .plain_until.*sealed_since"),
])
def test_without_what_opens_it_the_file_and_the_setting_are_named(start, sample, key_file, tmp_path, name, places, more, says):
    location = sample(name)
    settings = more | ({"age_identity_file": str(key_file(places))} if places else {})
    worker = start("python", location)
    db = worker.open(":memory:").load()
    with pytest.raises(SqlError, match=says) as refused:
        restore(db, location, tmp_path / "r.db", **settings)
    assert not (tmp_path / "r.db").exists()
    with pytest.raises(SqlError, match=says):
        worker.open(location.replica(**settings), "replica").rows("SELECT count(*) FROM sqlite_schema")
    assert_no_secret(refused.value, status(db))


def test_every_layer_gives_the_identity(start, sample, key_file, tmp_path):
    location, identity = sample(), key_file([0])
    as_hex = key_file([0], "private_hex")
    count = "SELECT count(*) FROM sqlite_schema"
    file = tmp_path / "litestream.yml"
    for key in (f"age: {{identities: [{KEYS[0]['identity']}]}}", f"age-identity-file: {identity}"):
        file.write_text(f"dbs:\n- path: {tmp_path}/app.db\n  role: replica\n  replica:\n    url: {location.url}\n    {key}\n")
        db = start("python", env={"LITESTREAM_CONFIG": str(file)}).open(f"file:{tmp_path}/app.db?vfs=litestream")
        assert db.one(count) > 0
        shown = db.rows("SELECT setting, value FROM litestream_config WHERE setting LIKE 'age%'")
        assert shown and not any(KEYS[0]["identity"] in str(row) for row in shown)
        report = json.loads(db.worker.open(":memory:", "other").load().one(
            "SELECT litestream_restore(?, ?)", f"{tmp_path}/app.db", f"{tmp_path}/{key[:6]}.db"))
        assert report["txid"] == f"{5:016x}"
    for variable, value in (("LITESTREAM_AGE_IDENTITY", KEYS[0]["identity"]), ("LITESTREAM_AGE_SECRET_KEY", KEYS[0]["private_hex"]),
                            ("LITESTREAM_AGE_IDENTITY_FILE", str(identity))):
        db = start("python", env={variable: value}).open(location.replica(), variable)
        assert db.one(count) > 0, variable
    worker = start("python")
    assert worker.open(location.replica(age_identity=KEYS[0]["identity"])).one(count) > 0
    assert worker.open(location.replica(age_identity_file=as_hex), "hex").one(count) > 0


def test_whoever_has_an_identity_takes_no_plain_file(start, in_folder, sample, key_file, tmp_path):
    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    reader = start("python", in_folder)
    identity = key_file([0])
    with pytest.raises(SqlError, match="it is not sealed"):
        reader.open(in_folder.replica(age_identity_file=identity)).rows("SELECT 1 FROM t")
    admitted = reader.open(in_folder.replica(age_identity_file=identity, require_encryption=0), "admitted")
    assert admitted.content() == primary.content()
    # A plain file that somebody puts behind sealed ones is not shown; what was there stays readable.
    location = sample()
    view = reader.open(location.replica(age_identity_file=identity, poll_interval="20ms"), "sealed")
    before = view.content()
    shutil.copy(in_folder.files(0)[0].path, location.level(0) / f"{6:016x}-{6:016x}.ltx")
    until(lambda: "poll" in status(view) or "not" in status(view), 20, "the poll that met it")
    assert view.content() == before


def test_what_is_kept_on_disk_is_sealed(start, sample, key_file, tmp_path):
    location, identity = sample("three-recipients-512"), key_file([2])
    uri = location.replica(age_identity_file=identity, cache_dir=tmp_path / "cache")
    worker = start("python", location)
    view = worker.open(uri)
    expected = view.content()
    pages = (GOLDEN / "three-recipients-512" / "at-5.db").read_bytes()
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) > 3000
    words = {pages[n:n + 12] for n in range(0, len(pages) - 12, 7) if pages[n:n + 12].isascii() and pages[n:n + 12].strip(b"\0")}
    assert len(words) > 20
    for path in kept:
        content = path.read_bytes()
        assert not any(word in content for word in words if word.count(0) == 0), path
    worker.kill()
    again = start("apsw", location)
    assert again.open(uri).content() == expected
    with pytest.raises(SqlError, match="age_identity_file"):
        again.open(location.replica(cache_dir=tmp_path / "cache"), "without").rows("SELECT 1 FROM sqlite_schema")


def test_hydration_needs_a_word(start, sample, key_file, tmp_path):
    location, identity = sample(), key_file([0])
    worker = start("python", location)
    hydrate = {"age_identity_file": identity, "hydration_path": tmp_path / "local.db"}
    with pytest.raises(SqlError, match="hydrate=plain"):
        worker.open(location.replica(hydrate=1, **hydrate)).rows("SELECT 1 FROM sqlite_schema")
    assert not (tmp_path / "local.db").exists()
    view = worker.open(location.replica(hydrate="plain", **hydrate), "plain")
    until(lambda: float(view.one("PRAGMA litestream_hydration_progress")) == 100, 20, "all of the database")
    assert (tmp_path / "local.db").stat().st_mode & 0o077 == 0


def test_an_attached_past_needs_the_identity_too(start, sample, key_file):
    location, identity = sample(), key_file([0])
    worker = start("apsw", location)
    db = worker.open(":memory:").load()
    for n in (1, 3):
        past = location.replica(f"past-{n}", asof=f"{n:016x}", age_identity_file=identity)
        db.rows(f"ATTACH ? AS past{n}", past)
        assert db.one(f"SELECT count(*) FROM past{n}.sqlite_schema") > 0
    with pytest.raises(SqlError):
        db.rows("ATTACH ? AS other", location.replica("other", asof=f"{2:016x}"))
    assert "set age_identity_file" in str(db.rows("SELECT last_error FROM litestream_status"))


def test_looking_needs_no_key_and_proves_nothing(start, sample, key_file):
    location = sample("turned-on-at-3-4096")
    db = start("python", location).open(":memory:").load()
    rows = db.rows("SELECT min_txid, sealed FROM litestream_ltx(?)", location.url)
    assert sorted(rows) == [[f"{n:016x}", int(n > 2)] for n in range(1, 6)]
    history = db.rows("SELECT txid, pages FROM litestream_history(?)", location.url)
    assert [row[0] for row in history] == [f"{n:016x}" for n in range(5, 0, -1)] and all(row[1] for row in history)
    assert db.rows("SELECT * FROM litestream_verify(?, '{\"quick\": true}')", location.url) == []
    [finding] = db.rows("SELECT severity, problem, message FROM litestream_verify(?)", location.url)
    assert finding[:2] == ["warning", "sealed"] and "3 of 5 files are sealed" in finding[2]
    opened = {"age_identity_file": str(key_file([1])), "plain_until": 2}
    assert db.rows("SELECT * FROM litestream_verify(?, ?)", location.url, json.dumps(opened)) == []
    newest = location.files(0)[-1].path
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    for options in ({}, opened):
        found = db.rows("SELECT severity, name FROM litestream_verify(?, ?)", location.url, json.dumps(options))
        assert ["error", newest.name] in found


def test_a_primary_does_not_publish_plain_files_to_a_sealed_replica(start, sample, tmp_path, key_file):
    location, identity = sample(), key_file([0])
    before = {file.path: file.path.read_bytes() for file in location.files()}
    worker = start("python", location)
    # Another database, a new one, and the very one that is in there.
    restore(worker.open(":memory:"), location, tmp_path / "restored.db", age_identity_file=str(identity))
    other = start("python", load=False).open(tmp_path / "other.db")
    fill(other)
    other.close()
    for name in ("other.db", "new.db", "restored.db"):
        db = worker.open(location.primary(tmp_path / name), name)
        db.run("CREATE TABLE IF NOT EXISTS x(y)", "INSERT INTO x VALUES (1)")
        for statement in ("SELECT litestream_sync(5)", "SELECT litestream_resume('force')"):
            with pytest.raises(SqlError, match="is encrypted: .*nothing plain is published to it. Set age_recipient"):
                db.rows(statement)
        assert "nothing plain is published" in status(db)
        db.close()
    assert {file.path: file.path.read_bytes() for file in location.files()} == before


@pytest.mark.parametrize(("settings", "says"), [
    ({"age_recipient": ""}, "age_recipient: the value is empty"),
    ({"age_recipient": KEYS[0]["identity"]}, "it is an identity, which is secret"),
    ({"age_recipient": KEYS[0]["public_hex"]}, "litestream_recipient"),
    ({"age_recipient": KEYS[0]["recipient"][:-1]}, "misspelled"),
    ({"age_recipients_file": "/no/such/file"}, "age_recipients_file: cannot read /no/such/file"),
    ({"age_recipients_file": "/dev/null"}, "age_recipients_file: /dev/null: there is no recipient"),
    ({"age_identity_file": "key"}, "asks for encryption, and nothing says who may open what is published"),
    ({"require_encryption": 1}, "asks for encryption"),
])
def test_a_primary_that_was_to_encrypt_and_cannot_is_refused(start, in_folder, tmp_path, key_file, settings, says):
    settings = settings | ({"age_identity_file": key_file([0])} if "age_identity_file" in settings else {})
    with pytest.raises(SqlError, match=says) as refused:
        start("python").open(in_folder.primary(tmp_path / "app.db", **settings)).rows("SELECT 1")
    assert_no_secret(refused.value)
    assert KEYS[0]["public_hex"] not in str(refused.value)
    assert not in_folder.folder.exists()


@pytest.mark.parametrize("variable", ["LITESTREAM_AGE_RECIPIENT", "LITESTREAM_AGE_RECIPIENTS_FILE"])
def test_so_is_one_whose_variable_is_empty(start, in_folder, tmp_path, variable):
    with pytest.raises(SqlError, match=f"{variable}: "):
        start("python", env={variable: ""}).open(in_folder.primary(tmp_path / "app.db")).rows("SELECT 1")
    assert not in_folder.folder.exists()


def test_every_layer_gives_the_recipients(start, tmp_path, key_file):
    """By their names, each opens what was written for it and nothing else."""
    file, recipient = tmp_path / "recipients", KEYS[0]["recipient"]
    file.write_text(f"# ours\n{recipient}\n")
    yaml = tmp_path / "litestream.yml"
    for name, env, settings in (
        ("variable", {"LITESTREAM_AGE_RECIPIENT": recipient}, {}),
        ("file variable", {"LITESTREAM_AGE_RECIPIENTS_FILE": str(file)}, {}),
        ("uri", {}, {"age_recipient": recipient}),
        ("yaml", {"LITESTREAM_CONFIG": str(yaml)}, None),
    ):
        location = Location.file(tmp_path / f"replica {name}")
        yaml.write_text(f"dbs:\n- path: {tmp_path}/{name}.db\n  replica:\n    url: file://{location.folder}\n"
                        f"    age:\n      recipients: [{recipient}, {KEYS[1]['recipient']}]\n")
        uri = location.primary(tmp_path / f"{name}.db", **settings) if settings is not None else f"file:{tmp_path}/{name}.db?vfs=litestream"
        db = start("python", env=env).open(uri)
        fill(db, rows=3)
        sync(db)
        files = location.files()
        assert files and all(one.path.read_bytes()[:4] == b"LTX4" for one in files), name
        count = 2 if name == "yaml" else 1
        assert {int.from_bytes(one.path.read_bytes()[80:82]) for one in files} == {count}
        view = start("python").open(location.replica(age_identity_file=key_file([count - 1])))
        assert view.content() == db.content()


def test_an_encrypted_replica_is_not_restored_at_an_open_without_its_identity(start, sample, tmp_path):
    location = sample()
    with pytest.raises(SqlError, match="cannot be restored.*set age_identity_file"):
        start("python", location).open(location.primary(tmp_path / "app.db", restore="missing")).rows("SELECT 1")
    assert not (tmp_path / "app.db").exists()


def test_a_new_pair_of_keys_is_one_for_age(start, in_folder, tmp_path):
    """Litestream 0.3.13 seals by age's own library."""
    db = start("python").open(":memory:").load()
    lines = db.one("SELECT litestream_keygen()")
    comment, identity = lines.splitlines()
    recipient = comment.removeprefix("# public key: ")
    assert identity.startswith("AGE-SECRET-KEY-1") and recipient.startswith("age1")
    assert db.one("SELECT litestream_keygen()") != lines
    (tmp_path / "key.txt").write_text(lines)
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run("PRAGMA journal_mode=WAL")
    fill(source)
    with Replicate03(tmp_path / "app.db", in_folder, tmp_path, keys=(identity, recipient)):
        expected = source.content()
    report = restore(db, in_folder, tmp_path / "r.db", age_identity_file=str(tmp_path / "key.txt"))
    assert report["generation"] and start("python", load=False).open(tmp_path / "r.db").content().tables == expected.tables
    ours, theirs = age.generate()
    with pytest.raises(SqlError, match="not for any of the identities given"):
        restore(db, in_folder, tmp_path / "s.db", age_identity=ours)
    assert theirs.startswith("age1")


def test_a_plain_backup_of_litestream_03_is_not_taken_for_an_encrypted_one(start, in_folder, tmp_path, key_file):
    source = start("python", load=False).open(tmp_path / "app.db")
    source.run("PRAGMA journal_mode=WAL")
    fill(source)
    with Replicate03(tmp_path / "app.db", in_folder, tmp_path):
        pass
    db = start("python").open(":memory:")
    with pytest.raises(SqlError, match="is not encrypted.*require_encryption=0"):
        restore(db, in_folder, tmp_path / "r.db", age_identity_file=str(key_file([0])))
    restore(db, in_folder, tmp_path / "r.db", age_identity_file=str(key_file([0])), require_encryption=False)


def test_public_keys_in_hexadecimal_become_recipients(start):
    db = start("python").open(":memory:").load()
    for key in KEYS:
        assert db.one("SELECT litestream_recipient(?)", key["public_hex"]) == key["recipient"]
    for bad in ("", "00" * 32, KEYS[0]["public_hex"][1:], KEYS[0]["identity"]):
        with pytest.raises(SqlError, match="the public key is refused") as refused:
            db.one("SELECT litestream_recipient(?)", bad)
        assert_no_secret(refused.value)


def test_an_identity_is_in_no_log_status_or_error(start, sample, key_file, tmp_path):
    location, log = sample(), tmp_path / "log"
    for level in ("error", "warn", "info", "debug", "trace"):
        worker = start("python", env={"LITESTREAM_LOG_LEVEL": level, "LITESTREAM_LOG_FILE": str(log)})
        for name, settings in (("right", {"age_identity_file": key_file([0])}), ("wrong", {"age_identity_file": key_file([1])}),
                               ("uri", {"age_identity": KEYS[0]["identity"]})):
            try:
                db = worker.open(location.replica(**settings), f"{name} {level}")
                db.rows("SELECT count(*) FROM sqlite_schema")
                assert_no_secret(db.rows("SELECT * FROM litestream_config"), status(db))
            except SqlError as refused:
                assert name == "wrong"
                assert_no_secret(refused)
        assert_no_secret(worker.open(":memory:", level).load().rows("SELECT * FROM litestream_databases"))
    assert_no_secret(log.read_text())
    assert "give age_identity_file instead" in log.read_text()


def test_files_exchanged_or_cut_off_are_never_another_page(start, sample, key_file, tmp_path):
    """Each file in the place of each other, and cut at many lengths: an error, or exactly the database."""
    location, identity = sample("three-recipients-512"), key_file([0])
    expected = (GOLDEN / "three-recipients-512" / "at-5.db").read_bytes()
    db = start("python", location).open(":memory:").load()
    whole = {file.path: file.path.read_bytes() for file in location.files()}
    tried = 0

    def try_it(path: Path, content: bytes) -> None:
        nonlocal tried
        tried += 1
        path.write_bytes(content)
        target = tmp_path / f"r-{tried}.db"
        try:
            restore(db, location, target, age_identity_file=str(identity))
        except SqlError:
            assert not target.exists()
        else:
            assert target.read_bytes() == expected
        path.write_bytes(whole[path])

    for path, other in ((path, other) for path in whole for other in whole if path != other):
        try_it(path, whole[other])
    for path, content in whole.items():
        for length in range(0, len(content), max(1, len(content) // 12)):
            try_it(path, content[:length])
    assert tried > 80 and os.listdir(location.level(0))
