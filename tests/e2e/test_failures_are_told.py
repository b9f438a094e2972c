"""Replication that does not work is told on standard error, where nobody asked for a log.

A bucket that is not there, a wrong key, an endpoint where nobody listens, no credentials, a store that goes away later: a program
of a few lines ends with exit code 0 all the same, since its database is well. Standard error then has one line for each
event: the first failure of the replica, its end, and what stays unsent when the last connection closes. A program whose
replication works prints nothing; at `info` it says where it replicates to. What is wrong with the log itself is told
there too. No line holds a secret.
"""

import re
import sqlite3

import pytest

from harness import outage
from harness.healing import state_of
from harness.proxy import LateAnswer, Status
from harness.s3 import SECRET_KEY, credentials, free_port
from harness.script import run
from harness.sql import fill, insert, sync
from harness.wait import until

LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (ERROR|WARN|INFO) litestream: (.*)")

WRITES = """
load()
db = connect(uri)
db.execute("CREATE TABLE t(x)")
db.execute("INSERT INTO t VALUES (1)")
db.close()
"""


def lines(text: str) -> list[tuple[str, str]]:
    """Level and message of each line, all of which are ours."""
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    assert SECRET_KEY not in text
    return [(match[1], match[2]) for match in found]


def trouble(kind: str, in_s3, folder):
    """A replica that cannot be written, the environment, and what a line says of it."""
    if kind == "no bucket":
        return in_s3.__class__.s3(folder / "no-such-bucket", "app", in_s3.settings["endpoint"]), in_s3.env, "bucket"
    if kind == "wrong key":
        return in_s3, credentials(secret_key=SECRET_KEY + "x"), "rejects the signature"
    if kind == "nobody listens":
        port = free_port()
        return in_s3.at(f"http://127.0.0.1:{port}"), in_s3.env, f"127.0.0.1:{port}"
    return in_s3, {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder)}, "credentials"


@pytest.mark.parametrize("kind", ["no bucket", "wrong key", "nobody listens", "no credentials"])
def test_a_short_program_whose_replica_cannot_be_written(in_s3, tmp_path, kind):
    location, env, named = trouble(kind, in_s3, tmp_path)
    database = tmp_path / "app.db"
    done = run(WRITES, tmp_path, env, uri=location.primary(database, close_timeout="300ms"))
    said = lines(done.stderr)
    assert [level for level, _ in said] == ["WARN", "WARN"], done.stderr
    assert all(str(database) in message for _, message in said)
    assert re.search(named, said[0][1]), said[0][1]
    assert "not everything is in" in said[1][1] and location.url in said[1][1] and "local disk" in said[1][1]
    assert sqlite3.connect(database).execute("SELECT x FROM t").fetchall() == [(1,)]


def test_nothing_is_said_where_all_is_well(location, tmp_path):
    done = run(WRITES, tmp_path, location.env, uri=location.primary(tmp_path / "app.db"))
    assert done.stderr == ""


def test_a_folder_that_cannot_be_made(in_folder, tmp_path):
    (tmp_path / "replica").write_text("a file")
    done = run(WRITES, tmp_path, uri=in_folder.primary(tmp_path / "app.db", close_timeout="300ms"))
    assert len(lines(done.stderr)) == 2 and done.stderr.count(str(tmp_path / "replica")) >= 2


def test_a_failure_and_its_end_are_told_once_each(start, through_proxy, in_s3, proxy, tmp_path):
    log = {"LITESTREAM_LOG_FILE": str(tmp_path / "log")}
    db = start("python", through_proxy, env=log).open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.fault = lambda request: Status(403, outage.ACCESS_DENIED)
    said = tmp_path / "log"
    insert(db)
    until(lambda: said.read_text().count("\n") == 1, 15, "the failure")
    asked = len(proxy.requests)
    until(lambda: insert(db) or len(proxy.requests) >= asked + 4, 15, "more attempts that fail", every=0.1)
    proxy.fault = lambda request: None
    outage.assert_caught_up(db, in_s3, tmp_path)
    until(lambda: said.read_text().count("\n") == 2, 15, "its end")
    (first, failure), (last, end) = lines(said.read_text())
    assert (first, last) == ("WARN", "WARN") and "replication goes on" in end
    assert "denied" in failure.lower() and "tried again" in failure


def test_a_close_while_replication_is_stopped_says_that_commits_are_missing(in_folder, tmp_path):
    first, second = (in_folder.primary(tmp_path / name) for name in ("first.db", "second.db"))
    done = run(WRITES + WRITES.replace("(uri)", "(second)"), tmp_path, uri=first, second=second)
    (stop, why), (close, what) = lines(done.stderr)
    assert (stop, close) == ("ERROR", "WARN") and "litestream_resume" in why
    assert f"second.db: closed with commits that are not in {in_folder.url}" in what


def test_where_a_primary_replicates_to_is_said_at_info(in_s3, tmp_path):
    env = in_s3.env | {"LITESTREAM_LOG_LEVEL": "info"}
    done = run(WRITES + "print(one(connect(':memory:'), 'SELECT litestream_version()'))", tmp_path, env,
               uri=in_s3.primary(tmp_path / "app.db"))
    begins = [(level, message) for level, message in lines(done.stderr) if "a primary of" in message]
    assert len(begins) == 1 and begins[0][0] == "INFO"
    for what in (str(tmp_path / "app.db"), in_s3.url, in_s3.settings["endpoint"], done.stdout.strip()):
        assert what in begins[0][1]


@pytest.mark.parametrize("log", ["level", "folder", "both", "full", "off"])
def test_what_is_wrong_with_the_log_is_told_once(in_folder, tmp_path, log):
    nowhere = str(tmp_path / "no-such-folder" / "log")
    env, told = {
        "level": ({"LITESTREAM_LOG_LEVEL": "infos"}, ["infos"]),
        "folder": ({"LITESTREAM_LOG_FILE": nowhere}, [nowhere]),
        "both": ({"LITESTREAM_LOG_LEVEL": "WARNING!", "LITESTREAM_LOG_FILE": nowhere}, ["WARNING!", nowhere]),
        # It can be opened, and no line can be written to it.
        "full": ({"LITESTREAM_LOG_FILE": "/dev/full", "LITESTREAM_LOG_LEVEL": "info"}, ["/dev/full"]),
        "off": ({"LITESTREAM_LOG_FILE": nowhere, "LITESTREAM_LOG_LEVEL": "off"}, []),
    }[log]
    done = run(WRITES + WRITES.replace("CREATE TABLE t(x)", "SELECT 1"), tmp_path, env,
               uri=in_folder.primary(tmp_path / "app.db"))
    said = lines(done.stderr)
    assert len(said) == len(told), done.stderr
    assert all(name in message for name, (_, message) in zip(told, said)), done.stderr


def test_nothing_is_wrong_while_the_first_copy_goes_out(start, through_proxy, in_s3, proxy, tmp_path):
    """The database could not be read at first, as somebody else had it in rollback mode; that is over."""
    proxy.fault = lambda request: LateAnswer(8) if request.method == "PUT" else None
    path = tmp_path / "app.db"
    reader = sqlite3.connect(path, isolation_level=None)
    reader.executescript("CREATE TABLE t(id INTEGER PRIMARY KEY, name, data); BEGIN; SELECT * FROM t")
    reader.execute("SELECT * FROM t").fetchall()
    db = start("python", through_proxy).open(through_proxy.primary(path))
    until(lambda: "not in WAL mode" in state_of(db).get("last_error", ""), 20, "it cannot be read")
    reader.close()
    insert(db)
    until(lambda: state_of(db)["state"] in ("copying", "publishing"), 20, "the copy goes")
    assert "last_error" not in state_of(db)
    proxy.fault = lambda request: None
    outage.assert_caught_up(db, in_s3, tmp_path)
