"""The store answers 409: something else was under way at the same name, or the bucket was just changed.

It says nothing about who wrote what, so it is no other writer. For a while nobody notices; for ever, status names it, and
replication goes on by itself when it stops. (0.1.0 took a 409 that it did not know for another writer and stopped until
somebody called `litestream_resume()`.)
"""

import json

import pytest

from harness import outage
from harness.proxy import Status
from harness.s3 import SECRET_KEY
from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.worker import SqlError

CODES = ["ConditionalRequestConflict", "OperationAborted", "ConcurrentModification", "BucketNotReady", ""]


def answer(code: str) -> Status:
    return Status(409, f"<Error><Code>{code}</Code><Message>Try again.</Message></Error>".encode() if code else b"")


@pytest.mark.parametrize("code", CODES)
def test_a_conflict_that_passes_is_not_noticed(code, start, through_proxy, in_s3, proxy, tmp_path):
    db = start("python", through_proxy, env=outage.logged(tmp_path)).open(through_proxy.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    left = 2

    def fault(request):
        nonlocal left
        left -= request.method == "PUT"
        return answer(code) if request.method == "PUT" and left >= 0 else None

    proxy.fault = fault
    insert(db)
    sync(db)
    assert left < 0
    assert json.loads(status(db))["databases"][0]["state"] != "stopped"
    outage.assert_caught_up(db, in_s3, tmp_path)
    assert outage.changes(tmp_path) == []


def test_a_conflict_for_ever_is_named_and_ends_when_the_store_says_so(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.fault = lambda request: answer("ConcurrentModification") if request.method == "PUT" else None
    assert outage.work(db) < 1
    until(lambda: "ConcurrentModification" in status(db), 15, "status names the conflict")
    with pytest.raises(SqlError) as refused:
        sync(db, 0.5)
    shown = json.loads(status(db))["databases"][0]
    assert shown["state"] != "stopped", shown
    assert "for now" in shown["last_error"] and through_proxy.settings["endpoint"] in shown["last_error"], shown
    assert SECRET_KEY not in str(refused.value) + status(db) + (tmp_path / "host.log").read_text()
    proxy.fault = lambda request: None
    outage.assert_caught_up(db, in_s3, tmp_path)
    outage.assert_told(tmp_path, "fails", "works")
