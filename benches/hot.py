#!/usr/bin/env python3
"""A replica whose pages are in memory, against a local file: part of `make bench`.

Single rows by random primary key, each query a transaction of its own, with the same SQLite page cache on both
sides. The local file is measured in WAL mode and with a rollback journal; the faster one counts. Runs go in
turns, so that a machine whose speed drifts does not tilt the ratio.
"""

import argparse
import shutil
import sqlite3
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.location import Location, sqlite_uri  # noqa: E402
from harness.paths import LIBRARY, clean_env  # noqa: E402
from harness.scratch import scratch  # noqa: E402

HOST = ROOT / "benches" / "host" / "target" / "release" / "bench-host"
# What fits into the default memory cache, and more than SQLite's own cache holds.
ROWS = 50_000
CACHES = {"SQLite's default cache of 2 MB": 2000, "a SQLite cache for everything": 256 * 1024}


def host(location: Location, *arguments) -> str:
    done = subprocess.run([HOST, *map(str, arguments)], check=True, capture_output=True, text=True,
                          env=clean_env(**location.env))
    return done.stdout


def prepare(folder: Path, location: Location, rows: int) -> dict[str, list]:
    """The same database as two local files and as a replica: for each its URI and what is loaded."""
    journal, wal = folder / "journal.db", folder / "wal.db"
    host(location, "prepare", wal, rows)
    shutil.copyfile(wal, journal)
    db = sqlite3.connect(journal)
    db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    shutil.copyfile(wal, folder / "primary.db")
    host(location, "single", location.primary(folder / "primary.db"), 1, 0, LIBRARY)
    return {"local, WAL": [sqlite_uri(wal), None], "local, journal": [sqlite_uri(journal), None],
            "replica": [location.replica(), LIBRARY]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    with scratch("s3") as (folder, location):
        ways = prepare(folder, location, arguments.rows)
        print(f"| queries a second, warm | {' | '.join(ways)} | replica of local |")
        print("| --- " * (len(ways) + 2) + "|", flush=True)
        for name, kib in CACHES.items():
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(arguments.turns):
                for way, (uri, library) in ways.items():
                    loaded = [library] if library else []
                    rates[way].append(float(host(location, "points", uri, arguments.seconds, ROWS, kib, *loaded)))
            medians = [statistics.median(rates[way]) for way in ways]
            ratio = statistics.median(r / max(w, j) for w, j, r in zip(*rates.values()))
            print(f"| {name} | {' | '.join(f'{m:.0f}' for m in medians)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
