"""SQLite opens what ATTACH and VACUUM INTO name with the VFS of the connection, also where the name asks for nothing. Such a
name is a plain file, whatever the environment says: with LITESTREAM_REPLICA_URL set, a primary's `ATTACH 'other.db'` showed
the replica's tables, and `VACUUM INTO` failed.
"""

import sqlite3

import pytest

from harness.paths import LIBRARY, VENV_PYTHON, clean_env
from harness.sql import fill, sync
from harness.worker import SqlError


@pytest.fixture
def opened(request, start, host, in_folder, tmp_path):
    """A connection of each kind, with the replica's URL in the environment; beside it a plain database."""
    plain = sqlite3.connect(tmp_path / "other.db")
    plain.execute("CREATE TABLE only_here(x)")
    plain.execute("INSERT INTO only_here VALUES (7)")
    plain.commit()
    worker = start(host, in_folder, env={"LITESTREAM_REPLICA_URL": in_folder.url})
    primary = worker.open(f"file:{tmp_path}/app.db?vfs=litestream&role=primary", "primary")
    fill(primary, rows=20)
    sync(primary)
    return primary if request.param == "primary" else worker.open("file:app.db?vfs=litestream&mode=ro", "replica")


@pytest.mark.parametrize("opened", ["primary", "replica"], indirect=True)
@pytest.mark.parametrize("name", ["{}/other.db", "file:{}/other.db", "file:{}/other.db?mode=rw&cache=private"])
def test_a_name_that_asks_for_nothing_is_a_plain_file(name, opened, tmp_path):
    opened.rows("ATTACH ? AS other", name.format(tmp_path))
    assert opened.rows("SELECT x FROM other.only_here") == [[7]]
    opened.run("INSERT INTO other.only_here VALUES (8)", "DETACH other")
    opened.rows("ATTACH ? AS fresh", str(tmp_path / "fresh.db"))
    opened.run("CREATE TABLE fresh.f AS SELECT count(*) AS n FROM t", "DETACH fresh")
    opened.rows("VACUUM INTO ?", str(tmp_path / "copy.db"))
    found = [sqlite3.connect(tmp_path / file).execute(sql).fetchone()[0] for file, sql in [
        ("other.db", "SELECT sum(x) FROM only_here"), ("fresh.db", "SELECT n FROM f"), ("copy.db", "SELECT count(*) FROM t"),
    ]]
    assert found == [15, 20, 20]
    assert not list(tmp_path.glob(".other.db-litestream")) and not list(tmp_path.glob(".copy.db-litestream"))


@pytest.mark.parametrize("opened", ["replica"], indirect=True)
def test_the_local_file_of_the_replicas_name_keeps_its_wal(opened, tmp_path):
    """The replica hides the WAL of the file that it is named after; the plain file of that name has it."""
    (tmp_path / "app.db").rename(tmp_path / "gone.db")
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"app.db{suffix}").unlink(missing_ok=True)
    local = sqlite3.connect(tmp_path / "app.db")
    local.execute("PRAGMA journal_mode=WAL")
    local.execute("CREATE TABLE in_the_wal(x)")
    opened.rows("ATTACH ? AS local", str(tmp_path / "app.db"))
    assert opened.one("SELECT count(*) FROM t") == 20
    assert opened.one("SELECT count(*) FROM local.in_the_wal") == 0
    assert opened.one("SELECT count(*) FROM t") == 20


@pytest.mark.parametrize("opened", ["primary"], indirect=True)
def test_a_name_that_asks_gets_what_it_asks_for(opened, tmp_path):
    opened.load()
    for n, name in enumerate(["file:x?vfs=litestream", "file:x?replica_url=" + "file://" + str(tmp_path / "replica"),
                              "file:x?role=replica"]):
        opened.rows(f"ATTACH ? AS r{n}", name)
        assert opened.one(f"SELECT count(*) FROM r{n}.t") == 20
    with pytest.raises(SqlError):
        opened.rows("ATTACH 'file:x?relpica=file:///nowhere' AS typo")
    assert "did you mean 'replica'" in str(opened.rows("SELECT last_error FROM litestream_status"))


def test_the_vfs_may_be_an_argument_of_the_open(in_folder, start, tmp_path):
    """apsw.Connection('app.db', vfs='litestream'): the name asks for nothing, the program does."""
    import subprocess

    primary = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    primary.run("PRAGMA page_size=1024")
    fill(primary, rows=20)
    sync(primary)
    script = f"""
import apsw
loader = apsw.Connection(":memory:"); loader.enable_load_extension(True); loader.load_extension({str(LIBRARY)!r})
db = apsw.Connection("named.db", vfs="litestream")
assert db.execute("PRAGMA page_size").fetchall() == [(1024,)]
assert db.execute("SELECT count(*) FROM t").fetchall() == [(20,)]
try:
    db.execute("INSERT INTO t(name) VALUES ('x')")
except apsw.ReadOnlyError:
    pass
else:
    raise SystemExit("a replica was written")
db.execute("ATTACH 'side.db' AS side"); db.execute("CREATE TABLE side.s(x)")
"""
    done = subprocess.run([VENV_PYTHON, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env=clean_env(LITESTREAM_REPLICA_URL=in_folder.url, **in_folder.env))
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("named.db*")) and (tmp_path / "side.db").stat().st_size > 0
