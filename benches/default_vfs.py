#!/usr/bin/env python3
"""What the default VFS costs a database that is not configured: SQLite's speedtest1 with it and without, in pairs.

    .venv/bin/python benches/default_vfs.py --speedtest1 sqlite/test/speedtest1.c

The program is in SQLite's source. Each pair has a second run without, which shows how far the machine is to be trusted.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.paths import LIBRARY, clean_env  # noqa: E402

# Loads the library, if one is named, as the process's default VFS before speedtest1 begins.
MAIN = """
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
int speedtest1(int, char **);
int main(int count, char **arguments) {
    const char *library = getenv("LIBRARY");
    sqlite3 *loader;
    char *error = 0;
    if (library) {
        if (sqlite3_open(":memory:", &loader) || sqlite3_enable_load_extension(loader, 1)
            || sqlite3_load_extension(loader, library, "sqlite3_litestreamdefault_init", &error)) {
            fprintf(stderr, "%s\\n", error ? error : "cannot load the library");
            return 1;
        }
        sqlite3_close(loader);
        if (!sqlite3_vfs_find(0) || sqlite3_vfs_find(0) == sqlite3_vfs_find("unix")) return 2;
    }
    return speedtest1(count, arguments);
}
"""


def compile_into(folder: Path, source: Path) -> Path:
    (folder / "main.c").write_text(MAIN)
    program = folder / "speedtest1"
    subprocess.run(["cc", "-O2", "-c", "-Dmain=speedtest1", source, "-o", folder / "speedtest1.o"], check=True)
    subprocess.run(["cc", "-O2", folder / "main.c", folder / "speedtest1.o", "-lsqlite3", "-lm", "-o", program], check=True)
    return program


def seconds(program: Path, folder: Path, size: int, library: Path | None) -> float:
    """How long a run takes in which nothing is synced, so that it is not the disk that is measured."""
    database = folder / "speed.db"
    for file in folder.glob("speed.db*"):
        file.unlink()
    env = clean_env(**({"LIBRARY": str(library)} if library else {}))
    began = time.monotonic()
    subprocess.run([program, "--size", str(size), "--nosync", database], check=True, env=env, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedtest1", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--size", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="default-vfs-") as name:
        folder = Path(name)
        program = compile_into(folder, options.speedtest1)
        ratios, spread = [], []
        for _ in range(options.pairs):
            plain, ours, again = (seconds(program, folder, options.size, library) for library in (None, LIBRARY, None))
            ratios.append(ours / plain)
            spread.append(again / plain)
            print(f"without {plain:.2f} s, with {ours:.2f} s ({ours / plain:.3f}), without again {again:.2f} s ({again / plain:.3f})",
                  flush=True)
        print(f"median of {options.pairs} pairs: with {statistics.median(ratios):.3f} of without; without against itself "
              f"{statistics.median(spread):.3f} ({min(spread):.3f} to {max(spread):.3f})")


if __name__ == "__main__":
    main()
