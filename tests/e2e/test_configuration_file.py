"""A litestream.yml that somebody has for the sidecar, and programs that open their databases with nothing but
`vfs=litestream`.

The configurations are those of Litestream's own documentation, with buckets, folders and servers of the test in their
places. Each database is written, synced and restored; real Litestream restores with the same file wherever it accepts it.
"""

import subprocess
import time

import pytest

from harness.location import Location, sqlite_uri
from harness.paths import LITESTREAM, clean_env
from harness.s3 import ACCESS_KEY, REGION, SECRET_KEY
from harness.sql import fill, restore, sync, txid
from harness.worker import SqlError

# Each: the documented text, whether Litestream 0.5.17 accepts it (`None`: it does, but speaks TLS to it, which the test's server
# does not), and where its replicas are, in the bucket or a folder.
EXAMPLES = {
    "s3": ("""
access-key-id: {key}
secret-access-key: {secret}
region: {region}

dbs:
  - path: {folder}/db
    replica:
      url: s3://{bucket}/db?endpoint={endpoint}&forcePathStyle=true
""", True, {"db": ["s3:db"]}),
    "minio": ("""
dbs:
  - path: {folder}/db
    replica:
      type: s3
      bucket: {bucket}
      path: db
      endpoint: {endpoint}
      access-key-id: {key}
      secret-access-key: {secret}
""", True, {"db": ["s3:db"]}),
    "endpoint without a scheme": ("""
dbs:
  - path: {folder}/db
    replica:
      type: s3
      bucket: {bucket}
      path: db
      endpoint: {host}
      force-path-style: true
      access-key-id: $MY_KEY
      secret-access-key: ${{MY_SECRET}}
""", None, {"db": ["s3:db"]}),
    "several databases": ("""
access-key-id: {key}
secret-access-key: {secret}
endpoint: {endpoint}
snapshot:
  interval: 24h
  retention: 48h
levels:
  - interval: 30s
  - interval: 5m
dbs:
  - path: {folder}/one.db
    replica:
      type: s3
      bucket: {bucket}
      path: one
  - path: {folder}/two.db
    replica:
      path: {folder}/backups/two
""", True, {"one.db": ["s3:one"], "two.db": ["file:backups/two"]}),
    "directory": ("""
dbs:
  - dir: {folder}/tenants
    pattern: "*.db"
    recursive: true
    watch: true
    replica:
      type: s3
      bucket: {bucket}
      path: tenants
      endpoint: {endpoint}
      access-key-id: {key}
      secret-access-key: {secret}
""", True, {"tenants/a.db": ["s3:tenants/a.db"], "tenants/deep/b.db": ["s3:tenants/deep/b.db"]}),
    "several replicas": ("""
dbs:
  - path: {folder}/db
    replicas:
      - path: {folder}/backups/db
      - url: s3://{bucket}/db
        endpoint: {endpoint}
        access-key-id: {key}
        secret-access-key: {secret}
""", False, {"db": ["file:backups/db", "s3:db"]}),
    "snapshot of one database": ("""
dbs:
  - path: {folder}/one.db
    snapshot: {{interval: 1h, retention: 24h}}
    replica: {{url: "file://{folder}/backups/one"}}
  - path: {folder}/two.db
    snapshot: {{interval: 2h}}
    replica: {{url: "file://{folder}/backups/two"}}
""", False, {"one.db": ["file:backups/one"], "two.db": ["file:backups/two"]}),
    "0.3, file": ("""
addr: ":9090"
dbs:
  - path: {folder}/db
    replicas:
      - path: {folder}/backups/db
        retention: 72h
        retention-check-interval: 1h
""", True, {"db": ["file:backups/db"]}),
    "0.3, s3": ("""
access-key-id: {key}
secret-access-key: {secret}
dbs:
  - path: {folder}/db
    replicas:
      - type: s3
        bucket: {bucket}
        path: db
        endpoint: {endpoint}
        snapshot-interval: 1h
        validation-interval: 12h
""", True, {"db": ["s3:db"]}),
    "0.3, url": ("""
exec: myapp -addr :8080
dbs:
  - path: {folder}/db
    monitor-interval: 1s
    checkpoint-interval: 1m
    replicas:
      - name: main
        url: file://{folder}/backups/db
        sync-interval: 2s
""", True, {"db": ["file:backups/db"]}),
}


@pytest.fixture
def configured(tmp_path, s3, bucket):
    """Writes a configuration file; its text may name the bucket and the folder of the test."""

    def write(text: str) -> str:
        path = tmp_path / "litestream.yml"
        path.write_text(text.format(folder=tmp_path, bucket=bucket.name, endpoint=s3.endpoint, key=ACCESS_KEY, secret=SECRET_KEY,
                                    host=s3.endpoint.removeprefix("http://"), region=REGION))
        return str(path)

    return write


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_documented_configuration_works_unchanged(start, configured, tmp_path, s3, bucket, example):
    text, is_litestreams, databases = EXAMPLES[example]
    config = configured(text)
    env = {"LITESTREAM_CONFIG": config, "MY_KEY": ACCESS_KEY, "MY_SECRET": SECRET_KEY}
    worker = start("python", env=env)
    for number, (name, places) in enumerate(databases.items()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        db = worker.open(f"file:{path}?vfs=litestream", f"db{number}")
        fill(db)
        sync(db)
        published = [txid(one) for (one,) in db.rows("SELECT txid FROM litestream_status WHERE role IS NOT NULL")]
        for place, last in zip(places, published, strict=True):
            kind, _, below = place.partition(":")
            location = Location.s3(bucket, below, s3.endpoint) if kind == "s3" else Location.file(tmp_path / below)
            assert location.last_txid() == last
            output = tmp_path / f"restored-{number}-{kind}.db"
            reader = start("python", location)
            restore(reader.open(":memory:"), location, output)
            assert reader.open(output, "restored").content() == db.content()
        if is_litestreams and "directory" not in example:
            output = tmp_path / f"litestream-{number}.db"
            done = subprocess.run([LITESTREAM, "restore", "-config", config, "-o", str(output), str(path)], env=clean_env(**env),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, done.stdout
            assert start("python").open(output, "theirs").content() == db.content()
    if is_litestreams is False:
        refused = subprocess.run([LITESTREAM, "databases", "-config", config], env=clean_env(**env))
        assert refused.returncode != 0


def test_each_setting_names_its_origin(start, configured, tmp_path):
    config = configured("sync-interval: 4s\nquux: 1\nexec: serve\ndbs:\n- path: {folder}/app.db\n  close-timeout: 6s\n  replica:\n"
                        "    url: file://{folder}/replica\n")
    worker = start("python", env={"LITESTREAM_CONFIG": config, "LITESTREAM_VERIFY_INTERVAL": "11s"})
    db = worker.open(sqlite_uri(tmp_path / "app.db", vfs="litestream", watch_interval="8s"))
    fill(db)
    rows = {row[0]: tuple(row[1:]) for row in db.rows("SELECT setting, value, origin, note FROM litestream_config")}
    assert rows["role"] == ("primary", "default", None)
    assert rows["config"] == (config, "LITESTREAM_CONFIG", None)
    assert rows["replica"] == (f"file://{tmp_path}/replica", f"{config}:8", None)
    assert rows["sync_interval"] == ("4s", f"{config}:1", None)
    assert rows["close_timeout"] == ("6s", f"{config}:6", None)
    assert rows["watch_interval"] == ("8s", "URI parameter watch_interval", None)
    assert rows["verify_interval"] == ("11s", "LITESTREAM_VERIFY_INTERVAL", None)
    assert rows["spool_limit"] == ("1GiB", "default", None)
    assert rows["exec"][1] == f"{config}:3" and "no effect" in rows["exec"][2]
    assert "unknown key 'quux'" in rows["quux"][2]
    # A database that is not open, named as for an open: only where SQL may see files.
    ask = ("SELECT value FROM litestream_config(?) WHERE setting = 'close_timeout'", f"{tmp_path}/app.db")
    with pytest.raises(SqlError):
        db.one(*ask)
    assert worker.open(":memory:", "console").load().one(*ask) == "6s"


def test_a_broken_file_is_refused_with_its_line(start, configured, tmp_path):
    config = configured("dbs:\n- path: {folder}/app.db\n  replica:\n    url: file://{folder}/replica\n    sync-interval: fast\n")
    worker = start("python", env={"LITESTREAM_CONFIG": config})
    with pytest.raises(SqlError, match=f"{config}:5: sync-interval: 'fast' is not a duration"):
        worker.open(f"file:{tmp_path}/app.db?vfs=litestream").rows("SELECT 1")
    assert not (tmp_path / "app.db").exists() or (tmp_path / "app.db").stat().st_size == 0
    # Without the file it opens.
    worker.open(sqlite_uri(tmp_path / "app.db", vfs="litestream", config="off", replica=f"file://{tmp_path}/r"))


def test_sql_alone_reads_no_file_by_naming_it_as_a_configuration(start, tmp_path):
    (tmp_path / "private").write_text("sync-interval: a-secret-word\n")
    worker = start("python")
    db = worker.open(tmp_path / "plain.db")
    name = f"file:{tmp_path}/x.db?vfs=litestream&config={tmp_path}/private&replica=file://{tmp_path}/r"
    with pytest.raises(SqlError) as refused:
        db.rows("ATTACH ? AS x", name)
    told = str(refused.value) + str(db.rows("SELECT * FROM litestream_status"))
    assert "a-secret-word" not in told
    db.load()
    with pytest.raises(SqlError):
        db.rows("ATTACH ? AS x", name)
    assert "private:1: sync-interval: 'a-secret-word' is not a duration" in str(db.rows("SELECT last_error FROM litestream_status"))


@pytest.mark.parametrize("asked, why", [
    ("age: {{recipients: [age1x]}}", "recipient 1: the public key is refused"),
    ("age: {{recipients: []}}", "is an empty list"),
    ("age: {{recipient: [age1x]}}", "asks for encryption"),
    ("age-recipients: [age1x]", "asks for encryption"),
    ("age-recipient: $NOT_SET_ANYWHERE", "is empty"),
    ("age-recipients-file: ''", "is empty"),
])
def test_encryption_that_was_asked_for_is_not_left_out(asked, why, start, configured, tmp_path):
    config = configured("dbs:\n- path: {folder}/app.db\n  replica:\n    url: file://{folder}/replica\n    " + asked + "\n")
    worker = start("python", env={"LITESTREAM_CONFIG": config})
    with pytest.raises(SqlError, match=why):
        worker.open(f"file:{tmp_path}/app.db?vfs=litestream").rows("SELECT 1")
    assert not (tmp_path / "replica").exists()


def test_local_state_is_where_meta_path_says(start, configured, tmp_path):
    config = configured("dbs:\n- path: {folder}/app.db\n  meta-path: {folder}/elsewhere/state\n  replica: {{url: 'file://{folder}/replica'}}\n")
    location = Location.file(tmp_path / "replica")
    for _ in range(2):
        worker = start("python", env={"LITESTREAM_CONFIG": config})
        db = worker.open(f"file:{tmp_path}/app.db?vfs=litestream")
        db.rows("CREATE TABLE IF NOT EXISTS t(x)")
        db.rows("INSERT INTO t VALUES (1)")
        sync(db)
        worker.kill()
    assert (tmp_path / "elsewhere/state/vfs.lock").exists()
    assert not (tmp_path / ".app.db-litestream").exists()
    restore(start("python", location).open(":memory:"), location, tmp_path / "restored.db")


def test_l0_files_stay_with_l0_retention_0(start, configured, tmp_path):
    text = "l0-retention: {l0}\nlevels: [{{{{interval: 1s}}}}]\ndbs:\n- path: {{folder}}/{l0}.db\n  replica: {{{{url: 'file://{{folder}}/{l0}', sync-interval: 10ms}}}}\n"
    kept = {}
    for l0 in ("0", "1s"):
        worker = start("python", env={"LITESTREAM_CONFIG": configured(text.format(l0=l0)), "LITESTREAM_LEVELS": ""})
        db = worker.open(f"file:{tmp_path}/{l0}.db?vfs=litestream")
        db.rows("CREATE TABLE t(x)")
        location = Location.file(tmp_path / l0)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            db.rows("INSERT INTO t VALUES (1)")
            sync(db)
            time.sleep(0.1)
        kept[l0] = len(location.files(0)) == location.last_txid()
    assert kept == {"0": True, "1s": False}
