"""The bench's side of a `reader.py` process."""

import json
import subprocess
from pathlib import Path

from harness.paths import VENV_PYTHON, clean_env


class Reader:
    """A context manager."""

    def __init__(self, env: dict[str, str]):
        self.uri = ""
        self._process = subprocess.Popen([VENV_PYTHON, Path(__file__).with_name("reader.py")], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, bufsize=1, env=clean_env(**env))

    def call(self, op: str, **arguments) -> dict:
        self._process.stdin.write(json.dumps({"op": op} | arguments) + "\n")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the reader ended with {self._process.wait()} in {op}")
        return json.loads(line)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
