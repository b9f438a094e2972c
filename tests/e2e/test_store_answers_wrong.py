"""Something between the store and us answers something else: a web page, another range than was asked for, half of it, an
empty page, a refusal. Asked once more it answers rightly, and nobody notices. If it goes on, the statement fails with
`SQLITE_IOERR`: `SQLITE_CORRUPT` is for content that came whole and is wrong, and programs delete databases on it. The
message says what the server did.
"""

from collections import Counter
from dataclasses import replace

import pytest

from harness import outage
from harness.proxy import Answer, CutBody, Rewrite, Status
from harness.sql import fill, insert, restore, sync
from harness.worker import SqlError

PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


def web_page(answer: Answer) -> Answer:
    return Answer(200, {"content-type": "text/html; charset=utf-8"}, PAGE)


def bare_page(answer: Answer) -> Answer:
    """Without the header that tells it."""
    return Answer(200, {"content-type": "application/octet-stream"}, PAGE)


def other_range(answer: Answer) -> Answer:
    if "content-range" not in answer.headers:
        return web_page(answer)
    return replace(answer, headers=answer.headers | {"content-range": f"bytes 0-9/{10 ** 6}"}, body=b"0123456789")


def no_range(answer: Answer) -> Answer:
    headers = {k: v for k, v in answer.headers.items() if k != "content-range"}
    return replace(answer, code=206, headers=headers)


def longer(answer: Answer) -> Answer:
    """The right head, and more behind it: what ignores a range and does not say so."""
    return replace(answer, body=answer.body + b"x" * 1000)


def nothing(answer: Answer) -> Answer:
    return Answer(204, {}, b"")


WRONG = {
    "web page": Rewrite(web_page),
    "a page that does not say so": Rewrite(bare_page),
    "another range": Rewrite(other_range),
    "a range without its place": Rewrite(no_range),
    "more than was asked for": Rewrite(longer),
    "nothing": Rewrite(nothing),
    "cut": CutBody(7),
    "refusal": Status(403, outage.ACCESS_DENIED),
    "refusal by a gateway": Status(400, PAGE),
}


@pytest.fixture(params=WRONG)
def wrong(request):
    return WRONG[request.param]


@pytest.fixture
def primary(start, in_s3, tmp_path):
    """Its replica has a file that comes whole and one that comes page by page."""
    db = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(db, 3000, 1000)
    sync(db)
    insert(db, 5)
    sync(db)
    return db


def once(fault):
    """Each request goes wrong when it is made for the first time."""
    seen = Counter()

    def of(request):
        # What is cut is asked for from where it was cut, which is another range.
        asked = (request.method, request.target, fault != WRONG["cut"] and request.headers.get("range"))
        seen[asked] += 1
        return fault if seen[asked] == 1 else None

    return of


def test_one_wrong_answer_is_not_noticed(start, primary, through_proxy, proxy, tmp_path, wrong):
    worker = start("apsw", through_proxy)
    proxy.fault = once(wrong)
    replica = worker.open(through_proxy.replica(poll_interval="1h"))
    assert replica.content() == primary.content()
    insert(primary)
    sync(primary)
    replica.one("PRAGMA litestream_poll")
    assert replica.one("SELECT count(*) FROM t") == 3006
    restore(replica, through_proxy, tmp_path / "copy.db")
    assert worker.open(tmp_path / "copy.db", "copy").content() == primary.content()
    console = worker.open(":memory:", "console")
    console.load()
    assert console.rows("SELECT * FROM litestream_verify(?)", through_proxy.full_url) == []


@pytest.mark.parametrize("wrong", [WRONG[name] for name in WRONG if name != "cut"], ids=[n for n in WRONG if n != "cut"])
def test_wrong_answers_without_end_are_io_errors_that_say_what_came(start, primary, through_proxy, proxy, wrong):
    worker = start("apsw", through_proxy)
    replica = worker.open(through_proxy.replica(poll_interval="1h"))
    proxy.fault = lambda request: wrong
    with pytest.raises(SqlError) as failed:
        replica.one("SELECT sum(length(data)) FROM t")
    assert failed.value.kind in ("IOError", "PermissionsError"), failed.value
    with pytest.raises(SqlError) as failed:
        worker.open(through_proxy.replica("other.db", poll_interval="59m"), "other")
    assert failed.value.kind in ("IOError", "PermissionsError", "CantOpenError"), failed.value
    assert proxy.endpoint in str(failed.value), failed.value
    proxy.fault = lambda request: None
    assert replica.content() == primary.content()
    assert worker.open(through_proxy.replica("other.db", poll_interval="59m"), "other").content() == primary.content()
