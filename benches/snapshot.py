#!/usr/bin/env python3
"""Commits of one writer without and during a snapshot of the database that it writes, in turns.

    .venv/bin/python benches/snapshot.py --megabytes 1000 --rounds 3
"""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env  # noqa: E402
from harness.scratch import scratch  # noqa: E402

# Runs in a host of its own, which loads extensions.
MAIN = r"""
import sqlite3, sys, threading, time
library, uri, megabytes, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
connect = lambda: sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60, check_same_thread=False)
db = connect()
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE big(data BLOB)")
db.execute("CREATE TABLE t(x INTEGER, y BLOB)")
for _ in range(megabytes):
    db.execute("INSERT INTO big VALUES (randomblob(1000000))")
db.execute("WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000) INSERT INTO t SELECT x, randomblob(100) FROM n")
db.execute("SELECT litestream_sync(600)").fetchone()

def write(until):
    times = []
    while not until():
        began = time.perf_counter()
        # Every commit is alike: with inserts, the hundredth that begins a new page would decide what the 99th takes.
        db.execute("UPDATE t SET y = randomblob(100) WHERE rowid = 1 + abs(random()) % 100000")
        times.append(time.perf_counter() - began)
    times.sort()
    return times

def say(what, times):
    p = lambda share: times[int(len(times) * share)] * 1e3
    print(f"{what:>8}: {len(times):7} commits, p50 {p(.5):.3f} ms, p99 {p(.99):.3f} ms, p99.9 {p(.999):.3f} ms, max {times[-1] * 1e3:.1f} ms", flush=True)
    return p(.99)

ratios = []
for _ in range(rounds):
    end = time.monotonic() + 8
    without = say("without", write(lambda: time.monotonic() > end))
    other = connect()
    asked = threading.Thread(target=lambda: other.execute("SELECT litestream_snapshot()").fetchone())
    began = time.monotonic()
    asked.start()
    ratios.append(say("during", write(lambda: not asked.is_alive())) / without)
    asked.join()
    other.close()
    print(f"          a snapshot in {time.monotonic() - began:.1f} s; p99 is {ratios[-1]:.2f} times that without", flush=True)
print(f"p99, median of {rounds}: {sorted(ratios)[len(ratios) // 2]:.2f} times")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    # The server stands for another machine.
    with scratch("s3", nice=19) as (folder, location):
        uri = location.primary(folder / "app.db", snapshot_interval="8760h")
        subprocess.run([SYSTEM_PYTHON, "-c", MAIN, str(LIBRARY), uri, str(arguments.megabytes), str(arguments.rounds)],
                       env=clean_env(**location.env), check=True)


if __name__ == "__main__":
    main()
