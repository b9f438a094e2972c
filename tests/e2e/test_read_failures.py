"""Why a read of a replica failed. SQLite has only "disk I/O error" for the statement; the reason is in the status, in the row
of the database until a page comes from the store again, and among the failures of the process after that.
"""

import json

import pytest

from harness import outage
from harness.proxy import Status
from harness.s3 import SECRET_KEY
from harness.sql import fill, status, sync
from harness.worker import SqlError

TOTAL = "SELECT sum(length(data)) FROM t"
UNAVAILABLE = b"<Error><Code>InternalError</Code><Message>The disk is on fire</Message></Error>"
FAULTS = {
    "denied": (Status(403, outage.ACCESS_DENIED), "access to bucket"),
    "bad request": (Status(400, b"<Error><Code>Strange</Code><Message>No such moon</Message></Error>"), "No such moon"),
    "gone": (Status(404, b"<Error><Code>NoSuchBucket</Code></Error>"), "does not exist"),
    "a web page": (Status(200, b"<html>"), "answer of 6 bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_status_says_why_a_read_failed(start, host, in_s3, through_proxy, proxy, tmp_path, fault):
    answer, reason = FAULTS[fault]
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary, 3000, 1000)
    sync(primary)
    replica = start(host, through_proxy).open(through_proxy.replica(tmp_path / "seen.db", poll_interval="1h"))
    replica.rows("SELECT * FROM sqlite_schema")
    proxy.fault = lambda request: answer if request.kind == "GET" else None
    with pytest.raises(SqlError):
        replica.one(TOTAL)
    told = json.loads(status(replica))
    assert reason in told["databases"][0]["last_error"]
    failure = told["failures"][0]
    assert failure["state"] == "read failed" and failure["path"].endswith("seen.db")
    assert reason in failure["last_error"]
    assert replica.one("SELECT last_error FROM litestream_status WHERE role = 'replica'") == \
        told["databases"][0]["last_error"]
    assert SECRET_KEY not in status(replica)
    # A read from the cache proves nothing.
    replica.rows("SELECT * FROM sqlite_schema")
    assert "last_error" in json.loads(status(replica))["databases"][0]
    proxy.fault = lambda request: None
    # A reader that finds files gone looks around, which may have failed too.
    replica.one("PRAGMA litestream_poll")
    assert replica.one(TOTAL) == primary.one(TOTAL)
    told = json.loads(status(replica))
    assert "last_error" not in told["databases"][0] and reason in told["failures"][0]["last_error"]
