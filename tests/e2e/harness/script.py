"""Programs of a few lines, each run by the system's Python to its end: what a long-lived worker cannot show."""

import subprocess
from pathlib import Path

from .paths import LIBRARY, SYSTEM_PYTHON, clean_env

PREAMBLE = f"""
import os, signal, sqlite3, sys, threading, time

def load():
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension({str(LIBRARY)!r})
    loader.close()

def connect(uri, timeout=30, **options):
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout, **options)

def one(db, sql, *params):
    return db.execute(sql, params).fetchone()[0]
"""


def run(script: str, cwd: Path, env: dict | None = None, timeout: float = 120, check: bool = True,
        **names: object) -> subprocess.CompletedProcess:
    """Runs `script` after the preamble, which gives it `load`, `connect` and `one`, and the constants `names`."""
    constants = "".join(f"{name} = {(str(value) if isinstance(value, Path) else value)!r}\n" for name, value in names.items())
    done = subprocess.run([SYSTEM_PYTHON, "-c", PREAMBLE + constants + script], cwd=cwd, env=clean_env(**(env or {})),
                          capture_output=True, text=True, timeout=timeout)
    if check:
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
