#!/usr/bin/env python3
"""The heartbeat beside Litestream's, in one outage of the store:
`.venv/bin/python scripts/heartbeat.py --before 150 --outage 240 --after 180`.

Two databases are written to once a second, one replicated by this library, one by `litestream replicate`, both with
`heartbeat-interval: 1m`. Prints when each beat, and fails if one of them beat when commits had waited for longer than that, or
did not beat again afterwards.
"""

import argparse
import sqlite3
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import litestream  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.monitor import Recorder  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.worker import Worker  # noqa: E402

INTERVAL = 60.0
LOOK = 15.0
"""Both look so often whether a beat is due."""
SLACK = 5.0


def write(connections: list, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for execute in connections:
            execute("INSERT INTO t(name) VALUES ('a row')")
        time.sleep(1)


def judge(who: str, beats: list[float], began: float, down: float, up: float) -> None:
    """`began`, `down`, `up`: when it all began, and when the store went and came back."""
    print(f"{who}: " + ", ".join(f"{beat - began:.0f}" for beat in beats) + " s", flush=True)
    before, late = [b for b in beats if b < down], [b for b in beats if down + INTERVAL + SLACK < b < up]
    after = [b for b in beats if b >= up]
    assert before, f"{who} did not beat while all was well"
    assert not late, f"{who} beat {late[0] - down:.0f} s into the outage"
    assert after, f"{who} did not beat again"


def run(folder: Path, s3: Location, before: float, outage: float, after: float) -> None:
    ours, theirs = Recorder(), Recorder()
    proxy = Proxy(int(s3.settings["endpoint"].rsplit(":", 1)[1]))
    near = s3.at(proxy.endpoint)
    peer = Location.s3(s3.folder.parent, "peer", proxy.endpoint)
    plain = sqlite3.connect(folder / "peer.db", isolation_level=None)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name)")
    worker = Worker("python", env=near.env, cwd=folder)
    try:
        with litestream.Replicate(folder / "peer.db", peer, folder, sync="1s", heartbeat_url=theirs.url,
                                  heartbeat_interval="1m"):
            db = worker.open(near.primary(folder / "app.db", heartbeat_url=ours.url, heartbeat_interval="1m"))
            db.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name)")
            began, both = time.monotonic(), [plain.execute, db.run]
            write(both, before)
            proxy.refuse()
            down = time.monotonic()
            write(both, outage)
            proxy.accept()
            up = time.monotonic()
            write(both, after)
        print(f"the store was away from {down - began:.0f} to {up - began:.0f} s", flush=True)
        judge("litestream_vfs", ours.times, began, down, up)
        judge("litestream", theirs.times, began, down, up)
    finally:
        worker.kill()
        proxy.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=float, default=150)
    parser.add_argument("--outage", type=float, default=240)
    parser.add_argument("--after", type=float, default=180)
    arguments = parser.parse_args()
    with scratch("s3") as (folder, location):
        run(folder, location, arguments.before, arguments.outage, arguments.after)


if __name__ == "__main__":
    main()
