"""A notes application under gunicorn, two workers of a preloaded program, is killed and restarted while a client writes.

In Flask with SQLAlchemy and in Django. Each note is answered after `litestream_sync`. Whatever was answered is in the replica: an
application that only reads it shows it, and a restore holds it. No restart makes anybody wait for the dead, and nothing is logged.
"""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from harness import packages
from harness.litestream import restore
from harness.paths import SYSTEM_PYTHON
from harness.s3 import accepts, free_port
from harness.wait import until

APPS = Path(__file__).parent / "apps"


class Server:
    """gunicorn with an application, killed as a whole."""

    def __init__(self, folder: Path, application: str, location, **env: str):
        self.folder, self.application, self.port = folder, application, free_port()
        self.env = packages.with_frameworks(APPS, NOTES_REPLICA=location.full_url, LITESTREAM_SYNC_INTERVAL="100ms", **location.env,
                                            **env)
        self.log = folder / f"{env.get('NOTES_ROLE', 'primary')}.log"
        self.process = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [SYSTEM_PYTHON, "-m", "gunicorn", "--preload", "--workers", "2", "--log-level", "warning", "--no-control-socket",
                 "--bind", f"127.0.0.1:{self.port}", self.application],
                cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True)
        until(lambda: accepts(self.port), 60, lambda: self.log.read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()

    def ask(self, path: str = "/notes", body: str | None = None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body and body.encode(),
                                         headers={"Content-Type": "text/plain"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


class Client(threading.Thread):
    """Writes notes one after the other, and remembers which were answered."""

    def __init__(self, server: Server, name: str):
        super().__init__(name=name, daemon=True)
        self.server, self.answered, self.done, self.longest = server, [], threading.Event(), 0.0

    def run(self) -> None:
        number = 0
        while not self.done.is_set():
            number += 1
            begun = time.monotonic()
            try:
                self.server.ask(body=f"{self.name} {number}")
            except (OSError, http.client.HTTPException):
                # Killed before, or in the middle of, its answer.
                continue
            self.answered.append(f"{self.name} {number}")
            self.longest = max(self.longest, time.monotonic() - begun)


@pytest.fixture
def serve(tmp_path, in_s3):
    servers = []

    def serve(application: str, **env: str) -> Server:
        servers.append(Server(tmp_path, application, in_s3, **env))
        return servers[-1]

    yield serve
    for server in servers:
        if server.process and server.process.poll() is None:
            server.kill()


def manage(folder: Path, location, *arguments: str, stdin: str = "") -> str:
    env = packages.with_frameworks(APPS, NOTES_REPLICA=location.full_url, DJANGO_SETTINGS_MODULE="notes_django.settings", **location.env)
    done = subprocess.run([SYSTEM_PYTHON, "-m", "django", *arguments], cwd=folder, env=env, input=stdin, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["flask", "django"])
def test_killed_and_restarted_while_a_client_writes(serve, in_s3, tmp_path, kind):
    table, env = ("note", {}) if kind == "flask" else ("notes_django_note", {"DJANGO_SETTINGS_MODULE": "notes_django.settings"})
    if kind == "django":
        manage(tmp_path, in_s3, "migrate", "--verbosity", "0")
    server = serve("notes_flask" if kind == "flask" else "notes_django.wsgi", **env)
    server.start()
    clients = [Client(server, name) for name in ("one", "two")]
    for client in clients:
        client.start()
    for _ in range(3):
        before = [len(client.answered) for client in clients]
        until(lambda: all(len(c.answered) >= n + 10 for c, n in zip(clients, before)), 60, "both clients are answered")
        server.kill()
        server.start()
    before = [len(client.answered) for client in clients]
    until(lambda: all(len(c.answered) >= n + 10 for c, n in zip(clients, before)), 60, "both clients are answered")
    for client in clients:
        client.done.set()
        client.join(60)
    answered = [note for client in clients for note in client.answered]

    reader = serve("notes_flask", NOTES_ROLE="replica") if kind == "flask" else server
    if kind == "flask":
        reader.start()
    where = "/notes" if kind == "flask" else "/notes?using=reader"
    until(lambda: set(answered) <= set(reader.ask(where)), 30, "the replica shows all that was answered")
    server.stop()
    assert server.log.read_text() == ""
    restored = sqlite3.connect(restore(in_s3, tmp_path / "restored.db"))
    assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    source = sqlite3.connect(tmp_path / "notes.db")
    everything = f"SELECT * FROM {table} ORDER BY id"
    assert restored.execute(everything).fetchall() == source.execute(everything).fetchall()
    assert set(answered) <= {body for _, body in restored.execute(everything)}
    # What waits for a dead process waits for longer than this: a lock that times out, a store that is asked again.
    assert max(client.longest for client in clients) < 10


def test_django_migrates_tests_and_has_a_shell(in_s3, tmp_path):
    manage(tmp_path, in_s3, "migrate")
    assert "0002_body" in manage(tmp_path, in_s3, "showmigrations", "--plan")
    assert "No changes detected" in manage(tmp_path, in_s3, "makemigrations", "--check", "--dry-run")
    said = manage(tmp_path, in_s3, "dbshell", stdin="INSERT INTO notes_django_note(body) VALUES ('by the shell');\nSELECT litestream_sync();\n"
                                                    "SELECT state FROM litestream_status;\n")
    assert "idle" in said, said
    said = manage(tmp_path, in_s3, "dbshell", "--database", "reader", stdin="SELECT body, litestream_txid() FROM notes_django_note;\n")
    assert said.startswith("by the shell|000000"), said
    assert "OK" in manage(tmp_path, in_s3, "test", "notes_django")
    manage(tmp_path, in_s3, "migrate", "notes_django", "0001")
    assert not (tmp_path / "reader.db").exists()
