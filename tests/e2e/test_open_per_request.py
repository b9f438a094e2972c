"""A program opens the database for each request and closes it after that, as Django and PHP do by default.

Only the first open asks the store, as long as the database is opened again within half a minute. With the store away no
request waits for it: what a close leaves unsent waits in files, which are sent when the store is back, whether the database
is open or not. Between requests the library leaves the database, its folder and the host's SQLite alone, and keeps no other
process from publishing.
"""

import os
import shutil
import sqlite3
import subprocess
import time

import pytest

from harness import c_host
from harness.litestream import restore
from harness.paths import LIBRARY, clean_env
from harness.script import run
from harness.sql import fill, insert, sync
from harness.wait import until

QUIET = {"LITESTREAM_LOG_LEVEL": "error"}


def restored_rows(location, path) -> int:
    with sqlite3.connect(restore(location, path)) as db:
        return db.execute("SELECT count(*) FROM t").fetchone()[0]


def read(db) -> int:
    return db.one("SELECT count(*) FROM t")


def one_file_each(requests) -> int:
    """The number of files that were written, if nothing else was asked."""
    assert {request.kind for request in requests} == {"PUT"}
    # Once in a process a file is written twice, to find out whether the store keeps the condition of a write.
    files = {request.path for request in requests}
    assert len(requests) <= len(files) + 2
    return len(files)


def first_request(start, location, tmp_path, **parameters):
    """A worker that wrote the database, and the URI that it opened and closed."""
    worker = start("python", location, env=QUIET)
    uri = location.primary(tmp_path / "app.db", sync_interval="50ms", **parameters)
    db = worker.open(uri)
    fill(db, rows=20)
    db.close()
    return worker, uri


def test_a_request_that_reads_asks_the_store_for_nothing(start, through_proxy, proxy, tmp_path):
    worker, uri = first_request(start, through_proxy, tmp_path)
    asked = len(proxy.requests)
    connections = proxy.connections
    for _ in range(10):
        db = worker.open(uri)
        assert read(db) == 20
        db.close()
    assert proxy.connections == connections
    # Once in a process a file is written twice, to find out whether the store keeps the condition of a write.
    written = {request.path for request in proxy.requests[:asked] if request.kind == "PUT"}
    assert [r for r in proxy.requests[asked:] if r.kind != "PUT" or r.path not in written] == []


def test_a_request_that_writes_costs_one_file(start, through_proxy, in_s3, proxy, tmp_path):
    worker, uri = first_request(start, through_proxy, tmp_path)
    asked = len(proxy.requests)
    for _ in range(5):
        db = worker.open(uri)
        insert(db, rows=1)
        db.close()
    assert one_file_each(proxy.requests[asked:]) == 5
    assert restored_rows(in_s3, tmp_path / "restored.db") == 25


def test_no_close_waits_for_a_store_that_is_away(start, through_proxy, in_s3, proxy, tmp_path):
    worker, uri = first_request(start, through_proxy, tmp_path, close_timeout="30s")
    proxy.refuse()
    db = worker.open(uri)
    insert(db, rows=1)
    until(lambda: db.one("SELECT last_error FROM litestream_status"), 15, "it was tried")
    for n in range(20):
        began = time.monotonic()
        if n:
            db = worker.open(uri)
        read(db) if n % 2 else insert(db, rows=1)
        db.close()
        assert time.monotonic() - began < 10, n
    proxy.accept()
    # No connection has it open.
    until(lambda: restored_rows(in_s3, tmp_path / f"restored-{time.monotonic()}.db") == 31, 40, "the rest is sent")


def test_a_process_that_starts_while_the_store_is_away(start, through_proxy, in_s3, proxy, tmp_path):
    worker, uri = first_request(start, through_proxy, tmp_path, close_timeout="30s")
    worker.end()
    proxy.refuse()
    worker = start("python", through_proxy, env=QUIET)
    for n in range(10):
        began = time.monotonic()
        db = worker.open(uri)
        insert(db, rows=1)
        db.close()
        # The first open looks for the store.
        assert time.monotonic() - began < (20 if n == 0 else 10), n
    proxy.accept()
    sync(worker.open(uri))
    assert restored_rows(in_s3, tmp_path / "restored.db") == 30


def test_the_folder_can_be_removed_at_any_time(start, through_proxy, proxy, tmp_path):
    worker = start("python", through_proxy, env=QUIET)
    for n in range(3):
        folder = tmp_path / f"folder-{n}"
        folder.mkdir()
        db = worker.open(through_proxy.primary(folder / "app.db", sync_interval="50ms"))
        fill(db, rows=20)
        if n:
            proxy.refuse()
            insert(db, rows=1)
            until(lambda: db.one("SELECT last_error FROM litestream_status"), 15, "it was tried")
        db.close()
        before = {path: path.stat().st_size for path in folder.rglob("*")}
        shutil.rmtree(folder)
        proxy.accept() if n else None
        time.sleep(1.5)
        assert not folder.exists(), before
        through_proxy = type(through_proxy)(**vars(through_proxy) | {"url": through_proxy.url + "x"})


def test_another_process_publishes_at_once(start, through_proxy, in_s3, proxy, tmp_path):
    worker, uri = first_request(start, through_proxy, tmp_path)
    proxy.refuse()
    db = worker.open(uri)
    insert(db, rows=1)
    until(lambda: db.one("SELECT last_error FROM litestream_status"), 15, "it was tried")
    # What it did not send keeps the lock.
    db.close()
    other = start("python", through_proxy, env=QUIET).open(uri)
    assert other.one("SELECT state FROM litestream_status") != "standby"
    proxy.accept()
    insert(other, rows=1)
    sync(other)
    assert restored_rows(in_s3, tmp_path / "restored.db") == 22
    # And back.
    other.close()
    db = worker.open(uri)
    assert db.one("SELECT state FROM litestream_status") != "standby"
    insert(db, rows=1)
    db.close()
    assert restored_rows(in_s3, tmp_path / "again.db") == 23
    assert in_s3.gaps() == []


def test_processes_that_take_turns(start, through_proxy, in_s3, proxy, tmp_path):
    worker, uri = first_request(start, through_proxy, tmp_path)
    other = start("python", through_proxy, env=QUIET)
    db = other.open(uri)
    assert read(db) == 20
    db.close()
    asked = len(proxy.requests)
    for _ in range(5):
        for process in (worker, other):
            db = process.open(uri)
            insert(db, rows=1)
            db.close()
    assert one_file_each(proxy.requests[asked:]) == 10
    assert restored_rows(in_s3, tmp_path / "restored.db") == 30


def test_who_opened_again_is_heard_by_others(start, through_proxy, in_s3, tmp_path):
    """A request that takes long keeps no other process waiting, and nobody takes its process for gone."""
    worker, uri = first_request(start, through_proxy, tmp_path)
    other = start("python", through_proxy, env=QUIET)
    for n in range(6):
        long = worker.open(uri)
        assert read(long) == 20 + n
        short = other.open(uri)
        assert short.rows("SELECT state, last_error FROM litestream_status") == [["standby", None]]
        insert(short, rows=1)
        short.close()
        long.close()
    assert restored_rows(in_s3, tmp_path / "restored.db") == 26


def test_a_forked_child_has_nothing_of_it(in_folder, tmp_path):
    run("""
load()
db = connect(uri)
db.execute("CREATE TABLE t(x)"); db.execute("INSERT INTO t VALUES (1)")
db.close()
child = os.fork()
if child == 0:
    db = connect(uri)
    db.execute("INSERT INTO t VALUES (2)")
    assert one(db, "SELECT state FROM litestream_status") != "standby"
    db.execute("SELECT litestream_sync(20)").fetchall()
    db.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
db = connect(uri)
db.execute("INSERT INTO t VALUES (3)")
db.close()
""", tmp_path, in_folder.env, uri=in_folder.primary(tmp_path / "app.db"))
    assert restored_rows(in_folder, tmp_path / "restored.db") == 3


SHUT_DOWN = r"""
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void must(int code, const char *what) {
  if (code != SQLITE_OK) { fprintf(stderr, "%s: %d\n", what, code); exit(1); }
}
int main(int argc, char **argv) {
  sqlite3 *db;
  must(sqlite3_open(":memory:", &db), "open");
  must(sqlite3_enable_load_extension(db, 1), "enable");
  must(sqlite3_load_extension(db, argv[1], 0, 0), "load");
  must(sqlite3_close(db), "close");
  for (int n = 0; n < 3; n++) {
    must(sqlite3_open_v2(argv[2], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, 0), "open");
    must(sqlite3_exec(db, "CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (randomblob(2000000))", 0, 0, 0), "insert");
    sqlite3_exec(db, "SELECT litestream_sync(1)", 0, 0, 0);
    must(sqlite3_close(db), "close");
  }
  must(sqlite3_shutdown(), "shutdown");
  printf("down\n");
  fflush(stdout);
  getchar();
  return 0;
}
"""


def test_the_host_shuts_sqlite_down(through_proxy, in_s3, proxy, tmp_path):
    program = c_host.build(tmp_path, SHUT_DOWN)
    proxy.refuse()
    uri = through_proxy.primary(tmp_path / "app.db", close_timeout="1s")
    # The first copy is not there: only a database that has one has files that wait.
    proxy.accept()
    run("""
load()
db = connect(uri)
db.execute("CREATE TABLE IF NOT EXISTS t(x)"); db.execute("INSERT INTO t VALUES (1)"); db.close()
""", tmp_path, through_proxy.env, uri=uri)
    proxy.fault = lambda request: None
    process = subprocess.Popen([program, LIBRARY, uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env=clean_env(**through_proxy.env, **QUIET, MALLOC_PERTURB_="165"))
    try:
        # It has looked at the store, and sends nothing.
        until(lambda: any(r.kind == "LIST" for r in proxy.requests), 20, "a look")
        assert process.stdout.readline() == "down\n"
        until(lambda: restored_rows(in_s3, tmp_path / f"restored-{time.monotonic()}.db") == 4, 40, "all is sent")
        _, _ = process.communicate("\n", timeout=10)
        assert process.returncode == 0
    finally:
        process.kill()



@pytest.mark.parametrize("end", ["the end of main", "exit"])
def test_a_c_program_ends_with_a_connection_open(end, in_s3, tmp_path):
    source = SHUT_DOWN.replace("    must(sqlite3_close(db), \"close\");\n  }", "    if (n == 0) break;\n  }")
    source = source.replace('    sqlite3_exec(db, "SELECT litestream_sync(1)", 0, 0, 0);\n', "")
    source = source[:source.index("  must(sqlite3_shutdown()")] + ("exit(0);" if end == "exit" else "return 0;") + "\n}\n"
    program = c_host.build(tmp_path, source)
    uri = in_s3.primary(tmp_path / "app.db", close_timeout="1m")
    done = subprocess.run([program, LIBRARY, uri], env=clean_env(**in_s3.env), timeout=90, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert restored_rows(in_s3, tmp_path / "restored.db") == 1


def test_a_node_program_exits_with_a_connection_open(in_s3, tmp_path):
    node = shutil.which("node")
    if not node:
        pytest.skip("no node on this machine")
    if subprocess.run([node, "-e", "require('node:sqlite')"], capture_output=True).returncode:
        pytest.skip("this node has no SQLite")
    script = f"""
const {{ DatabaseSync }} = require("node:sqlite");
new DatabaseSync(":memory:", {{ allowExtension: true }}).loadExtension({str(LIBRARY)!r});
const db = new DatabaseSync({in_s3.primary(tmp_path / "app.db", close_timeout="1m")!r});
db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
process.exit(7);
"""
    done = subprocess.run([node, "--no-warnings", "-e", script], env=clean_env(**in_s3.env), timeout=60,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    assert restored_rows(in_s3, tmp_path / "restored.db") == 1


def test_the_end_of_a_process_waits_no_longer_than_close_timeout(through_proxy, proxy, tmp_path):
    from harness.proxy import Hang
    script = """
load()
db = connect(uri)
db.execute("CREATE TABLE IF NOT EXISTS t(x)"); db.execute("INSERT INTO t VALUES (1)")
"""
    uri = through_proxy.primary(tmp_path / "app.db", close_timeout="2s")
    run(script, tmp_path, through_proxy.env | QUIET, uri=uri)
    proxy.fault = lambda request: Hang() if request.kind == "PUT" else None
    began = time.monotonic()
    run(script + "import ctypes; ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))", tmp_path, through_proxy.env | QUIET,
        uri=uri)
    took = time.monotonic() - began
    assert 2 <= took < 6, took
