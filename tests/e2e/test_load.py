"""Loading the library costs next to nothing and changes nothing for anybody who does not ask."""

import os
import subprocess

import pytest

from harness import proc
from harness.location import sqlite_uri
from harness.paths import LIBRARY, LITESTREAM, SYSTEM_PYTHON
from harness.sql import fill, sync
from harness.worker import SqlError

MEBIBYTE = 1 << 20


def test_the_library_is_at_most_16_mb():
    if LIBRARY.parent.name == "debug":
        pytest.skip("not a release build")
    assert LIBRARY.stat().st_size <= 16_000_000


def test_loading_starts_no_thread_and_opens_nothing(start, host):
    worker = start(host, load=False)
    worker.open(":memory:", "warm").run("CREATE TABLE t(x)")
    before = (proc.threads(worker.pid), proc.descriptors(worker.pid))
    worker.load()
    assert (proc.threads(worker.pid), proc.descriptors(worker.pid)) == before


def test_loading_adds_at_most_5_mb_of_resident_memory(start, host):
    if LIBRARY.parent.name == "debug":
        pytest.skip("not a release build")
    worker = start(host, load=False)
    worker.open(":memory:", "warm").run("CREATE TABLE t(x)")
    before = proc.rss_kib(worker.pid)
    worker.load()
    worker.open(":memory:", "after").one("SELECT litestream_version()")
    assert proc.rss_kib(worker.pid) - before <= 5 * 1024


def test_loading_needs_no_environment(tmp_path):
    script = ("import sqlite3; c = sqlite3.connect(':memory:'); c.enable_load_extension(True);"
              f"c.load_extension({str(LIBRARY)!r}); print(c.execute('select litestream_version()').fetchone()[0])")
    done = subprocess.run([SYSTEM_PYTHON, "-c", script], env={}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    assert done.stderr == ""


def test_the_default_vfs_stays_the_default(shell):
    session = shell()
    before = session.run(".vfslist")
    first = session.run(".vfsname").splitlines()[-1:]
    session.run(f".load {LIBRARY.with_suffix('')}")
    after = session.run(".vfslist")
    assert "litestream" in after and "litestream" not in before
    assert session.run(".open other.db\n.vfsname").splitlines()[-1:] != ["litestream"]
    assert first != ["litestream"]


def refused_open(worker, tmp_path):
    with pytest.raises(SqlError):
        worker.open(sqlite_uri(tmp_path / "refused.db", vfs="litestream"), "refused").rows("SELECT 1 FROM sqlite_schema")


def others_work(worker, tmp_path, tag):
    """Files, memory, read-only opens, other VFSes, ATTACH: all as without us."""
    for number, target in enumerate([
        ":memory:", str(tmp_path / f"{tag}.db"), sqlite_uri(tmp_path / f"{tag}-uri.db"),
        sqlite_uri(tmp_path / f"{tag}-none.db", vfs="unix-none"), sqlite_uri(tmp_path / f"{tag}-dot.db", vfs="unix-dotfile"),
        "file:shared?mode=memory&cache=shared",
    ]):
        db = worker.open(target, f"{tag}-{number}")
        db.run("CREATE TABLE IF NOT EXISTS t(x)", "INSERT INTO t VALUES (1)", "PRAGMA journal_mode=DELETE")
        assert db.one("SELECT count(*) FROM t") == 1
        db.rows("ATTACH ? AS side", str(tmp_path / f"{tag}-{number}-side.db"))
        db.run("CREATE TABLE side.u(x)", "DETACH side")
        db.close()
    reader = worker.open(sqlite_uri(tmp_path / f"{tag}.db", mode="ro"), f"{tag}-ro")
    with pytest.raises(SqlError, match="readonly"):
        reader.run("INSERT INTO t VALUES (2)")
    reader.close()
    with pytest.raises(SqlError, match="no such vfs"):
        worker.open("file:x.db?vfs=nobody", "nobody")


def test_other_connections_behave_as_before(start, host, tmp_path):
    worker = start(host)
    others_work(worker, tmp_path, "loaded")
    refused_open(worker, tmp_path)
    others_work(worker, tmp_path, "refused-before")
    assert not list(tmp_path.glob("*litestream*"))


def test_other_connections_work_beside_a_primary(start, host, in_folder, tmp_path):
    worker = start(host, in_folder)
    primary = worker.open(in_folder.primary(tmp_path / "app.db"))
    fill(primary)
    others_work(worker, tmp_path, "beside")
    sync(primary)


def test_a_connection_from_before_the_load_works_on(start, host, tmp_path):
    worker = start(host, load=False)
    db = worker.open(tmp_path / "plain.db", "before")
    db.run("CREATE TABLE t(x)", "BEGIN", "INSERT INTO t VALUES (1)")
    worker.load()
    refused_open(worker, tmp_path)
    db.run("INSERT INTO t VALUES (2)", "COMMIT")
    assert db.one("SELECT count(*) FROM t") == 2


def test_loading_twice_is_harmless(start, host, in_folder, tmp_path):
    worker = start(host, in_folder)
    worker.load()
    primary = worker.open(in_folder.primary(tmp_path / "app.db"))
    worker.load()
    fill(primary)
    assert sync(primary) == in_folder.last_txid()


def test_the_library_works_in_a_forked_child(in_folder, tmp_path):
    """Servers load the library, open a database, then fork workers; threads do not survive that."""
    script = f"""
import os, sqlite3, sys, signal
def connect(uri):
    c = sqlite3.connect(uri, uri=True, isolation_level=None)
    return c
first = connect(':memory:'); first.enable_load_extension(True); first.load_extension({str(LIBRARY)!r})
parent = connect({in_folder.primary(tmp_path / 'parent.db')!r})
parent.execute('CREATE TABLE t(x)'); parent.execute('SELECT litestream_sync()').fetchall()
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    replica = connect({in_folder.replica()!r})
    assert replica.execute('SELECT count(*) FROM t').fetchone() == (0,)
    child = connect({sqlite_uri(tmp_path / 'child.db', vfs='litestream', replica=f'file://{tmp_path}/child-replica')!r})
    child.execute('CREATE TABLE u(x)'); child.execute('INSERT INTO u VALUES (7)')
    assert child.execute('SELECT litestream_sync(20)').fetchone()[0]
    os._exit(0)
_, code = os.waitpid(pid, 0)
parent.execute('INSERT INTO t VALUES (1)')
parent.execute('SELECT litestream_sync(20)').fetchall()
sys.exit(os.waitstatus_to_exitcode(code) != 0)
"""
    done = subprocess.run([SYSTEM_PYTHON, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "child-replica").rglob("*.ltx"))


def test_two_sqlite_libraries_in_one_process_are_refused_clearly(tmp_path):
    """CPython's sqlite3 and apsw bring a copy of SQLite each; only the first may load us."""
    script = f"""
import ctypes, sqlite3, apsw
lib = {str(LIBRARY)!r}
a = apsw.Connection(':memory:'); a.enable_load_extension(True); a.load_extension(lib)
s = sqlite3.connect(':memory:')
"""
    import sys

    if not hasattr(__import__("sqlite3").Connection, "enable_load_extension"):
        pytest.skip("this python's sqlite3 module has no extension loading")
    script += """
s.enable_load_extension(True)
try:
    s.load_extension(lib)
except sqlite3.OperationalError as e:
    assert 'SQLite' in str(e), e
else:
    raise SystemExit('loaded twice')
assert a.execute('select litestream_version()').fetchall()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_certificate_variable_that_stops_litestream_does_not_stop_us(start, in_s3, tmp_path):
    bundle = os.environ.get("AWS_CA_BUNDLE") or "/etc/ssl/certs/ca-certificates.crt"
    if not os.path.exists(bundle) or not LITESTREAM.exists():
        pytest.skip("no certificates on this machine")
    primary = start("python", in_s3, env={"AWS_CA_BUNDLE": bundle}).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary)
    assert sync(primary) == in_s3.last_txid()
