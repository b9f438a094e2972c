"""What connections to a replica share, and what a process leaves behind for the next one."""

import pytest

from harness import proc
from harness.sql import fill, insert, sync
from harness.wait import until
from harness.worker import SqlError

SCHEMA = "SELECT name, sql FROM sqlite_schema ORDER BY 1"
QUERY = "SELECT count(*), sum(length(data)) FROM t"
# Nothing is asked for by itself.
QUIET = {"poll_interval": "1h"}


@pytest.fixture
def replicated(start, in_s3, tmp_path):
    """A database with a large file and some small ones in its replica, and the primary."""
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary, rows=20_000)
    sync(primary)
    for _ in range(5):
        insert(primary)
        sync(primary)
    return primary


def asked(proxy, since: int) -> list[str]:
    return [f"{r.method} {r.target}" for r in proxy.requests[since:]]


def test_a_second_connection_asks_the_store_nothing(start, host, replicated, through_proxy, proxy):
    worker = start(host, through_proxy)
    first = worker.open(through_proxy.replica(**QUIET), "first")
    schema, answer = first.rows(SCHEMA), first.rows(QUERY)
    before = len(proxy.requests)
    for n in range(5):
        another = worker.open(through_proxy.replica(**QUIET), f"another {n}")
        assert another.rows(SCHEMA) == schema and another.rows(QUERY) == answer
    assert asked(proxy, before) == []


def test_a_new_process_with_a_warm_cache_folder_needs_the_listing_only(start, host, replicated, through_proxy, proxy,
                                                                      tmp_path):
    uri = through_proxy.replica(cache_dir=tmp_path / "cache", **QUIET)
    cold = start(host, through_proxy).open(uri)
    schema, answer = cold.rows(SCHEMA), cold.rows(QUERY)
    cold.worker.kill()

    before = len(proxy.requests)
    warm = start(host, through_proxy).open(uri)
    assert warm.rows(SCHEMA) == schema
    kinds = [r.kind for r in proxy.requests[before:]]
    assert set(kinds) == {"LIST"} and len(kinds) <= 2
    before = len(proxy.requests)
    assert warm.rows(QUERY) == answer
    assert asked(proxy, before) == []

    # What is new is fetched, and nothing else.
    insert(replicated)
    sync(replicated)
    before = len(proxy.requests)
    newer = start(host, through_proxy).open(uri)
    assert newer.rows(QUERY) == replicated.rows(QUERY) != answer
    assert [r.kind for r in proxy.requests[before:]].count("GET") == 1


def test_a_cache_folder_without_its_content_costs_requests_and_nothing_else(start, replicated, through_proxy, tmp_path):
    uri = through_proxy.replica(cache_dir=tmp_path / "cache", **QUIET)
    content = start("python", through_proxy).open(uri).content()
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) > 10
    for n, path in enumerate(files):
        whole = path.read_bytes()
        path.write_bytes([b"", whole[: len(whole) // 2], bytes(len(whole)), whole[1:] + whole[:1]][n % 4])
    assert start("python", through_proxy).open(uri).content() == content
    assert content == replicated.content()


def test_a_cache_folder_that_cannot_be_used_is_named(start, in_folder, tmp_path):
    primary = start("python").open(in_folder.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    (tmp_path / "file").write_text("")
    with pytest.raises(SqlError, match=f"cache_dir={tmp_path / 'file'}.*give a folder that can be written"):
        start("apsw").open(in_folder.replica(cache_dir=tmp_path / "file")).rows(SCHEMA)


def test_sqlite_keeps_its_own_cache_while_the_replica_is_unchanged(start, replicated, through_proxy, proxy):
    worker = start("apsw", through_proxy)
    replica = worker.open(through_proxy.replica(poll_interval="50ms"))
    misses = lambda: worker.call("cache_misses", name="db")  # noqa: E731
    point = "SELECT sum(length(data)) FROM t WHERE id BETWEEN 100 AND 200"
    answer = replica.rows(point)
    before, polls = misses(), len(proxy.requests)
    assert before > 0
    until(lambda: len(proxy.requests) >= polls + 5, what="some polls")
    for _ in range(20):
        assert replica.rows(point) == answer
    assert misses() == before
    # The counter counts: what changed is read again.
    insert(replicated)
    sync(replicated)
    until(lambda: replica.rows("SELECT count(*) FROM t") == replicated.rows("SELECT count(*) FROM t"))
    replica.rows(point)
    assert misses() > before


def test_fifty_connections_take_ten_megabytes_more_than_one(start, host, replicated, through_proxy):
    worker = start(host, through_proxy)
    statements = [SCHEMA, "SELECT length(data) FROM t WHERE id = 4711", "SELECT id FROM t WHERE name = 'row 42'"]

    def connect(n: int) -> None:
        connection = worker.open(through_proxy.replica(), f"connection {n}")
        for statement in statements:
            connection.rows(statement)

    connect(1)
    one = proc.rss_kib(worker.pid)
    for n in range(2, 51):
        connect(n)
    assert proc.rss_kib(worker.pid) - one <= 10 * 1024
