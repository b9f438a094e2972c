"""One database, several replicas: each has all that was committed, and counts its transactions for itself."""

import itertools
import json

import pytest

from harness.location import Location
from harness.several import assert_each_is, bytes_in, content, primary_of, states
from harness.sql import fill, insert, restore, sync, txid
from harness.wait import until
from harness.worker import SqlError
from harness.workload import Workload

QUICK = dict(sync_interval="50ms", close_timeout="30s")


@pytest.fixture
def both(start, in_s3, in_folder, tmp_path):
    """A filled primary of both replicas."""
    db = start("python", in_s3).open(primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK))
    fill(db, rows=300)
    sync(db)
    return db


def test_mixed_work_is_in_each(start, in_s3, in_folder, tmp_path):
    worker = start("python", in_s3)
    uri = primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK)

    def reopen(db):
        if db:
            db.close()
        return worker.open(uri)

    work = Workload(7, reopen)
    for n in range(240):
        work.step()
        if n % 80 == 79:
            work.big(3)
            work.reopen()
    sync(work.db)
    assert len(in_s3.files(0)) > 3 and len(in_folder.files(0)) > 3
    assert_each_is(work.db, tmp_path, in_s3, in_folder)


def test_scalars_answer_for_the_first_and_status_has_a_row_for_each(start, in_s3, in_folder, tmp_path):
    """The second one was added when the first one was at a later transaction already: their TXIDs differ."""
    worker = start("python", in_s3)
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, **QUICK))
    fill(db)
    for _ in range(5):
        insert(db)
        sync(db)
    db.close()
    db = worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK))
    insert(db)
    last = sync(db)
    assert last == in_s3.last_txid() > in_folder.last_txid() > 0
    assert txid(db.one("SELECT litestream_txid()")) == last == txid(db.one("PRAGMA litestream_txid"))
    assert db.one("SELECT litestream_lag()") == 0
    rows = states(db)
    assert list(rows) == [in_s3.url, in_folder.url]
    assert [txid(row["txid"]) for row in rows.values()] == [last, in_folder.last_txid()]
    assert db.one("SELECT litestream_time()") == rows[in_s3.url]["time"]
    assert all(row["state"] == "idle" and "last_error" not in row for row in rows.values())
    console = worker.open(":memory:", "console").load()
    assert console.rows("SELECT url, txid FROM litestream_databases") == [[r["url"], r["txid"]] for r in rows.values()]
    # In the other order it is the other way round.
    db.close()
    db = worker.open(primary_of(tmp_path / "app.db", in_folder, in_s3, **QUICK))
    insert(db)
    assert sync(db) == in_folder.last_txid() < in_s3.last_txid()
    assert_each_is(db, tmp_path, in_s3, in_folder)


def test_the_same_replica_twice_is_refused(start, s3, in_s3, in_folder, tmp_path):
    endpoint = s3.endpoint.removeprefix("http://")
    bucket = in_s3.url.removeprefix("s3://").split("/")[0]
    (tmp_path / "link").symlink_to(tmp_path)
    worker = start("python", in_s3)
    for first, second in [
        (in_folder.url, in_folder.url),
        (in_folder.url, in_folder.url + "/"),
        (in_folder.url, f"file://{tmp_path}/./replica"),
        (in_folder.url, f"file://{tmp_path}/x/../replica"),
        (in_folder.url, f"file://{tmp_path}/link/replica"),
        (in_s3.full_url, in_s3.full_url),
        (in_s3.full_url, f"{in_s3.url}/?region=us-east-1&endpoint={s3.endpoint}/"),
        (in_s3.full_url, f"{in_s3.url}?endpoint={endpoint}&part-size=16777216"),
        (in_s3.full_url, f"s3://{bucket}.{endpoint}/app"),
        ("s3://bucket/app", "s3://bucket/app?endpoint=https://s3.amazonaws.com"),
        ("s3://bucket/app?region=eu-west-1", "s3://bucket/app?endpoint=https://s3.eu-west-1.amazonaws.com"),
    ]:
        uri = primary_of(tmp_path / "app.db", Location(first, tmp_path), Location(second, tmp_path))
        with pytest.raises(SqlError) as refused:
            worker.open(uri).rows("SELECT 1 FROM sqlite_schema")
        said = str(refused.value)
        assert "is given twice: each replica of a database has a URL of its own" in said, (first, second, said)
    assert not in_folder.folder.exists() and not (tmp_path / "app.db").exists()


def test_others_name_the_same_replicas_in_any_order(start, both, in_s3, in_folder, tmp_path):
    third = Location.file(tmp_path / "third")
    for worker, replicas in itertools.product(
        (both.worker, start("python", in_s3)), ([in_s3], [in_folder], [in_s3, third], [in_s3, in_folder, third])
    ):
        with pytest.raises(SqlError) as refused:
            worker.open(primary_of(tmp_path / "app.db", *replicas), "other").rows("SELECT * FROM t")
        said = str(refused.value)
        assert "is asked for, but" in said and "is open with replica=" in said, said
        named = [r for r in (in_s3, in_folder, third) if (r in replicas) != (r in (in_s3, in_folder))]
        assert all(r.url in said for r in named), said
    other = start("python", in_s3).open(primary_of(tmp_path / "app.db", in_folder, in_s3, **QUICK))
    insert(other)
    assert sync(other) == in_folder.last_txid()
    assert not third.folder.exists()


def test_other_options_are_refused_with_both_values(both, in_s3, in_folder, tmp_path):
    for given, words in [
        (dict(sync_interval="2s"), ["sync_interval=2s", "sync_interval=50ms"]),
        (dict(spool_limit="5MiB"), ["spool_limit=5242880", "spool_limit=1073741824"]),
        (dict(sync_replicas="any"), ["sync_replicas=1", "sync_replicas=all"]),
        (dict(watch_interval="3s"), ["watch_interval=3s", "watch_interval=10s"]),
        (dict(auto_recover="off"), ["auto_recover=false", "auto_recover=true"]),
        (dict(rewound="stop"), ["rewound=stop", "rewound=forward"]),
    ]:
        with pytest.raises(SqlError) as refused:
            both.worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder, **given), "other").rows("SELECT * FROM t")
        assert all(word in str(refused.value) for word in words), str(refused.value)
    # What is not named is what is open.
    same = both.worker.open(primary_of(tmp_path / "app.db", in_s3, in_folder), "same")
    insert(same)
    assert sync(same) == in_s3.last_txid()


def test_a_replica_reads_the_first_that_answers(start, s3, both, in_s3, in_folder, tmp_path):
    expected = both.content()
    worker = start("python", in_s3)
    ro = dict(mode="ro", open_timeout="1s")
    for replicas, read in [
        ((in_s3, in_folder), in_s3),
        ((in_folder, in_s3), in_folder),
        ((in_s3.at("http://127.0.0.1:9"), in_folder), in_folder),
        ((Location.file(tmp_path / "nothing"), in_s3), in_s3),
    ]:
        replica = worker.open(primary_of("name.db", *replicas, **ro))
        assert replica.content().tables == expected.tables
        assert list(states(replica)) == [read.url]
        replica.close()
    away = (in_s3.at("http://127.0.0.1:9"), Location.file(tmp_path / "nothing"))
    with pytest.raises(SqlError) as refused:
        worker.open(primary_of("name.db", *away, **ro)).rows("SELECT * FROM t")
    assert "127.0.0.1:9" in str(refused.value) and str(tmp_path / "nothing") in str(refused.value)


def test_each_process_sees_and_syncs_all_replicas(start, both, in_s3, in_folder, tmp_path):
    uri = primary_of(tmp_path / "app.db", in_s3, in_folder, **QUICK)
    standby = start("python", in_s3).open(uri)
    insert(standby, rows=10)
    assert sync(standby) == in_s3.last_txid()
    assert content_is(standby, in_s3, in_folder, tmp_path, "first")
    rows = states(standby)
    assert list(rows) == [in_s3.url, in_folder.url]
    assert all(row["state"] == "standby" and row["lag"] < 0.5 and "last_error" not in row for row in rows.values())
    assert [txid(row["txid"]) for row in rows.values()] == [in_s3.last_txid(), in_folder.last_txid()]
    # Whoever takes over publishes to all.
    both.worker.kill()
    insert(standby, rows=10)
    assert sync(standby, 30) == in_s3.last_txid()
    assert_each_is(standby, tmp_path, in_s3, in_folder)


def content_is(db, *rest) -> bool:
    *locations, folder, name = rest
    assert_each_is(db, folder, *locations, name=name)
    return True


def test_snapshot_and_resume_take_one_or_all(both, in_s3, in_folder, tmp_path):
    insert(both)
    assert txid(both.one("SELECT litestream_snapshot(?)", in_folder.url)) == in_folder.last_txid()
    assert in_folder.files(9) and not in_s3.files(9)
    insert(both)
    assert txid(both.one("SELECT litestream_snapshot()")) == in_s3.last_txid()
    assert [f.max for f in in_s3.files(9)] == [in_s3.last_txid()]
    assert in_folder.files(9)[-1].max == in_folder.last_txid()
    insert(both)
    assert txid(both.one("SELECT litestream_resume('force', ?)", in_folder.url)) == in_folder.last_txid()
    assert txid(both.one("SELECT litestream_resume(?)", in_s3.full_url)) == in_s3.last_txid()
    assert txid(both.one("SELECT litestream_resume()")) == in_s3.last_txid()
    for ask in ("litestream_snapshot(?)", "litestream_resume(?)", "litestream_resume('force', ?)"):
        with pytest.raises(SqlError) as refused:
            both.one(f"SELECT {ask}", "s3://bucket/nothing")
        assert all(url in str(refused.value) for url in ("s3://bucket/nothing", in_s3.url, in_folder.url))
    console = both.worker.open(":memory:", "console").load()
    assert [console.rows("SELECT * FROM litestream_verify(?)", r.full_url) for r in (in_s3, in_folder)] == [[], []]


def test_two_servers_with_one_url_are_told_apart(start, in_s3, tmp_path):
    """The URLs differ in nothing but the address of the server."""
    from harness.s3 import S3Server

    server = S3Server(tmp_path / "s3")
    try:
        bucket = in_s3.url.removeprefix("s3://").split("/")[0]
        elsewhere = Location.s3(server.bucket(bucket), "app", server.endpoint)
        assert elsewhere.url == in_s3.url
        db = start("python", in_s3).open(primary_of(tmp_path / "app.db", in_s3, elsewhere, **QUICK))
        fill(db)
        sync(db)
        with pytest.raises(SqlError, match="add its endpoint"):
            db.one("SELECT litestream_snapshot(?)", in_s3.url)
        insert(db)
        assert txid(db.one("SELECT litestream_snapshot(?)", elsewhere.full_url)) == elsewhere.last_txid()
        assert elsewhere.files(9) and not in_s3.files(9)
        sync(db)
        assert_each_is(db, tmp_path, in_s3, elsewhere)
        server.stop()
        insert(db)
        with pytest.raises(SqlError) as late:
            sync(db, 1)
        assert server.endpoint in str(late.value), "the error says which of them"
        errors = [row.get("last_error", "") for row in json.loads(db.one("SELECT litestream_status()"))["databases"]]
        assert not errors[0] and server.endpoint in errors[1]
    finally:
        server.wipe()


@pytest.mark.parametrize("when", ["while both answer", "while one is away"])
def test_killed_in_the_middle_and_opened_again(start, through_proxy, in_s3, in_folder, proxy, tmp_path, when):
    uri = primary_of(tmp_path / "app.db", through_proxy, in_folder, **QUICK)
    db = start("python", in_s3).open(uri)
    fill(db, rows=3000)
    sync(db)
    if when == "while one is away":
        proxy.refuse()
    before = {location.url: bytes_in(location) for location in (in_s3, in_folder)}
    for n in range(60):
        insert(db, rows=3)
        if n % 20 == 19:
            db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    db.worker.kill()
    if when == "while one is away":
        proxy.accept()
    db = start("python", in_s3).open(uri)
    insert(db)
    sync(db)
    assert_each_is(db, tmp_path, in_s3, in_folder)
    database = (tmp_path / "app.db").stat().st_size
    for location in (in_s3, in_folder):
        sent = bytes_in(location) - before[location.url]
        assert sent < database / 2, f"{sent} bytes to {location.url}: the whole database was sent again"
