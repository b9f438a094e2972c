#!/usr/bin/env python3
"""Runs SQLite's own mptest, speedtest1 and kvtest on primaries, and compares: `.venv/bin/python scripts/torture.py`.

Needs a C compiler, libsqlite3-dev, and apt to fetch Debian's source package of sqlite3 (to .tools/sqlite-source, or to the
folder that TORTURE_SOURCE names).
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import torture  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    arguments = parser.parse_args()
    source = torture.fetch(torture.cached())
    print(f"source: {source.name}", flush=True)
    with scratch(arguments.store) as (folder, location):
        work = folder / "work"
        work.mkdir()

        def at(name: str):
            return replace(location, url=f"{location.url}/{name}", folder=location.folder / name)

        torture.Torture(source, work, at, say=lambda line: print(line, flush=True)).run()


if __name__ == "__main__":
    main()
