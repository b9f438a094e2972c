"""Hosts in C: small programs on the system's SQLite, or on one that is compiled for them."""

import functools
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .paths import ROOT


def build(folder: Path, source: str, *options: str, sqlite: Path | None = None) -> Path:
    """Compiles the program `source` in `folder`, with the SQLite object file `sqlite` or the system's library."""
    program = folder / "host"
    (folder / "host.c").write_text(source)
    include, library = ([f"-I{amalgamation()}"], [sqlite]) if sqlite else ([], ["-lsqlite3"])
    subprocess.run(["cc", "-O1", "-Wall", *include, *options, folder / "host.c", *library, "-lpthread", "-ldl", "-lm",
                    "-o", program], check=True)
    return program


def compile_sqlite(folder: Path, *options: str) -> Path:
    """SQLite as an object file, compiled with `options` from the source that the pinned crate libsqlite3-sys holds."""
    made = folder / "sqlite3.o"
    subprocess.run(["cc", "-O0", "-w", *options, "-c", amalgamation() / "sqlite3.c", "-o", made], check=True)
    return made


@functools.cache
def amalgamation() -> Path:
    """The folder of sqlite3.c and sqlite3.h in cargo's copy of libsqlite3-sys."""
    if not shutil.which("cargo"):
        pytest.skip("no cargo on this machine, which has SQLite's source")
    [host] = (line[6:] for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines() if line[:6] == "host: ")
    metadata = subprocess.run(["cargo", "metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host],
                              cwd=ROOT, check=True, capture_output=True, text=True).stdout
    [manifest] = (p["manifest_path"] for p in json.loads(metadata)["packages"] if p["name"] == "libsqlite3-sys")
    return Path(manifest).parent / "sqlite3"
