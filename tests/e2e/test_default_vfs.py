"""Hosts that pass no URI: a plain path that the configuration names is a primary, or a replica, through the default VFS.

Every other path, database in memory and temporary file stays what it was.
"""

import json
import os
import subprocess

import pytest

from harness.location import Location
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env
from harness.sql import fill, insert, restore, sync, txid
from harness.worker import SqlError

ENTRY = "sqlite3_litestreamdefault_init"


@pytest.fixture
def configured(tmp_path):
    """The environment with this configuration."""

    def write(text: str, **env: str) -> dict[str, str]:
        (tmp_path / "litestream.yml").write_text(text.format(folder=tmp_path))
        return {"LITESTREAM_CONFIG": str(tmp_path / "litestream.yml"), **env}

    return write


PRIMARY = "dbs:\n- path: {folder}/app.db\n  replica: {{url: 'file://{folder}/replica'}}\n"


@pytest.fixture(params=["variable", "entry point", "function"])
def begin(request, start):
    """Starts a host whose default VFS is ours, in each of the three ways."""

    def begin(host: str, env: dict[str, str]):
        if request.param == "variable":
            return start(host, env=env | {"LITESTREAM_DEFAULT_VFS": "1"})
        worker = start(host, env=env, load=False)
        if request.param == "entry point":
            worker.load(LIBRARY, ENTRY)
        else:
            assert worker.open(":memory:", "first").load().one("SELECT litestream_default_vfs(1)") == 1
        return worker

    return begin


def assert_replicated(db, location: Location, path) -> None:
    assert sync(db) == location.last_txid()
    restore(db, location, path)
    assert db.worker.open(path, "restored").content() == db.content()


def test_a_plain_path_that_has_an_entry_is_a_primary(begin, host, configured, tmp_path):
    worker = begin(host, configured(PRIMARY))
    location = Location.file(tmp_path / "replica")
    db = worker.open(tmp_path / "app.db")
    fill(db)
    assert_replicated(db, location, tmp_path / "restored.db")
    # Another path is plain, and so is one in memory.
    for other in (tmp_path / "other.db", ":memory:"):
        plain = worker.open(other, "plain")
        fill(plain)
        assert plain.one("SELECT count(*) FROM litestream_status WHERE role IS NOT NULL") == 0
        with pytest.raises(SqlError):
            sync(plain)
        assert plain.one("PRAGMA journal_mode") in ("delete", "memory")
    assert not (tmp_path / ".other.db-litestream").exists()


def test_links_and_attach_lead_to_the_entry(start, configured, tmp_path):
    worker = start("python", env=configured(PRIMARY, LITESTREAM_DEFAULT_VFS="1"))
    (tmp_path / "link.db").symlink_to(tmp_path / "app.db")
    db = worker.open(tmp_path / "link.db")
    fill(db)
    assert sync(db) == Location.file(tmp_path / "replica").last_txid()
    db.close()
    plain = worker.open(tmp_path / "plain.db")
    plain.run("CREATE TABLE x(y)")
    plain.rows("ATTACH ? AS app", str(tmp_path / "app.db"))
    plain.run("INSERT INTO app.pair VALUES ('attached', 1)")
    assert [row[0] for row in plain.rows("SELECT schema FROM litestream_status WHERE role = 'primary'")] == ["app"]
    last = txid(plain.one("SELECT litestream_sync()"))
    assert last == Location.file(tmp_path / "replica").last_txid()


def test_role_replica_reads_where_a_plain_path_is_opened(start, configured, tmp_path):
    location = Location.file(tmp_path / "replica")
    primary = start("python", location).open(location.primary(tmp_path / "source.db"))
    fill(primary)
    sync(primary)
    env = configured("dbs:\n- path: {folder}/reader.db\n  role: replica\n  replica: {{url: 'file://{folder}/replica'}}\n",
                     LITESTREAM_DEFAULT_VFS="1")
    db = start("python", env=env).open(tmp_path / "reader.db")
    assert db.content().tables == primary.content().tables
    with pytest.raises(SqlError):
        insert(db)
    assert not (tmp_path / "reader.db").exists()


def test_a_read_only_open_reads_the_local_file(start, configured, tmp_path):
    env = configured(PRIMARY, LITESTREAM_DEFAULT_VFS="1", LITESTREAM_REPLICA_URL=f"file://{tmp_path}/elsewhere")
    worker = start("python", env=env)
    db = worker.open(tmp_path / "app.db")
    fill(db)
    reader = worker.open(f"file:{tmp_path}/app.db?mode=ro", "reader")
    assert reader.content().tables == db.content().tables
    assert reader.one("SELECT count(*) FROM litestream_status WHERE role IS NOT NULL") == 0
    # The environment's URL says nothing of plain paths.
    other = worker.open(tmp_path / "other.db", "other")
    fill(other)
    assert other.one("SELECT count(*) FROM litestream_status WHERE role IS NOT NULL") == 0


def test_a_plain_file_beside_a_replica_of_its_name_keeps_its_wal(start, configured, tmp_path):
    """The replica's locks hide files of its name; not from a plain connection that the default VFS passed on."""
    location = Location.file(tmp_path / "replica")
    primary = start("python", location).open(location.primary(tmp_path / "source.db"))
    fill(primary)
    sync(primary)
    worker = start("python", env=configured("dbs: []\n", LITESTREAM_DEFAULT_VFS="1"))
    plain = worker.open(tmp_path / "same.db", "plain")
    plain.run("PRAGMA journal_mode=wal", "CREATE TABLE own(x)", "INSERT INTO own VALUES (1)")
    replica = worker.open(location.replica(tmp_path / "same.db"), "replica")
    replica.rows("BEGIN")
    assert replica.one("SELECT count(*) FROM t") > 0
    second = worker.open(tmp_path / "same.db", "second")
    assert second.one("SELECT count(*) FROM own") == 1
    plain.run("INSERT INTO own VALUES (2)")
    assert second.one("SELECT count(*) FROM own") == 2
    replica.rows("COMMIT")


def test_it_can_be_taken_back(start, configured, tmp_path):
    worker = start("python", env=configured(PRIMARY), load=False)
    console = worker.open(":memory:", "console").load()
    assert console.one("SELECT litestream_default_vfs(1)") == 1
    assert console.one("SELECT litestream_default_vfs(0)") == 0
    db = worker.open(tmp_path / "app.db")
    fill(db)
    assert db.one("SELECT count(*) FROM litestream_status WHERE role IS NOT NULL") == 0


def test_without_being_told_nothing_changes(start, configured, tmp_path):
    db = start("python", env=configured(PRIMARY)).open(tmp_path / "app.db")
    fill(db)
    assert db.one("SELECT count(*) FROM litestream_status WHERE role IS NOT NULL") == 0


def test_a_broken_configuration_refuses_a_plain_path(start, configured, tmp_path):
    worker = start("python", env=configured("dbs:\n- path: {folder}/app.db\n", LITESTREAM_DEFAULT_VFS="1"))
    with pytest.raises(SqlError, match="litestream.yml:2: this entry of dbs has no replica"):
        worker.open(tmp_path / "app.db").rows("SELECT 1")


def test_a_program_configures_a_path_itself(start, tmp_path):
    location = Location.file(tmp_path / "replica")
    worker = start("python", env={"LITESTREAM_DEFAULT_VFS": "1"})
    console = worker.open(":memory:", "console").load()
    path = str(tmp_path / "app.db")
    settings = {"replica": location.url, "sync-interval": "50ms"}
    assert console.one("SELECT litestream_configure(?, ?)", path, json.dumps(settings)) == path
    db = worker.open(path)
    fill(db)
    assert_replicated(db, location, tmp_path / "restored.db")
    origin = db.one("SELECT origin FROM litestream_config WHERE setting = 'sync_interval'")
    assert origin == "litestream_configure"
    for wrong, said in [('{"replica"', "not a JSON object"), ('{"replicas": ["tape://x"]}', None),
                        ('{"sync-intervall": "1s"}', "did you mean 'sync-interval'"), ('{"path": "/x"}', "first argument"),
                        ('{"sync-interval": "fast"}', "'fast' is not a duration")]:
        if said:
            with pytest.raises(SqlError, match=said) as refused:
                console.one("SELECT litestream_configure(?, ?)", path, wrong)
            assert str(refused.value).count("litestream_configure") == 1
    # Whoever may only run SQL may not.
    with pytest.raises(SqlError):
        db.one("SELECT litestream_configure(?, ?)", path, "{}")
    with pytest.raises(SqlError):
        db.one("SELECT litestream_default_vfs(0)")
    db.close()
    console.one("SELECT litestream_configure(?, NULL)", path)
    again = worker.open(path, "again")
    assert again.one("SELECT count(*) FROM litestream_status WHERE role IS NOT NULL") == 0


def test_a_child_has_what_its_parent_configured(start, tmp_path):
    script = """
import os, sqlite3, sys
library, path, url = sys.argv[1:]
first = sqlite3.connect(":memory:")
first.enable_load_extension(True)
first.load_extension(library)
first.execute("SELECT litestream_default_vfs(1)").fetchall()
first.execute("SELECT litestream_configure(?, ?)", (path, '{"replica": "%s"}' % url)).fetchall()
child = os.fork()
if not child:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t(x)")
    print(db.execute("SELECT litestream_sync()").fetchone()[0], flush=True)
    db.close()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""




    done = subprocess.run([SYSTEM_PYTHON, "-c", script, str(LIBRARY), str(tmp_path / "app.db"), f"file://{tmp_path}/replica"],
                          env=clean_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert txid(done.stdout.strip()) == Location.file(tmp_path / "replica").last_txid()


def test_the_shell_with_a_plain_path(shell, configured, tmp_path):
    env = configured(PRIMARY, LITESTREAM_DEFAULT_VFS="1")
    sql = shell(env=env)
    sql.run(f".load {os.path.splitext(LIBRARY)[0]}")
    sql.run(f".open {tmp_path}/app.db\nCREATE TABLE t(x);\nINSERT INTO t VALUES (1);")
    assert txid(sql.run("SELECT litestream_sync();")) == Location.file(tmp_path / "replica").last_txid()
