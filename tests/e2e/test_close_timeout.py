"""A store that has gone silent, or a slow link: a close ends within `close_timeout`, whatever waits in it.

The last connection of a database wants it for itself first, and the publisher's view of a copy that is under way is in the
way; then its commits are waited for. Several databases of one connection close one after the other. What did not get to the
store goes out at the next open.
"""

import sqlite3
from dataclasses import replace

import pytest

from harness.litestream import restore
from harness.proxy import Hang
from harness.script import run

TIMED = """
load()

def filled(path, uri):
    plain = sqlite3.connect(path)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("CREATE TABLE t(data)"); plain.execute("INSERT INTO t SELECT randomblob(40000000)")
    plain.commit(); plain.close()
    return connect(uri)

def is_copying(db, schema):
    deadline = time.monotonic() + 10
    while one(db, f"SELECT state FROM litestream_status WHERE schema = '{schema}'") != "copying":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)

def timed_close(db):
    began = time.monotonic()
    db.close()
    took = time.monotonic() - began
    print(took)
    assert took < 2.8, took
"""


@pytest.fixture
def silent(through_proxy, proxy):
    """It takes the beginning of an upload, and nothing after that."""
    proxy.fault = lambda request: Hang() if request.kind == "PUT" else None
    return through_proxy


def test_a_copy_that_is_under_way(silent, proxy, in_s3, tmp_path):
    script = TIMED + """
db = filled("app.db", uri)
is_copying(db, "main")
timed_close(db)
"""
    uri = silent.primary(tmp_path / "app.db", close_timeout="2s", part_size="5MiB")
    run(script, tmp_path, silent.env, uri=uri)
    proxy.fault = lambda request: None
    run(TIMED + """
db = connect(uri)
db.execute("SELECT litestream_sync(30)").fetchall()
db.close()
""", tmp_path, silent.env, uri=uri)
    with sqlite3.connect(restore(in_s3, tmp_path / "restored.db")) as db:
        assert db.execute("SELECT length(data) FROM t").fetchall() == [(40000000,)]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_several_databases_of_one_connection(silent, tmp_path):
    script = TIMED + """
db = filled("0.db", uris[0])
for n, uri in enumerate(uris[1:]):
    db.execute(f"ATTACH ? AS a{n}", (uri,))
    db.execute(f"CREATE TABLE a{n}.t(data)"); db.execute(f"INSERT INTO a{n}.t SELECT randomblob(1000)")
is_copying(db, "main")
timed_close(db)
"""
    urls = [f"{silent.url}/{n}" for n in range(4)]
    uris = [replace(silent, url=url).primary(tmp_path / f"{n}.db", close_timeout="2s") for n, url in enumerate(urls)]
    run(script, tmp_path, {**silent.env, "LITESTREAM_SQL": "on"}, uris=uris)
