#!/usr/bin/env python3
"""What it costs to follow a replica in S3: requests by kind and their price in an hour, of this library and of an earlier
release of it (`old`, which LITESTREAM_VFS_OLD names), in the same minutes, each in a process of its own and with the default settings.

    LITESTREAM_VFS_OLD=old/liblitestream_vfs.so .venv/bin/python scripts/following.py --minutes 60

Three replicas are followed by each: one to which nobody commits, one with a commit a second, and one to which nobody
commits and which nobody reads. The others are read ten times a second. In the end each shows what its primary holds.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, OLD_LIBRARY  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.sql import sync  # noqa: E402
from harness.wait import until  # noqa: E402
from harness.worker import Worker  # noqa: E402

DOLLARS = {"LIST": 0.005e-3, "PUT": 0.005e-3, "POST": 0.005e-3, "GET": 0.0004e-3, "HEAD": 0.0004e-3, "DELETE": 0}
"""The price of a request, S3 Standard in us-east-1."""
LAST = "SELECT coalesce(max(id), 0) FROM t"
STATES = ("idle", "a commit a second", "idle, not read")


class Follower(threading.Thread):
    """A process that follows a replica, through a network of its own that counts."""

    def __init__(self, location: Location, folder: Path, library: Path, rtt: float, is_read: bool):
        super().__init__(daemon=True)
        self.proxy = Proxy(int(location.settings["endpoint"].rpartition(":")[2]))
        self.proxy.delay = rtt
        self.worker = Worker("python", env=location.env, cwd=folder, load=False)
        self.worker.load(library)
        self.db = self.worker.open(location.at(self.proxy.endpoint).replica())
        self.db.one(LAST)
        self.is_read = is_read
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.wait(0.1):
            if self.is_read:
                self.db.one(LAST)

    def end(self, last: int) -> None:
        """Ends it when it shows row `last`."""
        self.ending.set()
        self.join()
        until(lambda: self.db.one(LAST) == last, 60, "all commits")
        self.worker.kill()
        self.proxy.close()


class Primary:
    """A primary and how many commits it made."""

    def __init__(self, location: Location, folder: Path, name: str):
        self.location = replace(location, url=f"{location.url}/{name}", folder=location.folder / name)
        self.db = Worker("python", env=location.env, cwd=folder).open(self.location.primary(folder / f"{name}.db"))
        self.db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, at REAL)")
        sync(self.db)
        self.last = 0

    def commit(self) -> None:
        self.db.rows("INSERT INTO t(at) VALUES (?)", time.time())
        self.last += 1


def cost(counts: Counter) -> float:
    return sum(DOLLARS[kind] * n for kind, n in counts.items())


def commit_each_second(primary: Primary, seconds: float) -> None:
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        if primary.last <= passed:
            primary.commit()
        time.sleep(0.01)


def table(counts: dict[tuple[str, str], Counter], hours: float) -> None:
    print("\n| | | LIST an hour | GET an hour | others | dollars an hour | a month | of old |", "| --- " * 8 + "|", sep="\n")
    for (state, name), made in counts.items():
        dollars, old = cost(made) / hours, cost(counts.get((state, "old"), Counter()))
        others = sum(made.values()) - made["LIST"] - made["GET"]
        print(f"| {state} | {name} | {made['LIST'] / hours:.0f} | {made['GET'] / hours:.0f} | {others / hours:.0f} "
              f"| {dollars:.5f} | {dollars * 730:.2f} | {f'1/{old / cost(made):.1f}' if old else '-'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rtt", type=float, default=20, help="milliseconds of each request")
    arguments = parser.parse_args()
    libraries = {"ours": LIBRARY} | ({"old": OLD_LIBRARY} if OLD_LIBRARY else {})
    with scratch("s3") as (folder, location):
        primaries = {"idle": Primary(location, folder, "idle"), "busy": Primary(location, folder, "busy")}
        followed = {state: primaries["busy" if "commit" in state else "idle"] for state in STATES}
        followers = {(state, name): Follower(followed[state].location, folder, library, arguments.rtt / 1000, "not read" not in state)
                     for state in STATES for name, library in libraries.items()}
        for follower in followers.values():
            follower.start()
        before = {key: follower.proxy.counts() for key, follower in followers.items()}
        begun = time.monotonic()
        commit_each_second(primaries["busy"], arguments.minutes * 60)
        counts = {key: follower.proxy.counts() - before[key] for key, follower in followers.items()}
        hours = (time.monotonic() - begun) / 3600
        for primary in primaries.values():
            sync(primary.db)
        for (state, _), follower in followers.items():
            follower.end(followed[state].last)
        print(f"{hours * 60:.1f} minutes, round trip {arguments.rtt:g} ms, {primaries['busy'].last} commits in the busy replica")
        table(counts, hours)
        for primary in primaries.values():
            primary.db.worker.kill()


if __name__ == "__main__":
    main()
