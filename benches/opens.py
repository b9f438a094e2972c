#!/usr/bin/env python3
"""What a program pays that opens and closes the database for each request: `make bench`.

Runs go in pairs, plain SQLite and then replicated. A request of a single process opens, reads and closes; or it does so
while the store is away. Eight processes open, write and close beside each other.
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

from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env  # noqa: E402
from harness.s3 import free_port  # noqa: E402

HOST = """
import sqlite3, sys, time
library, target, what, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
loader = sqlite3.connect(":memory:")
if library:
    loader.enable_load_extension(True); loader.load_extension(library)
loader.close()

def request():
    db = sqlite3.connect(target, uri=True, isolation_level=None, timeout=60)
    if what == "write":
        db.execute("INSERT INTO t(x) VALUES (randomblob(100))")
    else:
        db.execute("SELECT count(*) FROM t").fetchone()
    db.close()

request()
print("ready", flush=True)
sys.stdin.readline()
rounds, took, end = 0, [], time.monotonic() + seconds
while (began := time.monotonic()) < end:
    request()
    took.append(time.monotonic() - began)
took.sort()
print(len(took), took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000)
"""


class Run:
    """One database, plain or replicated to a folder or to a store that is away."""

    def __init__(self, folder: Path, way: str, **parameters):
        self.library = "" if way == "plain" else str(LIBRARY)
        path = folder / "app.db"
        location = Location.file(folder / "replica")
        if way == "away":
            port = free_port()
            location = Location.s3(folder / "bucket", "app", f"http://127.0.0.1:{port}")
        self.env = clean_env(LITESTREAM_LOG_LEVEL="error", **location.env)
        self.target = f"file:{path}" if way == "plain" else location.primary(path, **parameters)
        self._once(f"file:{path}", "CREATE TABLE t(id INTEGER PRIMARY KEY, x)", "PRAGMA journal_mode=wal")

    def _once(self, target: str, *statements: str) -> None:
        code = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], uri=True)\nfor s in sys.argv[2:]: db.execute(s)\ndb.commit()"
        subprocess.run([SYSTEM_PYTHON, "-c", code, target, *statements], check=True)

    def measure(self, what: str, processes: int, seconds: float) -> tuple[int, float, float]:
        """The rounds of all processes, and the median and the 99th percentile of a round of the first, in milliseconds."""
        hosts = [subprocess.Popen([SYSTEM_PYTHON, "-c", HOST, self.library, self.target, what, str(seconds)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.env)
                 for _ in range(processes)]
        for host in hosts:
            assert host.stdout.readline() == "ready\n"
        for host in hosts:
            host.stdin.write("go\n")
            host.stdin.flush()
        results = [host.communicate()[0].split() for host in hosts]
        return sum(int(rounds) for rounds, _, _ in results), float(results[0][1]), float(results[0][2])


def pairs(name: str, way: str, what: str, processes: int, count: int, seconds: float, **parameters) -> None:
    ratios, medians = [], []
    for _ in range(count):
        both = []
        for each in ("plain", way):
            with tempfile.TemporaryDirectory(prefix="opens-") as folder:
                both.append(Run(Path(folder), each, **(parameters if each != "plain" else {})).measure(what, processes, seconds))
        (plain, plain_ms, plain_p99), (ours, ours_ms, ours_p99) = both
        ratios.append(ours / plain)
        medians.append((plain_ms, ours_ms, plain_p99, ours_p99))
        time.sleep(0.1)
    shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
    plain_ms, ours_ms, plain_p99, ours_p99 = (statistics.median(column) for column in zip(*medians))
    print(f"{name:34} rounds {statistics.median(ratios):.2f} of plain ({shown}); "
          f"a round {ours_ms:.2f} ms, plain {plain_ms:.2f} (99 %: {ours_p99:.2f}, {plain_p99:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    run = (options.pairs, options.seconds)
    pairs("open, read, close", "folder", "read", 1, *run)
    pairs("open, read, close, store away", "away", "read", 1, *run)
    pairs("eight open, write, close", "folder", "write", 8, *run)
    pairs("eight, close_timeout=0", "folder", "write", 8, *run, close_timeout="0s")


if __name__ == "__main__":
    main()
