"""The Python package `sqlite-litestream`, installed from its wheel: its functions, and its command line beside Litestream's."""

import json
import signal
import socket
import sqlite3
import subprocess
import tomllib

import pytest

from harness import packages
from harness.location import Location
from harness.paths import LITESTREAM, ROOT, SYSTEM_PYTHON, VENV_PYTHON, clean_env

STORY = """
import sqlite3, sys, sqlite_litestream as sl
url = sys.argv[1]
db = sl.connect("app.db", replica=url, timeout=9)
assert type(db) is sqlite3.Connection
db.execute("CREATE TABLE t(x)")
db.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(100)])
db.commit()
db.execute("SELECT litestream_sync()").fetchall()
reader = sl.connect("reader.db", url, role="replica")
assert reader.execute("SELECT sum(x) FROM t").fetchone() == (4950,)
report = sl.restore(url, "restored.db", integrity_check="quick")
assert report["restored"] and report["pages"] > 1, report
assert sl.restore(url, "restored.db", if_db_not_exists=True)["reason"] == "the file exists"
print(sl.__version__, db.execute("SELECT litestream_version()").fetchone()[0])
"""


def said(*command, code=0, **options) -> str:
    """What a command prints: on standard error, if it is to fail."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def run(tmp_path):
    """Runs a Python that has the package."""
    return lambda *arguments, python=SYSTEM_PYTHON, code=0, **env: said(
        python, *arguments, code=code, cwd=tmp_path, env=packages.python_env(**env))


@pytest.fixture
def cli(run):
    """Our command line."""
    return lambda *arguments, **options: run("-m", "sqlite_litestream", *arguments, **options)


def theirs(*arguments, **options) -> str:
    """Litestream's."""
    return said(LITESTREAM, *arguments, env=clean_env(), **options)


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    """A database that Litestream published, its configuration, and its replica."""
    folder = tmp_path_factory.mktemp("litestream")
    database, config, location = folder / "app.db", folder / "litestream.yml", Location.file(folder / "replica")
    config.write_text(json.dumps({"dbs": [{"path": str(database), "replica": {"url": location.url}}]}))
    db = sqlite3.connect(database)
    db.execute("PRAGMA journal_mode = wal")
    db.execute("CREATE TABLE t(x)")
    db.executemany("INSERT INTO t VALUES (randomblob(100))", [()] * 500)
    db.commit()
    theirs("replicate", "-once", "-config", config)
    db.execute("DELETE FROM t WHERE rowid % 2")
    db.commit()
    theirs("replicate", "-once", "-config", config)
    db.close()
    return database, config, location


def test_six_lines_make_a_database_that_replicates(run, in_folder):
    versions = run("-c", STORY, in_folder.url).split()
    assert versions[0] == versions[1] == read_version()


def read_version() -> str:
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]


def test_loading_leaves_the_connection_as_it_was(run):
    run("-c", """if True:
        import sqlite3, sqlite_litestream as sl
        def may(db):
            try:
                return db.execute("SELECT load_extension(NULL)") and True
            except sqlite3.OperationalError:
                return False
        for enabled in (False, True):
            db = sqlite3.connect(":memory:")
            db.enable_load_extension(enabled)
            sl.load(db)
            assert may(db) is enabled and not db.in_transaction
            assert db.execute("SELECT litestream_version()").fetchone()[0] == sl.__version__""")


def test_apsw_loads_it_where_the_python_cannot(run, in_folder):
    run("-c", f"""if True:
        import sqlite3, apsw, sqlite_litestream as sl
        first = apsw.Connection(":memory:")
        sl.load(first)
        assert not first.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, -1)
        db = apsw.Connection(sl.uri("app.db", "{in_folder.url}"), apsw.SQLITE_OPEN_URI | 6)
        db.execute("CREATE TABLE t(x); SELECT litestream_sync()").fetchall()
        if hasattr(sqlite3.Connection, "enable_load_extension"):
            raise SystemExit
        try:
            sl.connect("other.db", "{in_folder.url}")
        except sl.NotLoadable as error:
            assert "use apsw (pip install apsw" in str(error), error
        assert sl.restore("{in_folder.url}", "restored.db")["restored"]""", python=VENV_PYTHON)


@pytest.mark.parametrize("arguments", ["ltx -json -level all", "ltx -level 9 -json", "ltx --json --level=0",
                                       "restore -dry-run -json -o out.db", "restore -json -o out.db -force",
                                       "restore -integrity-check quick -o=out.db -json -force"])
def test_answers_have_the_keys_of_litestreams(cli, replicated, tmp_path, arguments):
    url = replicated[2].url
    ours, expected = json.loads(cli(*arguments.split(), url)), json.loads(theirs(*arguments.split(), url, cwd=tmp_path))
    assert comparable(ours) == comparable(expected)


def comparable(answer):
    """An answer without what differs from run to run; Litestream cuts times to seconds."""
    if isinstance(answer, list):
        return [comparable(item) for item in answer]
    answer = {key: comparable(value) if key == "files" else value for key, value in answer.items()}
    if "timestamp" in answer:
        answer["timestamp"] = answer["timestamp"][:19]
    if "duration_ms" in answer:
        assert 0 <= answer.pop("duration_ms") < 60_000
    return answer


def test_a_database_is_looked_up_in_the_configuration(cli, replicated, tmp_path):
    database, config, _ = replicated
    for arguments in (["databases"], ["status"], ["status", database]):
        arguments = [arguments[0], "-config", config, "-json", *arguments[1:]]
        expected = json.loads(theirs(*arguments))
        if arguments[0] == "status":
            # Litestream published it, so that nothing is published from here yet.
            expected[0] |= {"status": "not initialized", "local_txid": "-"}
        assert json.loads(cli(*arguments)) == expected
    (tmp_path / "absent").write_text(config.read_text().replace("app.db", "absent.db"))
    arguments = ["status", "-json", "-config", tmp_path / "absent"]
    assert json.loads(cli(*arguments)) == json.loads(theirs(*arguments))
    for command in (["ltx", "-level", "all"], ["history"], ["verify"]):
        cli(*command, "-config", config, database)
    plan = json.loads(cli("restore", "-dry-run", "-json", "-config", config, database))
    assert plan == json.loads(cli("restore", "-dry-run", "-json", "-o", database, plan["source"], LITESTREAM_CONFIG=str(config)))
    assert "has no such database" in cli("restore", "-config", config, "-o", "x.db", tmp_path / "other.db", code=2)
    (tmp_path / "moved").write_text(config.read_text().replace("app.db", "restored.db"))
    cli("restore", "--config", "moved", database.with_name("restored.db"))
    [status] = json.loads(cli("status", "-config", "moved", "-json"))
    assert (status["status"], status["local_txid"]) == ("ok", plan["max_txid"])


def test_restores_are_byte_equal(cli, replicated, tmp_path):
    url, txid = replicated[2].url, f"{replicated[2].last_txid() - 1:016x}"
    for point in ([], ["-txid", txid]):
        cli("restore", *point, "-force", "-o", "ours.db", url)
        theirs("restore", *point, "-force", "-o", "theirs.db", url, cwd=tmp_path)
        assert (tmp_path / "ours.db").read_bytes() == (tmp_path / "theirs.db").read_bytes()


def test_a_replica_of_ours_gets_the_same_answers(cli, run, in_folder, tmp_path):
    run("-c", STORY, in_folder.url)
    for arguments in ("ltx -json -level all", "restore -dry-run -json -o out.db"):
        ours, expected = cli(*arguments.split(), in_folder.url), theirs(*arguments.split(), in_folder.url, cwd=tmp_path)
        assert comparable(json.loads(ours)) == comparable(json.loads(expected))
    cli("restore", "-o", "ours.db", in_folder.url)
    theirs("restore", "-o", "theirs.db", in_folder.url, cwd=tmp_path)
    assert (tmp_path / "ours.db").read_bytes() == (tmp_path / "theirs.db").read_bytes()


@pytest.mark.parametrize("arguments, expected, code", [
    ("restore -f -txid 0000000000000001 -o x.db file:///r", "-txid: not with -f", 2),
    ("restore -f -force -o x.db file:///r", "-force: not with -f", 2),
    ("restore -f -o x.db file:///nowhere/r", "the replica is empty", 6),
    ("restore -f -follow-interval 1y -o x.db file:///r", "follow_interval: '1y'", 2),
    ("restore -follow-interval 1s -o x.db file:///r", "-follow-interval: only with -f", 2),
    ("sync -wait app.db", "SELECT litestream_sync()", 2),
    ("register -replica file:///r app.db", "litestream_configure", 2),
    ("list", "litestream_databases", 2),
    ("replicate app.db file:///r", "vfs=litestream", 2),
    ("restore file:///r", "-o is required", 2),
    ("restore -froce -o x.db file:///r", "flag provided but not defined: -froce", 2),
    ("restore -o", "flag needs an argument: -o", 2),
    ("restore -json=perhaps -o x.db file:///r", "'perhaps' is neither true nor false", 2),
    ("restore -o x.db file:///r more", "too many arguments", 2),
    ("restore -o x.db file:///nowhere/r", "the replica is empty", 6),
    ("restore -o x.db -txid 42 file:///r", "txid:42", 2),
    ("restore -o x.db floppy://a/b", "floppy", 2),
    ("restore -o x.db -age-identity-file /nowhere/key file:///r", "cannot read /nowhere/key", 3),
    ("restore -o x.db s3://b/a?endpoint=http://127.0.0.1:1&region=r", "127.0.0.1:1", 4),
    ("ltx -level 10 file:///r", "invalid -level", 2),
    ("frobnicate", "unknown command 'frobnicate'", 2),
    ("databases -config off", "there is no configuration file", 2),
    ("databases -config /nowhere/x.yml", "/nowhere/x.yml", 2),
    ("ltx", "DB_PATH|REPLICA_URL is missing", 2),
])
def test_what_cannot_be_done_is_refused_with_a_remedy(cli, arguments, expected, code):
    error = cli(*arguments.split(), code=code, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s")
    assert error.startswith("Error: ") and expected in error and "Traceback" not in error


def test_the_exit_code_says_what_is_wrong(cli, run, in_folder, tmp_path):
    """As walrust has them. Credentials and buckets: `test_a_store_that_refuses_is_told_from_a_bad_setting`."""
    run("-c", STORY, in_folder.url)
    cli("verify", in_folder.url)
    assert "covers" in cli("restore", "-o", "x.db", "-txid", "00000000000000ff", in_folder.url, code=6)
    assert "use -force" in cli("restore", "-o", "restored.db", in_folder.url, code=3)
    assert "is open as a primary" in run("-c", f"""if True:
        import sys, sqlite_litestream as sl, sqlite_litestream._cli as cli
        db = sl.connect("app.db", replica="{in_folder.url}")
        db.execute("SELECT 1 FROM t").fetchall()
        cli.main(["reset", "app.db"])""", code=3)
    damaged = in_folder.files(0)[-1].path
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    cli("restore", "-o", "x.db", in_folder.url, code=5)
    done = subprocess.run([SYSTEM_PYTHON, "-m", "sqlite_litestream", "verify", in_folder.url], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60, env=packages.python_env())
    assert done.returncode == 5 and damaged.name in done.stdout, done.stdout + done.stderr


def test_a_store_that_refuses_is_told_from_a_bad_setting(cli, in_s3):
    nowhere = in_s3.full_url.replace("s3://", "s3://no-")
    assert "does not exist" in cli("ltx", nowhere, code=4, **in_s3.env)
    wrong = in_s3.env | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    assert "secret-access-key" in cli("ltx", in_s3.full_url, code=4, **wrong)


def test_help_is_no_failure(cli):
    assert "restore" in cli("-h") and "-if-db-not-exists" in cli("restore", "--help")
    assert cli("version").strip() == read_version()


def test_an_existing_file_is_left_alone(cli, replicated, tmp_path):
    url = replicated[2].url
    (tmp_path / "app.db").write_bytes(b"mine")
    assert "use -force to replace it" in cli("restore", "-o", "app.db", url, code=3)
    assert cli("restore", "-if-db-not-exists", "-json", "-o", "app.db", url) == ""
    assert cli("restore", "-if-replica-exists", "-json", "-o", "new.db", url + "-none") == ""
    assert (tmp_path / "app.db").read_bytes() == b"mine"


def test_control_c_ends_a_restore_and_leaves_nothing(tmp_path):
    """The store takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as store:
        url = f"s3://bucket/app?endpoint=http://127.0.0.1:{store.getsockname()[1]}&region=us-east-1"
        restore = subprocess.Popen(
            [SYSTEM_PYTHON, "-m", "sqlite_litestream", "restore", "-o", "out.db", url], cwd=tmp_path, text=True, stderr=subprocess.PIPE,
            # A shell that runs the tests in the background ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env=packages.python_env(AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s"))
        store.settimeout(30)
        connection, _ = store.accept()
        restore.send_signal(signal.SIGINT)
        _, errors = restore.communicate(timeout=30)
        connection.close()
    assert restore.returncode == 1 and errors == "Error: interrupted\n", errors
    assert list(tmp_path.iterdir()) == []
