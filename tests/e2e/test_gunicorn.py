"""A prefork server: gunicorn loads the application, and us with it, opens the database, then forks two workers.

The workers commit at once, each through a connection of its own, while the master keeps one open. A worker that is killed
is replaced by a new fork of the same master. In the end every answered request is in the replica.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import monitor
from harness.litestream import restore
from harness.paths import LIBRARY, ROOT, clean_env
from harness.s3 import accepts, free_port
from harness.sql import sync
from harness.wait import until

HARNESS = ROOT / "tests" / "e2e" / "harness"


@pytest.fixture
def server(location, tmp_path):
    """Starts gunicorn with so many workers; `parameters` are of the URI, `env` of the environment."""
    started = []

    def server(workers: int, env: dict[str, str] | None = None, **parameters: object) -> tuple[subprocess.Popen, str]:
        port = free_port()
        uri = location.primary(tmp_path / "app.db", sync_interval="100ms", close_timeout="30s", **parameters)
        with (tmp_path / "gunicorn.log").open("wb") as log:
            started.append(subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--preload", "--workers", str(workers), "--bind", f"127.0.0.1:{port}",
                 "--chdir", HARNESS, "--no-control-socket", "guestbook:application"],
                env=clean_env(**location.env, LITESTREAM_VFS_LIB=str(LIBRARY), GUESTBOOK_URI=uri, **(env or {})),
                cwd=tmp_path, stdout=log, stderr=log))
        until(lambda: accepts(port), 20, (tmp_path / "gunicorn.log").read_text())
        return started[-1], f"http://127.0.0.1:{port}/"

    yield server
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def post(url: str) -> int:
    """The process that answered."""
    with urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST"), timeout=60) as answer:
        return int(answer.read().split()[0])


def test_two_workers_of_a_preloaded_application_commit(server, start, location, tmp_path):
    process, url = server(2)
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


class Watcher:
    """Asks for `/healthz` again and again; knows the longest time in which nobody answered."""

    def __init__(self, port: int):
        self._port, self._stop = port, threading.Event()
        self.longest = 0.0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        seen = time.monotonic()
        while not self._stop.wait(0.01):
            if monitor.is_there(self._port):
                seen, before = time.monotonic(), seen
                self.longest = max(self.longest, seen - before)
        self.longest = max(self.longest, time.monotonic() - seen)

    def end(self) -> float:
        self._stop.set()
        self._thread.join()
        return self.longest


@pytest.mark.parametrize("lazy", [False, True], ids=["the master has it open", "only workers open it"])
def test_one_listener_of_four_workers_that_are_replaced_one_by_one(server, tmp_path, lazy):
    port = free_port()
    process, url = server(4, env={"GUESTBOOK_LAZY": "1"} if lazy else {}, listen=f"127.0.0.1:{port}")

    def workers() -> set[int]:
        """The processes that the listener shows, without the master; none while the one that answers is ended."""
        posted(url)
        try:
            return {one["pid"] for one in monitor.status(port)["processes"]} - {process.pid}
        except OSError:
            return set()

    if lazy:
        post(url)
    until(lambda: monitor.is_there(port), 10, "somebody listens")
    first = until(lambda: len(there := workers()) == 4 and there, 30, "all workers are shown")
    watcher, there = Watcher(port), set(first)
    for pid in first:
        os.kill(pid, signal.SIGTERM)
        there = until(lambda: pid not in (now := workers()) and len(now) == 4 and now, 30, f"another one for {pid}")
    assert not there & first
    assert watcher.end() < 1
    [database] = monitor.status(port)["databases"]
    assert database["path"] == str(tmp_path / "app.db") and database["publishes"]


def posted(url: str) -> int | None:
    try:
        return post(url)
    except OSError:
        return None
