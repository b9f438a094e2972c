"""The listener of the library, as Prometheus, a health check and a browser see it; and a server that records webhooks."""

import hashlib
import hmac
import http.client
import json
import re
import shutil
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
"""Debian's package `prometheus` has it."""

SAMPLE = re.compile(r'^([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def get(port: int, path: str, host: str | None = None, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def is_there(port: int) -> bool:
    try:
        return get(port, "/healthz")[0] in (200, 503)
    except OSError:
        return False


def parse(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and labels."""
    samples: dict = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            key = tuple(sorted(LABEL.findall(labels or "")))
            assert key not in samples.setdefault(name, {}), f"twice: {line}"
            samples[name][key] = float(value)
    return samples


class Metrics:
    """What `/metrics` shows."""

    def __init__(self, text: str):
        self.text = text
        self.samples = parse(text)

    @classmethod
    def of(cls, port: int) -> "Metrics":
        status, text = get(port, "/metrics")
        assert status == 200
        return cls(text)

    def __call__(self, name: str, **labels: object) -> float | None:
        """The value with these labels, or the sum of all that have them; `None` if there is none."""
        wanted = {(key, str(value)) for key, value in labels.items()}
        values = [v for key, v in self.samples.get(name, {}).items() if wanted <= set(key)]
        return sum(values) if values else None

    def check(self) -> None:
        """What `promtool check metrics` says of it, if it is installed: nothing."""
        if PROMTOOL:
            done = subprocess.run([PROMTOOL, "check", "metrics"], input=self.text, capture_output=True, text=True)
            assert (done.returncode, done.stdout + done.stderr) == (0, "")


def status(port: int) -> dict:
    code, body = get(port, "/status.json")
    assert code == 200, body
    return json.loads(body)


@dataclass(frozen=True)
class Slow:
    """An answer 200 that begins `after` so many seconds, or never, and has a byte `every` so many."""

    after: float | None = 0
    every: float = 0


NEVER = Slow(after=None)


class Recorder:
    """A server that records what it is told, and answers as `answers` says, the last one for ever."""

    def __init__(self, *answers: int | Slow):
        self.answers = list(answers) or [200]
        self._ends = threading.Event()
        self.requests: list[tuple[str, dict, bytes]] = []
        self.times: list[float] = []
        """When each of them came, in seconds of the monotonic clock."""
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {key.lower(): value for key, value in self.headers.items()}
                recorder.requests.append((self.path, headers, body))
                recorder.times.append(time.monotonic())
                answers = recorder.answers
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if isinstance(answer, Slow):
                    self.answer_slowly(answer)
                    return
                self.send_response(answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def answer_slowly(self, slow: Slow):
                self.close_connection = True
                pause = slow.after
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n":
                    if recorder._ends.wait(pause):
                        return
                    try:
                        self.connection.sendall(bytes([byte]))
                    except OSError:
                        return  # Who asked waits no longer.
                    pause = slow.every

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/private"

    def told(self, event: str | None = None) -> list[dict]:
        """The bodies that were posted, of one event."""
        bodies = [json.loads(body) for _, _, body in list(self.requests) if body]
        return [body for body in bodies if event in (None, body["event"])]

    def assert_signed(self, secret: str) -> None:
        """Each request is signed with `secret`, at about this time."""
        for _, headers, body in self.requests:
            parts = dict(part.split("=", 1) for part in headers["x-litestream-signature"].split(","))
            signed = hmac.new(secret.encode(), parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
            assert hmac.compare_digest(signed, parts["v1"])
            assert abs(time.time() - int(parts["t"])) < 120

    def close(self) -> None:
        self._ends.set()
        self._server.shutdown()
        self._server.server_close()
