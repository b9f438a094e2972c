"""Long-lived sessions of the sqlite3 shell."""

import os
import pty
import selectors
import subprocess
import time
import tty
from pathlib import Path

from .paths import SQLITE_SHELL, clean_env


class Shell:
    """A sqlite3 shell. Its output is a terminal, so that it is flushed by line; its input a pipe, so
    that there are neither prompts nor echoes."""

    def __init__(self, *arguments: str, env: dict | None = None, cwd: Path | None = None):
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self._process = subprocess.Popen(
            [SQLITE_SHELL, "-init", os.devnull, "-batch", *map(str, arguments)], stdin=subprocess.PIPE,
            stdout=slave, stderr=slave, env=clean_env(**(env or {})), cwd=cwd,
        )
        os.close(slave)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._master, selectors.EVENT_READ)
        self._pending = b""
        self._count = 0
        self.run("")

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, text: str, deadline: float = 60) -> str:
        """Types `text`; everything that the shell prints for it, errors included."""
        self._count += 1
        mark = f"-- end of output {self._count} --"
        self._process.stdin.write(f"{text}\n.print {mark}\n".encode())
        self._process.stdin.flush()
        return self._read(mark.encode() + b"\n", deadline, text)

    def _read(self, mark: bytes, seconds: float, text: str) -> str:
        deadline = time.monotonic() + seconds
        while mark not in self._pending:
            if not self._selector.select(deadline - time.monotonic()):
                self.kill()
                raise TimeoutError(f"the shell did not finish {text!r} within {seconds} s: {self._pending!r}")
            try:
                self._pending += os.read(self._master, 65536)
            except OSError:  # how a terminal ends
                code = self._process.wait()
                raise EOFError(f"the shell ended with {code} in {text!r}: {self._pending!r}") from None
        output, _, self._pending = self._pending.partition(mark)
        return output.decode().rstrip("\n")

    def end(self, deadline: float = 30) -> int:
        """End of input; the exit code."""
        self._process.stdin.close()
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise TimeoutError(f"the shell did not end within {deadline} s") from None
        finally:
            self._finish()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()
        self._finish()

    def _finish(self) -> None:
        self._selector.close()
        os.close(self._master)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None
