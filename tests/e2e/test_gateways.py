"""Gateways that speak S3 in their own way: they send answers in chunks without telling the length, or a part without the
size of the whole, refuse to delete several objects at once, list objects in any order, or answer an upload with a web page.
"""

import random
import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from harness import litestream
from harness.proxy import Answer, Rewrite, Status
from harness.sql import fill, insert, restore, status, sync
from harness.wait import until

SEVERAL = {"levels": "1s", "l0_retention": "1s"}


def in_chunks(answer: Answer) -> Answer:
    return replace(answer, chunked=True)


def size_unknown(answer: Answer) -> Answer:
    headers = dict(answer.headers)
    if "content-range" in headers:
        headers["content-range"] = headers["content-range"].split("/")[0] + "/*"
    return replace(answer, headers=headers, chunked=True)


@pytest.mark.parametrize("change", [in_chunks, size_unknown])
def test_answers_without_a_length_are_read(start, host, in_s3, through_proxy, proxy, tmp_path, change):
    proxy.fault = lambda request: Rewrite(change) if request.kind in ("GET", "HEAD", "LIST") else None
    primary = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", levels="1s"))
    fill(primary, 3000, 1000)
    sync(primary)
    for _ in range(3):
        insert(primary)
        sync(primary)
    worker = start(host, through_proxy)
    replica = worker.open(through_proxy.replica(poll_interval="1h"))
    assert replica.content() == primary.content()
    restore(replica, through_proxy, tmp_path / "copy.db")
    console = worker.open(":memory:", "console")
    console.load()
    assert worker.open(tmp_path / "copy.db", "copy").content() == primary.content()
    assert console.rows("SELECT * FROM litestream_verify(?)", through_proxy.full_url) == []
    assert len(console.rows("SELECT * FROM litestream_history(?)", through_proxy.full_url)) >= 4
    until(lambda: [f for f in through_proxy.files(1) if f.max >= 4], 15, "files are merged")


@pytest.mark.parametrize("refusal", [
    Status(400, b"<Error><Code>InvalidArgument</Code><Message>no</Message></Error>"),
    Status(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"),
    Status(405), Status(501),
    Status(200, b"<html>Sign in</html>"),
], ids=["400", "403", "405", "501", "web page"])
def test_a_store_that_deletes_no_more_than_one_at_a_time(start, through_proxy, proxy, tmp_path, refusal):
    bulk = lambda request: request.method == "POST" and "delete" in request.target
    proxy.fault = lambda request: refusal if bulk(request) else None
    db = start("python", through_proxy).open(
        through_proxy.primary(tmp_path / "app.db", sync_interval="10ms", **SEVERAL))
    fill(db, 10)

    def cleared():
        insert(db)
        sync(db)
        return len([r for r in proxy.requests if r.method == "DELETE"]) >= 4

    until(cleared, 20, "files are deleted one by one", every=0.1)
    assert "last_error" not in status(db)
    assert len([r for r in proxy.requests if bulk(r)]) <= 4, "it is not asked for ever"


def test_a_listing_in_no_order_is_no_gap(start, host, in_s3, through_proxy, proxy, tmp_path):
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db", sync_interval="10ms"))
    fill(primary, 10)
    sync(primary)
    for _ in range(30):
        insert(primary)
        sync(primary)
    pages = _Pages(7)
    proxy.fault = pages.fault
    worker = start(host, through_proxy)
    replica = worker.open(through_proxy.replica(poll_interval="1h"))
    assert replica.content() == primary.content()
    assert pages.served > 3
    restore(replica, through_proxy, tmp_path / "copy.db")
    assert worker.open(tmp_path / "copy.db", "copy").content() == primary.content()
    insert(primary)
    sync(primary)
    replica.one("PRAGMA litestream_poll")
    assert replica.content() == primary.content()


class _Pages:
    """Lists a bucket in pages of `size` objects in no order, as directory buckets do: with tokens."""

    def __init__(self, size: int):
        self.size, self.served, self.found = size, 0, {}

    def fault(self, request):
        if request.kind != "LIST":
            return None
        query = parse_qs(urlsplit(request.target).query)
        if "continuation-token" in query:
            token = query["continuation-token"][0]
            return Status(200, self.page(token, int(token.split("-")[1])), (("content-type", "application/xml"),))
        token = f"{len(self.found)}-0"

        def change(answer: Answer) -> Answer:
            found = re.findall(rb"<Contents>.*?</Contents>", answer.body, flags=re.DOTALL)
            random.Random(7).shuffle(found)
            self.found[token.split("-")[0]] = found
            return Answer(200, {"content-type": "application/xml"}, self.page(token, 0))

        return Rewrite(change)

    def page(self, token: str, at: int) -> bytes:
        listing = token.split("-")[0]
        part, rest = self.found[listing][at : at + self.size], self.found[listing][at + self.size :]
        self.served += 1
        end = f"<NextContinuationToken>{listing}-{at + self.size}</NextContinuationToken>" if rest else ""
        return b"<ListBucketResult><IsTruncated>%s</IsTruncated>%s%s</ListBucketResult>" % (
            b"true" if rest else b"false", b"".join(part), end.encode())


def test_an_upload_that_a_web_page_answers_is_not_taken_for_stored(start, in_s3, through_proxy, proxy, tmp_path):
    db = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db"))
    fill(db, 10)
    sync(db)
    seen = []

    def first_put(request):
        if request.method == "PUT" and not seen:
            seen.append(request)
            return Status(200, b"<html>Sign in</html>", (("content-type", "text/html"),))
        return None

    proxy.fault = first_put
    insert(db)
    sync(db)
    assert seen and in_s3.gaps() == []
    copy = db.worker.open(litestream.restore(in_s3, tmp_path / "copy.db"), "copy")
    assert copy.content() == db.content()
