"""The store takes the condition "only if it is not there yet", and overwrites all the same.

Some gateways drop a header that they do not know. Two primaries would bury each other's transactions, and the
status called the store's fencing `atomic`. Now that is said only of a store that has kept the condition once: a
file that was just written is written once more as it is. One that ignores it is asked first, and status says so.
"""

import json
import shutil

import pytest

from harness.proxy import WithoutHeader
from harness.sql import fill, insert, status, sync
from harness.wait import until
from harness.worker import SqlError


def fencing(db) -> str:
    return json.loads(status(db))["databases"][0]["fencing"]


def started(start, location, tmp_path):
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(db, rows=5)
    sync(db)
    insert(db)
    sync(db)
    return db


def test_a_store_that_ignores_the_condition_is_asked_first(start, through_proxy, proxy, tmp_path):
    proxy.fault = lambda request: WithoutHeader("if-none-match")
    db = started(start, through_proxy, tmp_path)
    until(lambda: fencing(db) == "look first", what="what the store does is found out")
    assert "ignores the condition" in json.loads(status(db))["databases"][0]["notice"]
    # Another primary writes the next transaction.
    last = through_proxy.files(0)[-1]
    theirs = last.path.with_name(f"{last.max + 1:016x}-{last.max + 1:016x}.ltx")
    shutil.copy(last.path, theirs)
    before = theirs.read_bytes()
    insert(db)
    with pytest.raises(SqlError):
        sync(db, 3)
    assert theirs.read_bytes() == before, "it is not buried"


def test_a_store_that_keeps_the_condition_is_called_atomic(start, through_proxy, proxy, tmp_path):
    db = started(start, through_proxy, tmp_path)
    until(lambda: fencing(db) == "atomic", what="what the store does is found out")
    for _ in range(5):
        insert(db)
        sync(db)
    assert set(proxy.stored().values()) == {1}, "nothing is written twice"
    refused = [status for request, status in proxy.answers if request.method == "PUT" and status == 412]
    assert len(refused) == 1, "it is asked once in a process"
    source = db.content()
    db.close()
    again = db.worker.open(through_proxy.primary(tmp_path / "app.db"))
    assert again.content() == source
