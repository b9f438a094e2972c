"""A database that the host encrypts: SQLCipher does it in the pager, SQLite3MultipleCiphers in a VFS.

The library has no key. It replicates the pages as they are on disk, new databases and existing ones, whatever SQLite does
with the WAL and the key, through crashes and outages; a restored file is the ciphertext, which the host opens with its key.
Nothing of the content is in the replica, in the folder of local state or in the WAL. What needs a key is refused, and says
so.
"""

import secrets
import shutil
import sqlite3
import threading
import time

import pytest

from harness.litestream import restore as litestream_restore
from harness.paths import SQLITE3MC
from harness.sql import restore, sync
from harness.wait import until
from harness.worker import SqlError

KEY = "correct horse battery staple"
TOKENS = 100


@pytest.fixture(params=["sqlcipher", "sqlite3mc"])
def cipher(request) -> str:
    if request.param == "sqlite3mc" and not SQLITE3MC.exists():
        pytest.skip(f"{SQLITE3MC} is not there: make tools")
    return request.param


def keyed(worker, target, name: str = "db", key: str = KEY, wal: bool = True):
    db = worker.open(target, name)
    db.rows(f"PRAGMA key='{key}'")
    if wal:
        assert db.one("PRAGMA journal_mode=wal") == "wal"
    return db


def tokens(count: int = TOKENS) -> list[str]:
    return [secrets.token_hex(16) for _ in range(count)]


def write(db, words: list[str]) -> None:
    db.run("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, word TEXT, filler TEXT)")
    db.run("BEGIN")
    for word in words:
        db.rows("INSERT INTO t(word, filler) VALUES (?, ?)", word, word * 20)
    db.run("COMMIT")


def assert_restores(db, location, folder, words: list[str], key: str = KEY) -> None:
    """The replica restores, by both programs and to the same bytes, to what the host opens with its key."""
    sync(db, 60)
    number = len(list(folder.glob("restored-*")))
    ours, theirs = folder / f"restored-{number}.db", folder / f"theirs-{number}.db"
    restore(db, location, ours)
    litestream_restore(location, theirs)
    assert ours.read_bytes() == theirs.read_bytes()
    copy = keyed(db.worker, ours, "restored", key, wal=False)
    assert copy.rows("PRAGMA integrity_check") == [["ok"]]
    assert copy.content() == db.content()
    assert {word for [word] in copy.rows("SELECT word FROM t")} >= set(words)
    copy.close()
    with sqlite3.connect(ours) as plain, pytest.raises(sqlite3.DatabaseError, match="not a database"):
        plain.execute("SELECT * FROM t")


def assert_nothing_is_readable(location, folder, words: list[str]) -> None:
    looked = 0
    roots = [location.folder, folder / ".app.db-litestream"]
    for path in [*(path for root in roots for path in root.rglob("*")), *folder.glob("app.db*")]:
        if path.is_file():
            looked += 1
            data = path.read_bytes()
            assert not [word for word in words if word.encode() in data], path
    assert looked > 3


def assert_idle(db, last: int) -> None:
    """All is in the replica, which ends at `last`, and nobody has to wait for it."""
    assert sync(db, 10) == last
    status = db.rows("SELECT state, txid, lag, last_error FROM litestream_status")
    assert status == [["idle", f"{last:016x}", 0, None]]


def close_at_once(db) -> None:
    """Closes a database whose `close_timeout` is 20 s, and has nothing to wait for."""
    begun = time.monotonic()
    db.close()
    assert time.monotonic() - begun < 10


def test_a_new_database(cipher, start, location, tmp_path):
    worker = start(cipher, location)
    db = keyed(worker, location.primary(tmp_path / "app.db"))
    words = tokens()
    write(db, words)
    assert_restores(db, location, tmp_path, words)
    # A restart of the WAL, with the pages of before it unsent.
    write(db, more := tokens(20))
    db.rows("PRAGMA wal_checkpoint(RESTART)")
    write(db, more := more + tokens(20))
    assert_restores(db, location, tmp_path, words + more)
    db.run("DELETE FROM t WHERE id % 2")
    db.run("VACUUM")
    assert_restores(db, location, tmp_path, [])
    assert_nothing_is_readable(location, tmp_path, words + more)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_existing_database(mode, cipher, start, in_s3, tmp_path):
    worker = start(cipher, in_s3)
    plain = keyed(worker, tmp_path / "app.db", wal=mode == "wal")
    words = tokens()
    write(plain, words)
    plain.close()
    db = keyed(worker, in_s3.primary(tmp_path / "app.db"))
    # Only a commit tells its page size.
    write(db, tokens(1))
    assert_restores(db, in_s3, tmp_path, words)
    # Between two openings the WAL is gone.
    db.close()
    db = keyed(worker, in_s3.primary(tmp_path / "app.db"), wal=False)
    write(db, more := tokens(10))
    assert_restores(db, in_s3, tmp_path, words + more)
    assert_nothing_is_readable(in_s3, tmp_path, words + more)


def test_writers_in_two_processes_of_which_one_is_killed(cipher, start, in_s3, tmp_path):
    uri = in_s3.primary(tmp_path / "app.db", sync_interval="20ms")
    first = start(cipher, in_s3)
    db = keyed(first, uri)
    words = tokens(10)
    write(db, words)
    sync(db)
    others = [keyed(start(cipher, in_s3), uri, wal=False) for _ in range(2)]
    written: list[list[str]] = [[], []]

    def work(number: int) -> None:
        other = others[number]
        other.rows("PRAGMA wal_autocheckpoint=20")
        for _ in range(40):
            words = tokens(3)
            write(other, words)
            written[number].extend(words)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: all(len(part) > 30 for part in written), 30, "both write")
    # The process that publishes.
    first.kill()
    for thread in threads:
        thread.join()
    assert_restores(others[0], in_s3, tmp_path, words + written[0] + written[1])
    assert in_s3.gaps() == []
    assert_nothing_is_readable(in_s3, tmp_path, words + written[0] + written[1])


def test_another_key(cipher, start, in_s3, tmp_path):
    worker = start(cipher, in_s3)
    db = keyed(worker, in_s3.primary(tmp_path / "app.db"))
    words = tokens()
    write(db, words)
    assert_restores(db, in_s3, tmp_path, words)
    more = tokens(5)
    if cipher == "sqlcipher":
        db.rows("PRAGMA rekey='another'")
        write(db, more)
    else:
        # It changes no key in WAL mode, which a primary does not leave.
        db.close()
        plain = keyed(worker, tmp_path / "app.db", "plain", wal=False)
        plain.rows("PRAGMA journal_mode=delete")
        plain.rows("PRAGMA rekey='another'")
        plain.rows("PRAGMA journal_mode=wal")
        plain.close()
        db = keyed(worker, in_s3.primary(tmp_path / "app.db"), key="another")
        write(db, more)
        # A program without the library wrote each page, and none says that it comes after what was published.
        with pytest.raises(SqlError, match="another state of this one.*litestream_resume"):
            sync(db, 30)
        db.rows("SELECT litestream_resume('force')")
    assert_restores(db, in_s3, tmp_path, words + more, key="another")
    assert_nothing_is_readable(in_s3, tmp_path, words + more)


def test_no_ciphertext_is_taken_for_a_change_of_mode(cipher, start, in_folder, tmp_path):
    """The bytes that say the journal mode of a plain database are random in an encrypted one: one write of page 1 in 256 was
    taken for the end of WAL mode, and replication began anew with a comparison."""
    log = tmp_path / "log"
    worker = start(cipher, in_folder, env={"LITESTREAM_LOG_FILE": str(log), "LITESTREAM_LOG_LEVEL": "info"})
    db = keyed(worker, in_folder.primary(tmp_path / "app.db", sync_interval="1s"))
    write(db, words := tokens(10))
    sync(db)
    db.rows("PRAGMA synchronous=OFF")
    for n in range(1500):
        db.run(f"PRAGMA user_version={n}", "PRAGMA wal_checkpoint(PASSIVE)")
    assert_restores(db, in_folder, tmp_path, words)
    assert "WAL mode" not in log.read_text()


def test_an_outage_with_crashes_in_it(cipher, start, through_proxy, in_s3, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", sync_interval="50ms")
    db = keyed(start(cipher, through_proxy), uri)
    words = tokens(10)
    write(db, words)
    sync(db)
    proxy.refuse()
    for _ in range(3):
        write(db, more := tokens(10))
        words += more
        until(lambda: db.one("SELECT last_error FROM litestream_status"), 15, "the store is away")
        db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        db.worker.kill()
        db = keyed(start(cipher, through_proxy), uri, wal=False)
        write(db, more := tokens(5))
        words += more
    proxy.accept()
    assert_restores(db, in_s3, tmp_path, words)
    assert in_s3.gaps() == []
    assert_nothing_is_readable(in_s3, tmp_path, words)


def test_what_needs_a_key_says_so(cipher, start, in_folder, tmp_path):
    worker = start(cipher, in_folder)
    plain = keyed(worker, tmp_path / "app.db", wal=False)
    write(plain, tokens(10))
    plain.close()
    db = keyed(worker, in_folder.primary(tmp_path / "app.db"), wal=False)
    assert db.one("SELECT count(*) FROM t") == 10
    with pytest.raises(SqlError, match="(?s)encrypted.*PRAGMA journal_mode=wal"):
        sync(db, 2)
    assert "PRAGMA journal_mode=wal" in db.one("SELECT last_error FROM litestream_status")
    assert db.one("PRAGMA journal_mode=wal") == "wal"
    write(db, tokens(1))
    sync(db, 30)
    assert db.one("SELECT state FROM litestream_status") == "idle"
    # No reader of a replica has the key, though a program may give one.
    for host in (cipher, "python"):
        reader = start(host, in_folder)
        with pytest.raises(SqlError, match="(?s)encrypted.*litestream_restore"):
            reader.open(in_folder.replica()).rows("SELECT * FROM t")
    with pytest.raises(SqlError, match="(?s)encrypted.*litestream_restore"):
        keyed(start(cipher, in_folder), in_folder.replica(), wal=False).rows("SELECT * FROM t")


def test_a_program_without_the_library_writes_meanwhile(cipher, start, in_s3, tmp_path):
    worker = start(cipher, in_s3)
    db = keyed(worker, in_s3.primary(tmp_path / "app.db", watch_interval="100ms"))
    words = tokens(10)
    write(db, words)
    sync(db)
    other = keyed(start(cipher, load=False), tmp_path / "app.db", wal=False)
    write(other, more := tokens(10))
    other.rows("PRAGMA wal_checkpoint(RESTART)")
    write(other, last := tokens(10))
    assert_restores(db, in_s3, tmp_path, words + more + last)


def test_a_restored_database_is_published_on(cipher, start, in_s3, tmp_path):
    worker = start(cipher, in_s3)
    uri = in_s3.primary(tmp_path / "app.db")
    db = keyed(worker, uri)
    words = tokens(10)
    write(db, words)
    sync(db)
    db.close()
    for path in tmp_path.glob("*app.db*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    loader = worker.open(":memory:", "loader")
    restore(loader, in_s3, tmp_path / "app.db")
    copies = len(in_s3.files(9))
    db = keyed(worker, uri)
    write(db, more := tokens(5))
    assert_restores(db, in_s3, tmp_path, words + more)
    assert len(in_s3.files(9)) == copies


def test_an_open_that_only_reads_publishes_nothing(cipher, start, in_s3, tmp_path, capfd):
    uri = in_s3.primary(tmp_path / "app.db", close_timeout="20s")
    worker = start(cipher, in_s3)
    db = keyed(worker, uri)
    words = tokens(10)
    write(db, words)
    last = sync(db)
    close_at_once(db)
    # Neither the first page nor the WAL says the page size: nobody wrote the file since that was known.
    for reader in [worker, start(cipher, in_s3)]:
        for _ in range(2):
            db = keyed(reader, uri, wal=False)
            assert db.one("SELECT count(*) FROM t") == len(words)
            assert_idle(db, last)
            close_at_once(db)
            assert not list(tmp_path.glob("app.db-*"))
        reader.end()
    assert "WARN" not in capfd.readouterr().err
    db = keyed(start(cipher, in_s3), uri, wal=False)
    assert_idle(db, last)
    write(db, more := tokens(5))
    assert_restores(db, in_s3, tmp_path, words + more)


@pytest.mark.parametrize("ends", ["closes", "is killed"])
def test_a_close_after_commits_of_another_process(ends, cipher, start, in_s3, tmp_path, capfd):
    uri = in_s3.primary(tmp_path / "app.db", close_timeout="20s")
    db = keyed(start(cipher, in_s3), uri)
    words = tokens(10)
    write(db, words)
    sync(db)
    other = keyed(start(cipher, in_s3), uri, wal=False)
    write(other, more := tokens(10))
    if ends == "closes":
        other.close()
        other.worker.end()
    else:
        other.worker.kill()
    last = sync(db)
    assert_idle(db, last)
    close_at_once(db)
    assert "WARN" not in capfd.readouterr().err
    db = keyed(db.worker, uri, wal=False)
    assert_idle(db, last)
    assert_restores(db, in_s3, tmp_path, words + more)


@pytest.mark.parametrize("left", ["waiting files", "pages", "a database that was never published"])
def test_what_an_outage_left_goes_out_at_an_open_that_only_reads(left, cipher, start, through_proxy, in_s3, proxy, tmp_path):
    # More than that is read from the database file.
    limits = dict(spool_limit="1MiB") if left == "pages" else {}
    uri = through_proxy.primary(tmp_path / "app.db", close_timeout="100ms", **limits)
    worker = start(cipher, through_proxy)
    if left == "a database that was never published":
        proxy.refuse()
    db = keyed(worker, uri)
    words = tokens(10)
    write(db, words)
    if left != "a database that was never published":
        sync(db)
        proxy.refuse()
        write(db, more := tokens(3000))
        words += more
    until(lambda: db.one("SELECT last_error FROM litestream_status"), 15, "the store is away")
    db.close()
    worker.end()
    proxy.accept()
    db = keyed(start(cipher, through_proxy), uri, wal=False)
    assert db.one("SELECT count(*) FROM t") == len(words)
    assert_idle(db, sync(db, 30))
    assert_restores(db, in_s3, tmp_path, words)
    assert in_s3.gaps() == []


def test_a_restored_database_that_is_only_read(cipher, start, in_s3, tmp_path):
    worker = start(cipher, in_s3)
    uri = in_s3.primary(tmp_path / "app.db", close_timeout="20s")
    db = keyed(worker, uri)
    words = tokens(10)
    write(db, words)
    last = sync(db)
    db.close()
    for path in tmp_path.glob("*app.db*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    restore(db, in_s3, tmp_path / "app.db")
    for _ in range(2):
        db = keyed(worker, uri, wal=False)
        assert db.one("SELECT count(*) FROM t") == len(words)
        assert_idle(db, last)
        close_at_once(db)
    db = keyed(worker, uri, wal=False)
    write(db, more := tokens(5))
    assert_restores(db, in_s3, tmp_path, words + more)


@pytest.mark.parametrize("how", ["in its place", "over it"])
def test_the_page_size_of_a_file_is_not_that_of_another(how, cipher, start, in_s3, tmp_path):
    worker = start(cipher, in_s3)
    uri = in_s3.primary(tmp_path / "app.db")
    db = keyed(worker, uri)
    write(db, tokens(10))
    last = sync(db)
    db.close()
    other = worker.open(tmp_path / "other.db", "other")
    other.rows(f"PRAGMA key='{KEY}'")
    other.rows("PRAGMA cipher_page_size=8192" if cipher == "sqlcipher" else "PRAGMA page_size=8192")
    assert other.one("PRAGMA journal_mode=wal") == "wal"
    write(other, tokens(10))
    assert int(other.one("PRAGMA page_size")) == 8192
    other.close()
    if how == "over it":
        shutil.copyfile(tmp_path / "other.db", tmp_path / "app.db")
    else:
        (tmp_path / "other.db").replace(tmp_path / "app.db")
    db = worker.open(uri)
    db.rows(f"PRAGMA key='{KEY}'")
    if cipher == "sqlcipher":
        db.rows("PRAGMA cipher_page_size=8192")
    assert db.one("SELECT count(*) FROM t") == 10
    with pytest.raises(SqlError, match="page size.*next commit"):
        sync(db, 2)
    write(db, tokens(1))
    with pytest.raises(SqlError, match="page size.*give another replica URL"):
        sync(db, 30)
    assert in_s3.last_txid() == last


def test_ways_to_give_a_key_to_sqlite3multipleciphers(start, in_folder, tmp_path):
    if not SQLITE3MC.exists():
        pytest.skip(f"{SQLITE3MC} is not there: make tools")
    worker = start("sqlite3mc", in_folder)
    words = tokens(10)
    # In the URI; and by its VFS in front of ours, as its own documentation names VFSs.
    db = worker.open(in_folder.primary(tmp_path / "app.db", key=KEY))
    assert db.one("PRAGMA journal_mode=wal") == "wal"
    write(db, words)
    assert_restores(db, in_folder, tmp_path, words)
    db.close()
    uri = in_folder.primary(tmp_path / "app.db").replace("vfs=litestream", "vfs=multipleciphers-litestream")
    db = keyed(worker, uri)
    write(db, more := tokens(10))
    assert_restores(db, in_folder, tmp_path, words + more)
    assert_nothing_is_readable(in_folder, tmp_path, words + more)


def test_a_database_without_a_key_is_as_any_other(start, in_folder, tmp_path):
    if not SQLITE3MC.exists():
        pytest.skip(f"{SQLITE3MC} is not there: make tools")
    worker = start("sqlite3mc", in_folder)
    db = worker.open(in_folder.primary(tmp_path / "plain.db"))
    write(db, words := tokens(1))
    sync(db, 30)
    assert start("python", in_folder).open(in_folder.replica()).rows("SELECT word FROM t") == [words]
