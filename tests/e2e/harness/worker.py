"""The parent's side of a Python host."""

import base64
import json
import os
import selectors
import subprocess
import time
from pathlib import Path

from .compare import Content
from .paths import LIBRARY, SQLITE3MC, SYSTEM_PYTHON, VENV_PYTHON, clean_env

MAIN = Path(__file__).with_name("worker_main.py")
HOSTS = {
    "python": (SYSTEM_PYTHON, "sqlite3"),
    "apsw": (VENV_PYTHON, "apsw"),
    "sqlcipher": (VENV_PYTHON, "sqlcipher"),
    "sqlite3mc": (VENV_PYTHON, "sqlite3mc"),
}


class SqlError(Exception):
    """What the host raised: its type's name, and its message as the user sees it."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class HostDied(Exception):
    """The process ended, or did not answer in time."""


def _encode(value):
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value))


def _decode(value):
    return base64.b64decode(value["bytes"]) if set(value) == {"bytes"} else value


class Worker:
    """A process with SQLite in it. `host` is one of `HOSTS`."""

    def __init__(self, host: str = "python", env: dict | None = None, cwd: Path | None = None,
                 load: bool = True):
        python, module = HOSTS[host]
        self.host = host
        self._process = subprocess.Popen(
            [python, str(MAIN), module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=clean_env(SQLITE3MC=str(SQLITE3MC), **(env or {})), cwd=cwd,
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._pending = b""
        if load:
            self.load()

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, path: Path = LIBRARY, entry: str | None = None) -> None:
        """Loads an extension through a connection that is closed again, for the whole process."""
        self.call("load", path=str(path), entry=entry)

    def open(self, target, name: str = "db", timeout: float = 10) -> "Connection":
        """Opens a database, by URI or path; `timeout` is SQLite's busy timeout in seconds."""
        self.call("open", name=name, target=str(target), timeout=timeout)
        return Connection(self, name)

    def call(self, op: str, deadline: float = 120, **arguments):
        """One request and its answer; a host that is silent for `deadline` seconds is killed."""
        if self.ended:
            raise HostDied(f"{self.host} ended with {self._process.returncode}")
        self.begin(op, **arguments)
        answer = json.loads(self._line(op, deadline), object_hook=_decode)
        if "error" in answer:
            raise SqlError(*answer["error"])
        return answer["ok"]

    def begin(self, op: str, **arguments) -> None:
        """A request whose answer is not waited for: nothing else can be asked after it."""
        line = json.dumps({"op": op, **arguments}, default=_encode).encode() + b"\n"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise HostDied(f"{self.host} ended with {self._process.wait()}") from None

    def _line(self, op: str, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            if not self._selector.select(deadline - time.monotonic()):
                self.kill()
                raise HostDied(f"{self.host}: no answer to {op} within {seconds} s")
            data = self._process.stdout.read()
            if data == b"":
                raise HostDied(f"{self.host} ended with {self._process.wait()} in {op}")
            self._pending += data or b""
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._finish()

    def end(self, deadline: float = 30) -> int:
        """Ends the process as a script ends; the exit code."""
        self._process.stdin.close()
        try:
            code = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()
            raise HostDied(f"{self.host} did not end within {deadline} s") from None
        self._finish()
        return code

    def _finish(self) -> None:
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None


class Connection:
    """A connection in a worker."""

    def __init__(self, worker: Worker, name: str):
        self.worker = worker
        self.name = name

    def load(self) -> "Connection":
        """Loads the library on this very connection, whose SQL may write files and reach stores then."""
        self.worker.call("load_on", name=self.name, path=str(LIBRARY))
        return self

    def rows(self, sql: str, *params, deadline: float = 120) -> list[list]:
        """Runs one statement; its rows."""
        return self.worker.call("exec", deadline, name=self.name, sql=sql, params=params)

    def one(self, sql: str, *params, deadline: float = 120):
        """The first value of the first row; None if there is no row."""
        rows = self.rows(sql, *params, deadline=deadline)
        return rows[0][0] if rows else None

    def run(self, *statements: str) -> None:
        """Runs statements one after the other."""
        for sql in statements:
            self.rows(sql)

    def interrupted(self, sql: str, *params, after: float, deadline: float = 120) -> list[list]:
        """As `rows`, and the connection is interrupted after so many seconds."""
        return self.worker.call("interrupted", deadline, name=self.name, sql=sql, params=params, after=after)

    def many(self, sql: str, rows) -> None:
        """`executemany`."""
        self.worker.call("many", name=self.name, sql=sql, rows=list(rows))

    def content(self, deadline: float = 600) -> Content:
        """All that the database holds."""
        return Content.from_json(self.worker.call("content", deadline, name=self.name))

    def close(self, deadline: float = 120) -> None:
        self.worker.call("close", deadline, name=self.name)
