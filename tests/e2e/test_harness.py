"""The harness itself, with the real Litestream on both sides: what it says can be believed."""

import sqlite3
import urllib.error
import urllib.request
from contextlib import closing

import pytest

from harness import litestream, transcript
from harness.compare import content, differing_pages
from harness.proxy import CutBody, Status
from harness.wait import until
from harness.worker import HostDied, SqlError
from harness.workload import STEPS, Workload, serial_if_consistent


def make(path, rows=100):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB, c TEXT)")
        db.executemany("INSERT INTO t(b, c) VALUES(randomblob(300), ?)", [(str(i),) for i in range(rows)])


def read(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return content(lambda sql: db.execute(sql).fetchall())


def test_litestream_writes_restores_and_reads_by_its_vfs(location, tmp_path):
    make(tmp_path / "app.db")
    with litestream.Replicate(tmp_path / "app.db", location, tmp_path) as replicate:
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as db:
            for i in range(10):
                db.execute("INSERT INTO t(b, c) VALUES(randomblob(3000), ?)", (str(i),))
            until(lambda: {0, 1, 9} <= replicate.compacted(), 30)
    expected = read(tmp_path / "app.db")
    assert expected.tables["t"][0] == 110 and expected.integrity == "ok"
    assert read(litestream.restore(location, tmp_path / "restored.db")) == expected
    assert litestream.read_by_vfs(location) == expected


def test_content_tells_databases_apart(tmp_path, start):
    make(tmp_path / "a.db")
    a = read(tmp_path / "a.db")
    for host in ("python", "apsw"):
        assert start(host, load=False).open(tmp_path / "a.db").content() == a
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as db:
        db.execute("UPDATE t SET c = CAST(c AS BLOB) WHERE a = 7")
    assert read(tmp_path / "a.db") != a


def test_differing_pages_are_named(tmp_path):
    (tmp_path / "a").write_bytes(bytes(4096))
    (tmp_path / "b").write_bytes(bytes(1024) + b"x" + bytes(3071) + b"y")
    assert differing_pages(tmp_path / "a", tmp_path / "b", 1024) == [2, 5]
    assert differing_pages(tmp_path / "a", tmp_path / "a", 1024) == []


def test_a_host_reports_errors_values_and_its_own_death(start, host):
    db = start(host, load=False).open(":memory:")
    assert db.rows("SELECT 1, 2.5, 'x', x'00ff', NULL") == [[1, 2.5, "x", b"\x00\xff", None]]
    assert db.one("SELECT ?", b"\x01") == b"\x01"
    with pytest.raises(SqlError, match="no such table: nowhere"):
        db.rows("SELECT * FROM nowhere")
    db.worker.kill()
    with pytest.raises(HostDied):
        db.rows("SELECT 1")


def test_a_silent_host_is_killed(start):
    db = start("python", load=False).open(":memory:")
    with pytest.raises(HostDied, match="no answer"):
        db.rows("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n", deadline=0.3)
    assert db.worker.ended


def test_a_shell_answers_in_order_with_its_errors(shell):
    session = shell()
    assert session.run("SELECT 1;\nSELECT 2;") == "1\n2"
    assert "no such table: nowhere" in session.run("SELECT * FROM nowhere;")
    assert session.run("SELECT 3;") == "3"
    session.end()
    assert session.ended


def test_the_proxy_counts_and_fails_requests(proxy, bucket):
    listing = f"{proxy.endpoint}/{bucket.name}?list-type=2"
    with pytest.raises(urllib.error.HTTPError) as denied:
        urllib.request.urlopen(listing)
    assert denied.value.code == 403
    denied_body = len(denied.value.read())
    proxy.fault = lambda request: Status(503)
    with pytest.raises(urllib.error.HTTPError) as failed:
        urllib.request.urlopen(listing)
    assert failed.value.code == 503
    proxy.fault = lambda request: CutBody(denied_body // 2)
    with pytest.raises(urllib.error.HTTPError) as cut:
        urllib.request.urlopen(listing)
    assert len(cut.value.fp.fp.read()) == denied_body // 2
    assert proxy.counts() == {"LIST": 3}
    proxy.refuse()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(listing)
    proxy.accept()
    proxy.fault = lambda request: None
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(listing)
    assert proxy.counts() == {"LIST": 4}


def test_the_workload_keeps_its_invariant_at_every_step(start, tmp_path):
    worker = start("python", load=False)

    def reopen(db):
        if db:
            db.close()
        db = worker.open(tmp_path / "work.db")
        db.run("PRAGMA journal_mode=WAL")
        return db

    work = Workload(3, reopen)
    serials = []
    for n in range(300):
        work.step()
        if n % 50 == 0:
            work.reopen()
            serials.append(serial_if_consistent(work.db))
    for name in STEPS:
        getattr(work, name)()
        serials.append(serial_if_consistent(work.db))
    work.big(3)
    work.forget_big()
    serials.append(serial_if_consistent(work.db))
    assert serials == sorted(serials) and serials[-1] > 300
    assert work.db.one("PRAGMA integrity_check") == "ok"


def test_a_reader_notices_a_state_between_two_transactions(start, tmp_path):
    worker = start("python", load=False)
    work = Workload(3, lambda db: worker.open(tmp_path / "work.db"))
    for statement in ("UPDATE account SET balance = balance + 1 WHERE id = 5", "DELETE FROM meta WHERE k = 'items'",
                      "CREATE TABLE extra_x(a)"):
        work.db.run("BEGIN", statement)
        with pytest.raises((AssertionError, TypeError)):
            serial_if_consistent(work.db)
        work.db.run("ROLLBACK")
        serial_if_consistent(work.db)


def test_a_transcript_that_goes_otherwise_is_an_error(shell, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("# two shells\na> .open x.db\na> CREATE TABLE t(x);\na> INSERT INTO t VALUES ($N);\n"
                    "b> .open x.db\nb~ SELECT * FROM t;\n7\n")
    transcript.play(path, shell, {"N": "7"}, 1)
    (tmp_path / "x.db").unlink()
    with pytest.raises(AssertionError, match=r"t\.txt:6"):
        transcript.play(path, shell, {"N": "8"}, 0.1)
