"""What a restore can be told, how it is watched, and how it ends early: nothing is ever half there."""

import json
import os
import pty
import re
import signal
import subprocess
from dataclasses import replace
from urllib.parse import quote

import pytest

from harness import big
from harness.location import Location
from harness.paths import LIBRARY, SQLITE_SHELL, clean_env
from harness.proxy import Hang
from harness.sql import fill, insert, restore, sync
from harness.wait import until
from harness.worker import HOSTS, SqlError


@pytest.fixture
def filled(start, location, tmp_path):
    """A host whose database has a replica of a few files."""
    worker = start("apsw", location)
    primary = worker.open(location.primary(tmp_path / "app.db"), "primary")
    fill(primary, 1000)
    sync(primary)
    for _ in range(3):
        insert(primary, 20)
        sync(primary)
    return worker


def test_a_dry_run_tells_and_writes_nothing(filled, location, tmp_path):
    db = filled.open(":memory:", "plain")
    told = restore(db, location, tmp_path / "new" / "copy.db", dry_run=True)
    assert told["dry_run"] and not told["restored"] and not (tmp_path / "new").exists()
    done = restore(db, location, tmp_path / "copy.db")
    assert done["restored"]
    for key in ("txid", "timestamp", "pages", "bytes", "files"):
        assert told[key] == done[key]
    plan = db.load().rows("SELECT step, size, max_txid FROM litestream_restore_plan(?)", location.full_url)
    assert [step for step, _, _ in plan] == list(range(1, done["files"] + 1))
    assert (sum(size for _, size, _ in plan), plan[-1][2]) == (told["download"], done["txid"])
    with pytest.raises(SqlError) as refused:
        restore(db, location, tmp_path / "copy.db", dry_run=True)
    assert "exists" in str(refused.value)


def test_a_name_means_the_file_that_sqlite_opens(filled, location, tmp_path):
    db = filled.open(":memory:", "plain")
    before = sorted(entry.name for entry in tmp_path.iterdir())
    for name in (f"file:{tmp_path}/new/a.db?x=1", f"file://localhost{tmp_path}/new/b%20b.db?mode=rwc#c", "file:new/c.db"):
        assert restore(db, location, name)["path"].endswith(("new/a.db", "new/b b.db", "new/c.db"))
        with pytest.raises(SqlError, match="exists"):
            restore(db, location, name)
        assert restore(db, location, name, force=True)["restored"]
    names = ["a.db", "b b.db", "c.db"]
    # Each has a folder that says which state it is.
    assert {entry.name for entry in (tmp_path / "new").iterdir()} == {*names, *(f".{name}-litestream" for name in names)}
    for name in (":memory:", "file::memory:?cache=shared", f"file:{tmp_path}/d.db?mode=memory&cache=shared", "file:/d.db?vfs=memdb"):
        with pytest.raises(SqlError, match="in memory"):
            restore(db, location, name)
    for name in ("", "file:", "file:?x=1", f"file://server{tmp_path}/d.db"):
        with pytest.raises(SqlError, match="path"):
            restore(db, location, name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([*before, "new"])


def test_what_exists_is_left_alone_when_that_is_wished(filled, location, tmp_path):
    db = filled.open(":memory:", "plain")
    (tmp_path / "copy.db").write_text("precious")
    report = restore(db, location, tmp_path / "copy.db", if_db_not_exists=True)
    assert not report["restored"] and "exists" in report["reason"]
    assert (tmp_path / "copy.db").read_text() == "precious"
    assert restore(db, location, tmp_path / "other.db", if_db_not_exists=True)["restored"]


@pytest.mark.parametrize("options", ({}, {"if_db_not_exists": True, "if_replica_exists": True}, {"force": True}))
def test_a_link_into_a_folder_that_is_empty_is_where_the_database_goes(filled, location, tmp_path, options):
    (tmp_path / "data").mkdir()
    link = tmp_path / "linked.db"
    link.symlink_to("data/app.db")
    db = filled.open(":memory:", "plain")
    assert restore(db, location, link, **options)["restored"]
    assert link.is_symlink() and (tmp_path / "data" / "app.db").is_file()
    assert filled.open(link).content() == filled.open(tmp_path / "app.db").content()
    # By another link to it, it is there.
    (tmp_path / "second.db").symlink_to(link)
    assert not restore(db, location, tmp_path / "second.db", if_db_not_exists=True)["restored"]


@pytest.mark.parametrize("name", ("a%20b", "what?", "#1", "été \"x\" & 'y'"))
def test_the_url_that_is_shown_is_that_of_the_replica(start, tmp_path, name):
    other, ours = (Location.file(tmp_path / "replicas" / each) for each in ("a b", name))
    urls = {each.folder: f"file://{quote(str(each.folder))}" for each in (other, ours)}
    worker = start("apsw", ours)
    for number, each in enumerate((other, ours)):
        db = worker.open(replace(each, url=urls[each.folder]).primary(tmp_path / f"{number}.db"), "primary")
        fill(db, 1000 * (number + 1))
        sync(db)
    shown = db.rows("SELECT url FROM litestream_status WHERE role = 'primary' AND path LIKE '%/1.db'")[0][0]
    assert db.rows("SELECT litestream_resume(?)", shown)[0][0] == db.rows("SELECT litestream_resume(?)", urls[ours.folder])[0][0]
    content = db.content()
    db.close()
    plain = worker.open(":memory:", "plain")
    assert json.loads(plain.load().rows("SELECT litestream_restore(?, ?)", shown, str(tmp_path / "copy.db"))[0][0])["restored"]
    assert worker.open(tmp_path / "copy.db").content() == content
    # Local state spells it as all versions did.
    states = [json.loads(file.read_bytes()) for file in (tmp_path / ".1.db-litestream").rglob("vfs.json")]
    assert [state["url"] for state in states] == [f"file://{ours.folder}"]


def test_an_empty_replica_is_no_error_when_that_is_wished(start, location, tmp_path):
    db = start("apsw", location).open(":memory:", "plain")
    report = restore(db, location, tmp_path / "new" / "copy.db", if_replica_exists=True)
    assert not report["restored"] and "empty" in report["reason"]
    assert not (tmp_path / "new").exists()
    with pytest.raises(SqlError) as refused:
        restore(db, location, tmp_path / "copy.db")
    assert "empty" in str(refused.value)


def test_a_point_that_is_not_there_is_an_error_whatever_is_wished(filled, location, tmp_path):
    with pytest.raises(SqlError) as refused:
        restore(filled.open(":memory:", "plain"), location, tmp_path / "copy.db", if_replica_exists=True, txid="0xffff")
    assert "covers" in str(refused.value)


@pytest.mark.parametrize("check", ["quick", "full"])
def test_sqlite_checks_the_database_before_it_gets_its_name(check, start, in_folder, tmp_path):
    worker = start("apsw", in_folder)
    primary = worker.open(in_folder.primary(tmp_path / "app.db"), "primary")
    fill(primary, 1000)
    sync(primary)
    db = worker.open(":memory:", "plain")
    good = tmp_path / "good 100%?#.db"
    assert restore(db, in_folder, good, integrity_check=check)["restored"]
    # A database that was damaged before it was replicated: every checksum holds.
    worker.open(in_folder.primary(tmp_path / "app.db"), "primary")
    primary.run("PRAGMA writable_schema=ON", "UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'pair'")
    sync(primary)
    (tmp_path / "out").mkdir()
    with pytest.raises(SqlError) as refused:
        restore(db, in_folder, tmp_path / "out" / "bad.db", integrity_check=check)
    assert ("integrity_check" if check == "full" else "quick_check") in str(refused.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert restore(db, in_folder, tmp_path / "out" / "bad.db")["restored"], "unless it is asked to, it does not look"


@pytest.mark.parametrize("options, words", [
    ({"txid": "42"}, ["txid", "'42'", "txid:42"]),
    ({"timestamp": "noon"}, ["timestamp", "'noon'", "5 minutes ago"]),
    ({"integrity_check": "yes"}, ["integrity_check", "none, quick, full"]),
    ({"dryrn": True}, ["dryrn", "dry_run"]),
    ({"txid": 1, "timestamp": 1}, ["'txid' and 'timestamp'"]),
])
def test_a_wrong_option_is_named(options, words, start, host, tmp_path):
    with pytest.raises(SqlError) as refused:
        restore(start(host).open(":memory:"), Location.file(tmp_path / "replica"), tmp_path / "copy.db", **options)
    missing = [word for word in words if word not in str(refused.value)]
    assert not missing, f"{missing} not in: {refused.value}"


def test_a_full_disk_leaves_nothing(start, in_folder, tmp_path):
    worker = start("apsw", in_folder)
    primary = worker.open(in_folder.primary(tmp_path / "app.db"), "primary")
    fill(primary, 20_000)
    sync(primary)
    small = tmp_path / "small"
    small.mkdir()
    # A file system of 4 MiB in a namespace of its own, so that it needs no rights and ends with its process.
    script = (f"mount -t tmpfs -o size=4m none {small} || exit 77\n"
              f"{SQLITE_SHELL} :memory: -cmd '.load {LIBRARY.with_suffix('')}'"
              f" \"SELECT litestream_restore('{in_folder.full_url}', '{small}/new/copy.db')\"\n"
              f"echo code $?; echo left: $(ls -A {small})")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], env=clean_env(), capture_output=True, text=True, timeout=60)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system of our own here: {done.stderr}")
    output = done.stdout + done.stderr
    assert "code 1" in output and "No space left on device" in output and str(small) in output, output
    assert "left:\n" in output, output


@pytest.fixture
def stuck(start, through_proxy, proxy, tmp_path):
    """A replica of which nothing after the first 4 MiB of a file comes."""
    big.make(tmp_path / "app.db", 12_000_000)
    primary = start("apsw", through_proxy).open(through_proxy.primary(tmp_path / "app.db"), "primary")
    sync(primary, 60)
    primary.close()

    def hang(request):
        begin = re.match(r"bytes=(\d+)-", request.headers.get("range", ""))
        return Hang() if begin and int(begin[1]) >= 4 << 20 else None

    proxy.fault = hang
    return through_proxy


WATCHED = """
import json, sys, threading
module, library, url, path = sys.argv[1:]
if module == "apsw":
    import apsw
    def connect():
        return apsw.Connection(":memory:")
    Failure = apsw.Error
else:
    import sqlite3
    def connect():
        return sqlite3.connect(":memory:", check_same_thread=False)
    Failure = sqlite3.Error
restoring, watching = connect(), connect()
for connection in (restoring, watching):
    connection.enable_load_extension(True)
    connection.load_extension(library)
outcome = []
def restore():
    try:
        outcome.append(restoring.execute("SELECT litestream_restore(?, ?)", (url, path)).fetchall())
    except Failure as e:
        outcome.append(str(e))
thread = threading.Thread(target=restore)
thread.start()
LOOK = "SELECT state, path, url, bytes, bytes_done, files, seconds, error FROM litestream_restores"
while True:
    rows = watching.execute(LOOK).fetchall()
    if rows and rows[0][0] == "restoring" and rows[0][4] > 0:
        break
restoring.interrupt()
thread.join()
print(json.dumps({"outcome": outcome[0], "during": rows[0], "after": watching.execute(LOOK).fetchall()[0]}))
"""


def test_a_restore_is_watched_and_interrupted(stuck, host, tmp_path):
    python, module = HOSTS[host]
    path = tmp_path / "new" / "copy.db"
    done = subprocess.run([python, "-c", WATCHED, module, str(LIBRARY.with_suffix("")), stuck.full_url, str(path)],
                          env=clean_env(**stuck.env), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "interrupt" in seen["outcome"].lower(), seen
    state, where, url, size, have, files, seconds, error = seen["during"]
    assert (state, where, files, error) == ("restoring", str(path), 1, None)
    assert url.startswith(stuck.url) and 0 < have < size == stuck.files(0)[0].size and seconds > 0
    assert seen["after"][0] == "cancelled" and seen["after"][4] >= have
    assert not path.parent.exists(), "nothing is left behind"


def test_a_person_at_a_terminal_sees_how_far_it_is_and_ends_it(stuck, tmp_path):
    terminal, theirs = pty.openpty()
    sql = f"SELECT litestream_restore('{stuck.full_url}', '{tmp_path}/new/copy.db');"
    shell = subprocess.Popen([SQLITE_SHELL, ":memory:", "-cmd", f".load {LIBRARY.with_suffix('')}", sql],
                             env=clean_env(**stuck.env), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while b"restoring copy.db: " not in seen:
            seen += os.read(terminal, 65536)
        assert (tmp_path / "new").exists()
        shell.send_signal(signal.SIGINT)
        while True:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # how a terminal ends
                break
        assert shell.wait(30) != 0
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
    text = seen.decode()
    assert re.search(r"restoring copy\.db: \d+ % of \d+ MB, \d+ [kM]B/s", text), text
    assert "interrupted" in text and not (tmp_path / "new").exists(), text


def test_no_line_is_printed_where_nobody_watches(stuck, tmp_path):
    sql = f"SELECT litestream_restore('{stuck.full_url}', '{tmp_path}/copy.db');"
    shell = subprocess.Popen([SQLITE_SHELL, ":memory:", "-cmd", f".load {LIBRARY.with_suffix('')}", sql],
                             env=clean_env(**stuck.env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: list(tmp_path.glob(".litestream-restore-*")), 30, "the restore to begin")
    shell.send_signal(signal.SIGINT)
    output, _ = shell.communicate(timeout=30)
    assert b"restoring" not in output and b"interrupted" in output, output
    assert not list(tmp_path.glob("*restore*"))
