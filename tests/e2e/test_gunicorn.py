"""A prefork server: gunicorn loads the application, and us with it, opens the database, then forks two workers.

The workers commit at once, each through a connection of its own, while the master keeps one open. A worker that is killed
is replaced by a new fork of the same master. In the end every answered request is in the replica.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.litestream import restore
from harness.paths import LIBRARY, ROOT, clean_env
from harness.s3 import accepts, free_port
from harness.sql import sync
from harness.wait import until

HARNESS = ROOT / "tests" / "e2e" / "harness"


@pytest.fixture
def server(location, tmp_path):
    port = free_port()
    env = clean_env(**location.env, LITESTREAM_VFS_LIB=str(LIBRARY),
                    GUESTBOOK_URI=location.primary(tmp_path / "app.db", sync_interval="100ms", close_timeout="30s"))
    with (tmp_path / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}",
             "--chdir", HARNESS, "--no-control-socket", "guestbook:application"],
            env=env, cwd=tmp_path, stdout=log, stderr=log)
    until(lambda: accepts(port), 20, (tmp_path / "gunicorn.log").read_text())
    yield process, f"http://127.0.0.1:{port}/"
    if process.poll() is None:
        process.kill()
        process.wait()


def post(url: str) -> int:
    """The process that answered."""
    with urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST"), timeout=60) as answer:
        return int(answer.read().split()[0])


def test_two_workers_of_a_preloaded_application_commit(server, start, location, tmp_path):
    process, url = server
    with ThreadPoolExecutor(4) as clients:
        pids = list(clients.map(post, [url] * 200))
    assert len(set(pids)) == 2 and process.pid not in pids
    os.kill(pids[0], signal.SIGKILL)
    with ThreadPoolExecutor(4) as clients:
        after = list(clients.map(lambda _: until(lambda: posted(url), 30, "the server answers again"), range(50)))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (tmp_path / "gunicorn.log").read_text()
    # What the workers committed and nobody published yet goes out at the next open.
    db = start("python", location).open(location.primary(tmp_path / "app.db"))
    sync(db, 30)
    db.close()
    assert location.gaps() == []
    db = sqlite3.connect(restore(location, tmp_path / "restored.db"))
    print(sqlite3.connect(tmp_path / "app.db").execute("SELECT count(*) FROM entry").fetchone(), tmp_path)
    # A request whose worker was killed may have committed without an answer.
    there = db.execute("SELECT count(*) FROM entry").fetchone()[0]
    assert len(pids) + len(after) <= there <= len(pids) + len(after) + 4
    source = sqlite3.connect(tmp_path / "app.db")
    assert source.execute("SELECT pid, count(*) FROM entry GROUP BY 1").fetchall() == db.execute(
        "SELECT pid, count(*) FROM entry GROUP BY 1").fetchall()


def posted(url: str) -> int | None:
    try:
        return post(url)
    except OSError:
        return None
