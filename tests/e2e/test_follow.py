"""A copy that follows: an ordinary database file, for any reader, that takes each transaction of a replica.

LITESTREAM_FOLLOW_TRANSACTIONS and LITESTREAM_FOLLOW_KILLS make the first test longer: 1000 and 100 are its long form, which
`scripts/follow.py` runs too.
"""

import json
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import time

import pytest

from harness import age, following, litestream, packages
from harness.following import Follower
from harness.location import Location
from harness.paths import SQLITE_SHELL, SYSTEM_PYTHON, clean_env
from harness.script import run
from harness.small_disk import small_disk
from harness.sql import fill, insert, sync, txid
from harness.wait import until
from harness.worker import SqlError

COUNT = "SELECT count(*) FROM t"
QUICK = '{"follow_interval": "20ms"}'


@pytest.fixture
def primary(start, location, tmp_path):
    primary = start("python", location).open(location.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    return primary


@pytest.fixture
def console(start, location):
    """A process that has no database open."""
    console = start("python", location).open(":memory:", "console")
    console.load()
    return console


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "copy.db"


def follow(console, location, copy, options=QUICK) -> dict:
    return json.loads(console.one("SELECT litestream_follow(?, ?, ?)", location.full_url, str(copy), options))


def unfollow(console, copy) -> dict:
    return json.loads(console.one("SELECT litestream_unfollow(?)", str(copy)))


def row(console, copy) -> dict:
    columns = ["role", "url", "state", "txid", "lag", "pages", "notice", "last_error"]
    [values] = console.rows(f"SELECT {', '.join(columns)} FROM litestream_databases WHERE path = ?", str(copy.resolve()))
    return dict(zip(columns, values))


def read(copy, sql=COUNT):
    """What a program without the library reads."""
    db = sqlite3.connect(copy, timeout=30)
    try:
        return db.execute(sql).fetchone()[0]
    finally:
        db.close()


def reaches(console, copy, primary):
    last = sync(primary)
    until(lambda: txid(row(console, copy)["txid"]) == last, 30, "the copy has the last transaction")


def test_readers_never_see_half_of_a_transaction_however_often_the_follower_is_killed(location, tmp_path):
    transactions = int(os.environ.get("LITESTREAM_FOLLOW_TRANSACTIONS", 60))
    kills = int(os.environ.get("LITESTREAM_FOLLOW_KILLS", 10))
    report = following.run(transactions, kills, 1, location, tmp_path)
    assert report["kills"] == kills and report["within_a_transaction"] >= 1, report
    # The last 25 are waited for, one after the other: readers may miss one of them, and see others before.
    assert all(report["looks"]) and report["versions_seen"] > 20 and report["lag_median"] < 3, report


def test_a_copy_is_made_follows_and_has_a_row(console, location, primary, copy):
    report = follow(console, location, copy)
    assert report["following"] and report["restored"] and report["replica"] == location.url
    assert read(copy) == 200 and read(copy, "PRAGMA journal_mode") == "delete"
    assert follow(console, location, copy)["following"]
    insert(primary, 50)
    reaches(console, copy, primary)
    assert read(copy) == 250 and read(copy, "PRAGMA integrity_check") == "ok"
    told = row(console, copy)
    assert (told["role"], told["url"], told["state"], told["last_error"]) == ("copy", location.url, "following", None)
    assert told["lag"] < 5 and told["pages"] * 4096 == copy.stat().st_size
    assert txid((copy.parent / "copy.db-txid").read_text().strip()) == txid(told["txid"])
    assert unfollow(console, copy)["txid"] == told["txid"]
    assert not console.rows("SELECT * FROM litestream_databases WHERE role = 'copy'")
    insert(primary)
    sync(primary)
    assert read(copy) == 250
    assert not follow(console, location, copy)["restored"]
    reaches(console, copy, primary)
    assert read(copy) == 251


def test_a_copy_that_is_behind_fetches_several_files_at_once(start, through_proxy, proxy, copy, tmp_path):
    """And puts them on the copy in one transaction, also when it finds the first of them by its name."""
    files, delay = 24, 0.3
    worker = start("python", through_proxy, env={"LITESTREAM_SQL": "on"})
    primary, console = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="10ms")), worker.open(":memory:", "console")
    fill(primary)
    sync(primary)
    follow(console, through_proxy, copy)
    reader = sqlite3.connect(copy, isolation_level=None, timeout=30)
    reader.execute("BEGIN")
    assert reader.execute(COUNT).fetchone()[0] == 200
    insert(primary)
    sync(primary)
    until(lambda: copy.with_name(".copy.db-litestream").joinpath("follow", "journal").exists(), 10, "it waits for the reader")
    for _ in range(files):
        insert(primary)
        last = sync(primary)
    proxy.delay, before = delay, len(proxy.requests)
    reader.execute("COMMIT")
    begun, seen = time.monotonic(), set()
    until(lambda: seen.add(read(copy)) or 200 + 1 + files in seen, 60, "the copy has the last transaction", 0.005)
    took = time.monotonic() - begun
    assert len(proxy.requests) - before >= files and took < delay * files * 0.7, f"{took} s: one after the other"
    assert len(seen) <= 3, f"{seen}: each in a transaction of its own"
    assert txid(unfollow(console, copy)["txid"]) == last
    reader.close()


def test_schema_size_and_caches_change_under_an_open_reader(console, location, primary, copy):
    follow(console, location, copy)
    shell = subprocess.Popen([SQLITE_SHELL, "-batch", str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, bufsize=1)
    shell.stdin.write(".timeout 30000\n")

    def said(sql):
        shell.stdin.write(sql + ";\n")
        return shell.stdout.readline().strip()

    assert said(COUNT) == "200"
    # Nothing but the change counter tells of it: the size stays.
    assert said("SELECT name FROM t WHERE id = 1") != "changed"
    primary.run("UPDATE t SET name = 'changed' WHERE id = 1")
    reaches(console, copy, primary)
    assert said("SELECT name FROM t WHERE id = 1") == "changed"
    primary.run("ALTER TABLE t ADD COLUMN extra DEFAULT 'new'", "CREATE TABLE other(x)", "INSERT INTO other VALUES (7)")
    reaches(console, copy, primary)
    assert said("SELECT max(extra) || (SELECT x FROM other) FROM t") == "new7"
    insert(primary, 3000)
    reaches(console, copy, primary)
    large = copy.stat().st_size
    assert said(COUNT) == "3200"
    primary.run("DELETE FROM t WHERE id > 10", "VACUUM", "DROP TABLE other")
    reaches(console, copy, primary)
    assert copy.stat().st_size < large / 4
    assert said("SELECT count(*) || ' ' || (SELECT count(*) FROM sqlite_schema WHERE name = 'other') FROM t") == "10 0"
    assert said("PRAGMA integrity_check") == "ok"
    shell.stdin.close()
    assert shell.wait(30) == 0


def test_a_reader_that_stays_in_a_transaction_delays_the_copy_and_keeps_its_state(console, location, primary, copy):
    follow(console, location, copy)
    reader = sqlite3.connect(copy, timeout=30, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute(COUNT).fetchone() == (200,)
    insert(primary, 10)
    last = sync(primary)
    until(lambda: "being read" in (row(console, copy)["last_error"] or ""), 60, "it says who is in its way")
    # Others read meanwhile.
    assert reader.execute(COUNT).fetchone() == (200,) and read(copy) == 200
    reader.execute("COMMIT")
    until(lambda: txid(row(console, copy)["txid"]) == last, 60)
    assert reader.execute(COUNT).fetchone() == (210,)
    until(lambda: row(console, copy)["state"] == "following", 60)


def test_a_transaction_that_was_broken_off_is_undone_by_the_next_reader(location, primary, copy):
    for attempt in range(20):
        follower = Follower(location, copy)
        before = read(copy)
        insert(primary, 20_000)
        sync(primary)
        journal = copy.parent / "copy.db-journal"
        deadline = time.monotonic() + 30
        while not journal.exists() and time.monotonic() < deadline:
            pass
        follower.kill()
        if journal.exists():
            break
        primary.run("DELETE FROM t WHERE id > 200")
        sync(primary)
    else:
        raise AssertionError("it was never killed in the middle")
    assert read(copy, "PRAGMA integrity_check") == "ok" and read(copy) == before and not journal.exists()
    follower = Follower(location, copy)
    until(lambda: read(copy) == primary.one(COUNT), 60)
    follower.end()


def test_what_is_no_copy_is_refused_and_stays_as_it_is(console, location, primary, copy, tmp_path):
    sqlite3.connect(copy).execute("CREATE TABLE mine(x)").connection.close()
    before = copy.read_bytes()
    with pytest.raises(SqlError, match="exists and is no copy that litestream_follow made; move it away"):
        follow(console, location, copy)
    (tmp_path / "copy.db-txid").write_text("0000000000000001\n")
    with pytest.raises(SqlError, match="Litestream's restore -f made it, perhaps"):
        follow(console, location, copy)
    assert copy.read_bytes() == before
    copy.unlink()
    (tmp_path / "copy.db-wal").write_bytes(b"something")
    with pytest.raises(SqlError, match="copy.db-wal is left over from another database"):
        follow(console, location, copy)
    assert not copy.exists()
    for arguments, error in [((None, "x.db"), "there is no replica URL"), (("file:///r", ""), "there is no path")]:
        with pytest.raises(SqlError, match=error):
            console.one("SELECT litestream_follow(?, ?)", *arguments)
    with pytest.raises(SqlError, match="unknown parameter 'poll'"):
        follow(console, location, copy, '{"poll": 1}')
    with pytest.raises(SqlError, match="no copy at .* follows"):
        unfollow(console, copy)


@pytest.mark.parametrize("statement", ["INSERT INTO t(name) VALUES ('mine')", "PRAGMA journal_mode = wal", "VACUUM"])
def test_a_copy_that_somebody_else_writes_follows_no_more(console, location, primary, copy, statement):
    follow(console, location, copy)
    other = sqlite3.connect(copy, timeout=30, isolation_level=None)
    other.execute(statement).fetchall()
    other.close()
    until(lambda: row(console, copy)["state"] == "stopped", 30)
    assert "another program wrote" in row(console, copy)["last_error"]
    before = copy.read_bytes()
    insert(primary)
    sync(primary)
    with pytest.raises(SqlError, match="another program wrote .* move it away and call litestream_follow again"):
        follow(console, location, copy)
    assert copy.read_bytes() == before
    copy.unlink()
    assert follow(console, location, copy)["restored"]
    assert read(copy) == 201


def test_a_copy_that_was_replaced_is_left_alone(console, location, primary, copy, tmp_path):
    follow(console, location, copy)
    shutil.copy(copy, tmp_path / "other.db")
    os.rename(tmp_path / "other.db", copy)
    until(lambda: row(console, copy)["state"] == "stopped", 30)
    assert "removed, renamed or replaced" in row(console, copy)["last_error"]
    # What is there is exactly what it was.
    assert not follow(console, location, copy)["restored"]


def test_one_process_has_a_copy_follow_and_only_one_replica(start, console, location, primary, copy, tmp_path):
    follow(console, location, copy)
    second = start("python", location).open(":memory:", "console")
    second.load()
    with pytest.raises(SqlError, match="follows a replica already, in another process"):
        follow(second, location, copy)
    other = Location.file(tmp_path / "other")
    db = start("python", other).open(other.primary(tmp_path / "b.db"))
    fill(db, 5)
    sync(db)
    with pytest.raises(SqlError, match="follows another replica.*litestream_unfollow it first"):
        follow(console, other, copy)
    assert follow(console, other, tmp_path / "b-copy.db")["restored"]
    unfollow(console, copy)
    with pytest.raises(SqlError, match="is a copy of another replica"):
        follow(console, other, copy)
    assert follow(second, location, copy)["following"]
    insert(db, 5)
    reaches(console, tmp_path / "b-copy.db", db)
    assert read(tmp_path / "b-copy.db") == 10 and read(copy) == 200


def test_while_it_follows_other_options_are_taken(start, console, location, primary, copy, tmp_path):
    assert follow(console, location, copy, '{"follow_interval": "24h"}')["restored"]
    assert follow(console, location, copy, '{"follow_interval": "24h"}')["restored"], "the same ones change nothing"
    insert(primary)
    told = follow(console, location, copy)
    assert told["following"] and not told["restored"]
    reaches(console, copy, primary)
    assert read(copy) == 201
    # The primary encrypts from now on, which only the one who has the key can follow.
    primary.close()
    identity, recipient = age.generate()
    primary = start("python", location).open(location.primary(tmp_path / "app.db", age_recipient=recipient))
    insert(primary)
    last = sync(primary)
    until(lambda: row(console, copy)["state"] == "retrying", 60)
    assert "age_identity" in row(console, copy)["last_error"] and read(copy) == 201
    options = json.loads(QUICK) | {"age_identity": identity, "plain_until": txid(row(console, copy)["txid"])}
    assert not follow(console, location, copy, json.dumps(options))["restored"]
    until(lambda: txid(row(console, copy)["txid"]) == last, 60, "the key is taken")
    until(lambda: row(console, copy)["state"] == "following", 30)
    assert read(copy) == 202 and row(console, copy)["last_error"] is None


def test_what_was_merged_or_removed_meanwhile_is_copied_in_one_transaction(console, location, primary, copy):
    follow(console, location, copy)
    unfollow(console, copy)
    for _ in range(5):
        insert(primary, 100)
        sync(primary)
    primary.one("SELECT litestream_snapshot()")
    for file in location.files():
        if file.min > 1:
            file.path.unlink()
    follow(console, location, copy)
    until(lambda: read(copy) == 700, 30)
    assert read(copy, "PRAGMA integrity_check") == "ok"
    insert(primary)
    reaches(console, copy, primary)
    assert read(copy) == 701


@pytest.mark.parametrize("is_merged", [False, True])
def test_a_replica_that_was_reset_is_not_mixed_with_the_copy(start, console, location, primary, copy, tmp_path, is_merged):
    follow(console, location, copy)
    primary.close()
    known = txid(unfollow(console, copy)["txid"])
    shutil.rmtree(location.folder)
    db = start("python", location).open(location.primary(tmp_path / "new.db"))
    fill(db, 7)
    for _ in range(12):
        insert(db)
        sync(db)
    if is_merged:
        # Retention is past the file that has the name of the last one that was copied: the next ones tell of it.
        db.one("SELECT litestream_snapshot()")
        for file in location.files():
            if file.max <= known:
                file.path.unlink()
    follow(console, location, copy)
    until(lambda: row(console, copy)["state"] == "stopped", 30)
    error = row(console, copy)["last_error"]
    # The replica is healthy: nothing in it is to be moved away.
    assert "the replica was reset" in error and "move the copy away" in error and "follows no more" in error
    assert console.rows("SELECT * FROM litestream_verify(?)", location.full_url) == []
    assert read(copy) == 200 and read(copy, "PRAGMA integrity_check") == "ok"
    copy.unlink()
    follow(console, location, copy)
    assert read(copy) == 7 + 12


@pytest.fixture
def of_a_store_that_goes_away(start, in_s3, through_proxy, proxy, tmp_path, copy):
    """A primary, and the console whose copy follows it through a proxy, which refuses everything now."""
    primary = start("python", in_s3).open(in_s3.primary(tmp_path / "app.db"))
    fill(primary)
    sync(primary)
    console = start("python", through_proxy).open(":memory:", "console")
    console.load()
    follow(console, through_proxy, copy)
    proxy.refuse()
    return primary, console


def test_while_the_store_is_away_the_copy_is_read_and_its_lag_grows(of_a_store_that_goes_away, through_proxy, proxy, copy):
    primary, console = of_a_store_that_goes_away
    insert(primary)
    last = sync(primary)
    until(lambda: row(console, copy)["state"] == "retrying", 60)
    assert row(console, copy)["last_error"] and read(copy) == 200
    before = row(console, copy)["lag"]
    until(lambda: row(console, copy)["lag"] > before + 1, 30)
    proxy.accept()
    until(lambda: txid(row(console, copy)["txid"]) == last, 60)
    until(lambda: row(console, copy)["state"] == "following" and row(console, copy)["lag"] < 3, 60)
    # And it begins without the store.
    unfollow(console, copy)
    proxy.refuse()
    assert follow(console, through_proxy, copy)["following"]


def test_what_was_broken_off_is_undone_although_nothing_can_be_downloaded(of_a_store_that_goes_away, proxy, tmp_path, copy):
    """It takes the space, perhaps, that the next download needs, and who may only read the file can read it again."""
    primary, console = of_a_store_that_goes_away
    until(lambda: row(console, copy)["state"] == "retrying", 60)
    before, journal = copy.read_bytes(), tmp_path / "draft"
    first = before[:4096]
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">5I", 1, 0, len(before) // 4096, 512, 4096)
    journal.write_bytes(header.ljust(512, b"\0") + struct.pack(">I", 1) + first + struct.pack(">I", sum(first[4096 - 200:0:-200])))
    with copy.open("ab") as file:
        file.write(bytes(4_000_000))
    journal.rename(tmp_path / "copy.db-journal")
    until(lambda: copy.read_bytes() == before and not (tmp_path / "copy.db-journal").exists(), 120, "it is undone")
    assert row(console, copy)["state"] == "retrying"
    proxy.accept()
    insert(primary)
    reaches(console, copy, primary)
    assert read(copy) == 201


def readers_see_the_last_state_until_the_next_fits(console, location, primary, copy, error, limit=lambda: None):
    """There is no space from `limit` on for a transaction, of which the download is small."""
    follow(console, location, copy)
    size, journal = copy.stat().st_size, copy.with_name("copy.db-journal")

    def read_only(sql):
        db = sqlite3.connect(f"file:{copy}?mode=ro", uri=True, timeout=30)
        try:
            return db.execute(sql).fetchone()[0]
        finally:
            db.close()

    limit()
    primary.run("INSERT INTO t(name) VALUES (zeroblob(4000000))")
    sync(primary)
    until(lambda: row(console, copy)["state"] == "retrying", 60)
    assert error in row(console, copy)["last_error"]
    for _ in range(20):
        assert read_only(COUNT) == 200 and read_only("PRAGMA integrity_check") == "ok"
        time.sleep(0.1)
    until(lambda: copy.stat().st_size == size and not journal.exists(), 30, "it is undone")
    # Nothing of what did not fit is in the way of what does.
    primary.run("DELETE FROM t WHERE id > 10", "VACUUM")
    last = sync(primary)
    until(lambda: txid(row(console, copy)["txid"]) == last, 120, "the copy has the last transaction")
    assert read_only(COUNT) == 10 and copy.stat().st_size <= size
    insert(primary)
    reaches(console, copy, primary)
    assert read_only(COUNT) == 11 and not journal.exists()


def test_on_a_full_disk_readers_that_may_not_write_see_the_last_state(console, location, primary, tmp_path):
    with small_disk(tmp_path / "small", 2) as disk:
        readers_see_the_last_state_until_the_next_fits(console, location, primary, disk / "copy.db", "no space is left on its disk")
        unfollow(console, disk / "copy.db")


def test_a_transaction_that_fails_is_undone_at_once(console, location, primary, copy):
    pid = console.worker.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    readers_see_the_last_state_until_the_next_fits(console, location, primary, copy, f"cannot write {copy}",
                                                   lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000_000, hard)))


def test_bandwidth_is_kept_to(console, location, primary, copy):
    primary.run("CREATE TABLE bulk AS SELECT randomblob(2000000) AS x")
    sync(primary)
    begun = time.monotonic()
    follow(console, location, copy, '{"follow_interval": "20ms", "bandwidth": "1MB"}')
    assert 1.5 < time.monotonic() - begun < 20
    begun = time.monotonic()
    primary.run("UPDATE bulk SET x = randomblob(2000000)")
    reaches(console, copy, primary)
    assert time.monotonic() - begun > 1.5
    assert read(copy, "SELECT length(x) FROM bulk") == 2_000_000


def test_a_replica_of_litestream_is_followed(start, console, in_folder, tmp_path, copy):
    database = tmp_path / "theirs.db"
    db = start("python").open(database)
    db.one("PRAGMA journal_mode = wal")
    fill(db, 20)
    with litestream.Replicate(database, in_folder, tmp_path):
        until(lambda: in_folder.files(), 30)
        follow(console, in_folder, copy)
        for n in range(1, 40):
            insert(db)
            time.sleep(0.1)  # Merges, snapshots and deletions happen meanwhile.
        until(lambda: read(copy) == 59, 30)
    assert read(copy, "PRAGMA integrity_check") == "ok"
    assert row(console, copy)["state"] in ("following", "retrying")


def test_a_process_that_ends_and_its_forked_children_leave_a_whole_copy(location, primary, copy):
    script = """
load()
loader = connect(":memory:")
one(loader, "SELECT litestream_follow(?, ?, ?)", URL, COPY, OPTIONS)
children = []
for n in range(10):
    child = os.fork()
    if child == 0:
        # It follows nothing, and may end in whatever way.
        rows = loader.execute("SELECT path FROM litestream_databases").fetchall()
        os._exit(len(rows)) if n % 2 else sys.exit(len(rows))
    children.append(child)
    time.sleep(0.02)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 10
assert loader.execute("SELECT state FROM litestream_databases").fetchall() == [("following",)]
"""
    for n in range(3):
        insert(primary, 500)
        sync(primary)
        run(script, copy.parent, env=location.env | {"LITESTREAM_SQL": "on"}, URL=location.full_url, COPY=str(copy), OPTIONS=QUICK)
        assert not (copy.parent / "copy.db-journal").exists()
        assert read(copy, "PRAGMA integrity_check") == "ok"
    follower = Follower(location, copy)
    until(lambda: read(copy) == 1700, 30)
    follower.end()


def test_the_command_line_follows_until_it_is_told_to_end(location, primary, copy, tmp_path):
    def command(*arguments):
        return subprocess.Popen([SYSTEM_PYTHON, "-m", "sqlite_litestream", "restore", "-f", "-follow-interval", "20ms", *arguments,
                                 "-o", str(copy), location.full_url], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                                env=packages.python_env(**location.env))

    for rows, number in ((201, signal.SIGTERM), (202, signal.SIGINT), (203, signal.SIGKILL)):
        following = command()
        assert f"follows {location.url} from transaction" in following.stderr.readline()
        insert(primary)
        sync(primary)
        until(lambda: read(copy) == rows, 30)
        following.send_signal(number)
        assert following.wait(30) == (-9 if number == signal.SIGKILL else 0)
        following.stderr.close()
    sqlite3.connect(copy).execute("VACUUM").connection.close()
    following = command()
    error = following.communicate(timeout=60)[1]
    assert following.returncode not in (0, None) and "another program wrote" in error and "Traceback" not in error
    copy.unlink()
    following = command()
    assert "follows" in following.stderr.readline()
    sqlite3.connect(copy, timeout=30).execute("VACUUM").connection.close()
    error = following.communicate(timeout=60)[1]
    assert following.returncode not in (0, None) and "another program wrote" in error and "Traceback" not in error
