"""A site shows its databases in a SQL console: strangers' statements run in a process that loaded the library.

SQL alone must not overwrite files or reach a store with the server's credentials: not by functions, tables, ATTACH or
VACUUM INTO, and not on a connection that is read-only or under `PRAGMA query_only`. A program that wants them loads the
library on the connection that it uses; in SQLite's shell they work on every connection; LITESTREAM_SQL decides otherwise.
"""

import subprocess

import pytest

from harness.paths import LIBRARY, SQLITE_SHELL, clean_env
from harness.script import run
from harness.sql import fill, sync
from harness.worker import SqlError

PRECIOUS = "the source of the site\n"


@pytest.fixture
def site(in_folder, start, tmp_path):
    """A replica, and a file that a stranger may not touch."""
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    fill(db, rows=20)
    sync(db)
    db.close()
    (tmp_path / "site.py").write_text(PRECIOUS)
    return in_folder


def statements(site, tmp_path) -> list[str]:
    """What SQL could reach out with."""
    return [
        f"SELECT litestream_restore('{site.url}', '{tmp_path}/site.py', '{{\"force\": true}}')",
        f"SELECT litestream_restore('{site.url}', '{tmp_path}/new.db', '{{\"dry_run\": true}}')",
        f"SELECT litestream_restore('{site.url}', '{tmp_path}/new.db', '{{\"if_db_not_exists\": true}}')",
        f"SELECT * FROM litestream_history('{site.url}')",
        f"SELECT * FROM litestream_ltx('{site.url}')",
        f"SELECT * FROM litestream_verify('{site.url}')",
        f"SELECT * FROM litestream_restore_plan('{site.url}')",
    ]


def attachments(site, tmp_path) -> list[str]:
    """What SQL could attach: a replica, a primary of a store that it names, the same by VACUUM INTO."""
    elsewhere = f"vfs=litestream&replica=file://{tmp_path}/stolen"
    return [
        f"ATTACH '{site.replica()}' AS stolen",
        f"ATTACH 'file:{tmp_path}/app.db?{elsewhere}' AS robbed",
        f"VACUUM INTO 'file:{tmp_path}/copied.db?{elsewhere}-copy'",
    ]


def untouched(site, tmp_path, before) -> None:
    assert (tmp_path / "site.py").read_text() == PRECIOUS
    assert not [path.name for name in ("new", "copied", "stolen") for path in tmp_path.glob(f"*{name}*")]
    assert sorted(f.path for f in site.files()) == before


def refusals(db, sql: list[str]) -> list[str]:
    messages = []
    for statement in sql:
        with pytest.raises(SqlError) as refused:
            db.rows(statement)
        messages.append(str(refused.value))
    return messages


@pytest.mark.parametrize("kind", ["memory", "file", "read-only", "query_only"])
def test_a_stranger_reaches_nothing(kind, site, start, host, tmp_path):
    worker = start(host)
    before = sorted(f.path for f in site.files())
    worker.open(tmp_path / "guestbook.db", "owner").run("CREATE TABLE t(x)")
    db = worker.open({"memory": ":memory:", "read-only": f"file:{tmp_path}/guestbook.db?mode=ro"}.get(
        kind, tmp_path / "guestbook.db"))
    remedies = ["did not load litestream_vfs itself", "LITESTREAM_SQL=on"]
    if kind in ("read-only", "query_only"):
        db.load()
        remedies[0] = kind
    if kind == "query_only":
        db.run("PRAGMA query_only=1")
    for message in refusals(db, [*statements(site, tmp_path), "SELECT * FROM litestream_configured",
                                "SELECT * FROM litestream_restores", "SELECT litestream_mcp('{}')"]):
        assert message.startswith("litestream_") and all(remedy in message for remedy in remedies), message
    refusals(db, attachments(site, tmp_path))
    told = str(db.rows("SELECT last_error FROM litestream_status"))
    assert "ATTACH of a database with a replica: " in told and all(remedy in told for remedy in remedies)
    untouched(site, tmp_path, before)
    # What does not reach out works.
    assert db.one("SELECT litestream_version()") and db.rows("SELECT litestream_status()")


def test_the_connection_that_loaded_the_library_reaches_out(site, start, host, tmp_path):
    worker = start(host)
    db = worker.open(":memory:").load().load()
    for statement in statements(site, tmp_path)[1:]:
        db.rows(statement)
    db.rows(attachments(site, tmp_path)[0])
    assert db.one("SELECT count(*) FROM stolen.t") == 20
    # Not the next one, though it may be where the other one was in memory.
    for _ in range(20):
        worker.open(":memory:", "loads").load().close()
        [message] = refusals(worker.open(":memory:", "next"), statements(site, tmp_path)[:1])
        assert "did not load" in message
        worker.call("close", name="next")


@pytest.mark.parametrize("value", ["on", "off", "maybe"])
def test_the_environment_decides(value, site, start, host, tmp_path):
    worker = start(host, env={"LITESTREAM_SQL": value})
    db = worker.open(":memory:")
    if value == "on":
        for statement in statements(site, tmp_path)[1:] + attachments(site, tmp_path):
            db.rows(statement)
        return
    for message in refusals(db.load(), statements(site, tmp_path)):
        assert "LITESTREAM_SQL" in message and ("none of on, off" in message) == (value == "maybe")
    refusals(db, attachments(site, tmp_path))


def test_a_primary_is_asked_on_each_of_its_connections_that_may_write(site, start, host, tmp_path):
    worker = start(host)
    db = worker.open(site.primary(tmp_path / "app.db"))
    db.run("INSERT INTO t(name) VALUES ('x')")
    assert sync(db) == site.last_txid()
    assert db.one("SELECT litestream_snapshot()") and db.one("SELECT litestream_resume()")
    db.run("PRAGMA query_only=1")
    calls = ["SELECT litestream_sync()", "SELECT litestream_snapshot()", "SELECT litestream_resume('force')"]
    assert all("PRAGMA query_only is on" in message for message in refusals(db, calls))
    assert db.one("SELECT litestream_txid()") and "primary" in db.one("SELECT litestream_status()")
    replica = worker.open(site.replica(), "replica")
    assert replica.one("SELECT litestream_set_time('latest')")


def test_sqlites_shell_reaches_out_on_every_connection(site, shell, tmp_path):
    session = shell(site)
    session.run(f".load {LIBRARY.with_suffix('')}\n.open other.db\nCREATE TABLE x(y);\nPRAGMA query_only=1;")
    for statement in statements(site, tmp_path)[1:]:
        assert "rror" not in session.run(statement + ";")
    session.run(attachments(site, tmp_path)[0] + ";")
    assert session.run("SELECT count(*) FROM stolen.t;") == "20"
    session.run(f".open --readonly {tmp_path}/other.db")
    assert "rror" not in session.run(statements(site, tmp_path)[3] + ";")


def test_the_shells_safe_mode_stays_safe(site, tmp_path):
    """Its SQL may not write files, so ours may not either: the shell ends, as with each function that it forbids."""
    before = sorted(f.path for f in site.files())
    done = subprocess.run([SQLITE_SHELL, "-init", "/dev/null", "-cmd", f".load {LIBRARY.with_suffix('')}",
                           "-cmd", ".open other.db", "-safe", ":memory:", statements(site, tmp_path)[0]],
                          cwd=tmp_path, env=clean_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "safe mode" in done.stderr + done.stdout
    untouched(site, tmp_path, before)


def test_a_function_of_that_name_makes_no_shell(site, tmp_path):
    done = run("""
load()
db = connect(":memory:")
db.create_function("writefile", 2, lambda path, text: None)
db.create_function("readfile", 1, lambda path: None)
try:
    one(db, statement)
except sqlite3.Error as e:
    print(e)
""", tmp_path, statement=statements(site, tmp_path)[0])
    assert "did not load litestream_vfs itself" in done.stdout
    assert (tmp_path / "site.py").read_text() == PRECIOUS
