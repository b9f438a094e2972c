#!/usr/bin/env python3
"""From a commit on a primary until a replica shows it, with the default `poll_interval` and with 50 ms:
`.venv/bin/python scripts/freshness.py --commits 100 --seed 1`."""

import argparse
import random
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness.proxy import Proxy  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.sql import sync  # noqa: E402
from harness.worker import Worker  # noqa: E402


class Replica(threading.Thread):
    """Reads the last row all the time, and notes when it saw each."""

    def __init__(self, location, folder: Path, **settings: object):
        super().__init__(daemon=True)
        self.worker = Worker("python", env=location.env, cwd=folder)
        self.db = self.worker.open(location.replica(open_timeout="30s", **settings))
        self.seen: dict[int, float] = {}
        self.ending = threading.Event()

    def run(self) -> None:
        last = 0
        while not self.ending.wait(0.001):
            now = self.db.one("SELECT coalesce(max(id), 0) FROM t")
            at = time.monotonic()
            for n in range(last + 1, now + 1):
                self.seen[n] = at
            last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rtt", type=float, default=20, help="milliseconds of each request")
    arguments = parser.parse_args()
    pause = random.Random(arguments.seed)
    with scratch("s3") as (folder, location):
        proxy = Proxy(int(location.settings["endpoint"].rpartition(":")[2]))
        proxy.delay = arguments.rtt / 1000
        location = location.at(proxy.endpoint)
        primary = Worker("python", env=location.env, cwd=folder).open(location.primary(folder / "app.db"))
        primary.run("CREATE TABLE t(id INTEGER PRIMARY KEY, at REAL)")
        sync(primary)
        replicas = {"default": Replica(location, folder), "50ms": Replica(location, folder, poll_interval="50ms")}
        for replica in replicas.values():
            replica.start()
        made: dict[int, float] = {}
        for n in range(1, arguments.commits + 1):
            time.sleep(1.05 + pause.random() * 0.5)
            primary.rows("INSERT INTO t VALUES(?, 0)", n)
            made[n] = time.monotonic()
        time.sleep(3)
        for name, replica in replicas.items():
            replica.ending.set()
            replica.join()
            ms = sorted((replica.seen[n] - at) * 1000 for n, at in made.items())
            print(f"seed {arguments.seed}, {len(ms)} commits, round trip {arguments.rtt} ms, poll_interval {name}: "
                  f"median {statistics.median(ms):.0f} ms, 95 % {ms[int(len(ms) * 0.95)]:.0f} ms, most {ms[-1]:.0f} ms",
                  flush=True)
            replica.worker.kill()
        primary.worker.kill()
        proxy.close()


if __name__ == "__main__":
    main()
