#!/usr/bin/env python3
"""Hydration of a replica of about 100 MB against curl's time for the same bytes, the requests of queries
afterwards, and a download that is killed in the middle: `.venv/bin/python scripts/hydration.py`."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "benches")]

from harness.location import Location  # noqa: E402
from harness.proc import peak_rss_kib, rss_kib  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.s3 import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.sql import sync  # noqa: E402
from harness.wait import until  # noqa: E402
from harness.worker import Connection, Worker  # noqa: E402
from presign import presigned  # noqa: E402

QUERIES = (
    "SELECT count(*), sum(length(payload)) FROM item NOT INDEXED",
    "SELECT count(*) FROM item INDEXED BY item_kind",
    "SELECT * FROM item WHERE id = 4711",
    "SELECT count(*) FROM item WHERE key >= 'f' AND key < 'f8'",
)


def curl(method: str, *urls: str, upload: Path | None = None) -> None:
    """Downloads to nowhere, or uploads a file."""
    target = ["--upload-file", str(upload)] if upload else []
    ways = [a for url in urls for a in (*target, *([] if upload else ["--output", "/dev/null"]),
                                        presigned(method, url, REGION, ACCESS_KEY, SECRET_KEY))]
    subprocess.run(["curl", "--silent", "--fail", *ways], check=True)


def urls(location: Location) -> dict[str, Path]:
    bucket = location.folder.parent
    return {f"{location.settings['endpoint']}/{bucket.name}/{f.path.relative_to(bucket)}": f.path
            for f in location.files()}


def build(location: Location, folder: Path, rows: int) -> None:
    db = Worker("python", env=location.env, cwd=folder).open(location.primary(folder / "app.db"))
    db.run("CREATE TABLE item(id INTEGER PRIMARY KEY, key TEXT, kind INTEGER, payload BLOB)",
           "CREATE INDEX item_key ON item(key)", "CREATE INDEX item_kind ON item(kind)")
    db.rows("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO item"
            " SELECT i, lower(hex(randomblob(16))), i % 7, randomblob(250) FROM n", rows)
    sync(db, 120)
    for n in range(5):
        db.rows("UPDATE item SET kind = 9 WHERE id % 1000 = ?", n)
        sync(db)
    db.close()
    db.worker.end()
    # s3s-fs hashes a whole object for each range of one that it did not get in a single request.
    for url, path in urls(location).items():
        copy = folder / "object"
        copy.write_bytes(path.read_bytes())
        curl("PUT", url, upload=copy)


def opened(location: Location, folder: Path, path: str) -> Connection:
    uri = location.replica(folder / "r.db", hydrate=1, hydration_path=folder / path, poll_interval="1h")
    return Worker("python", env=location.env, cwd=folder).open(uri)


def progress(db: Connection) -> float:
    return float(db.one("PRAGMA litestream_hydration_progress"))


def asked(proxy: Proxy, since: int) -> int:
    """Bytes of the ranges that were asked for since then."""
    ranges = [r.headers["range"].removeprefix("bytes=").split("-") for r in proxy.requests[since:] if "range" in r.headers]
    return sum(int(last) - int(first) + 1 for first, last in ranges if first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--rtt", type=float, default=20, help="milliseconds of each request")
    arguments = parser.parse_args()
    with scratch("s3") as (folder, location):
        build(location, folder, arguments.rows)
        proxy = Proxy(int(location.settings["endpoint"].rpartition(":")[2]))
        proxy.delay = arguments.rtt / 1000
        location = location.at(proxy.endpoint)
        size = sum(f.size for f in location.files())

        began = time.monotonic()
        curl("GET", *urls(location))
        by_curl = time.monotonic() - began

        mark, began = len(proxy.requests), time.monotonic()
        db = opened(location, folder, "one.db")
        before = rss_kib(db.worker.pid)
        until(lambda: progress(db) == 100, 600, "hydration", every=0.005)
        ours = time.monotonic() - began
        gets = sum(r.kind == "GET" for r in proxy.requests[mark:])
        print(f"{size / 1e6:.1f} MB in {len(location.files())} files, round trip {arguments.rtt} ms: curl {by_curl:.2f} s, "
              f"hydration from the open on {ours:.2f} s ({ours / by_curl:.2f}), {gets} GET, "
              f"{(peak_rss_kib(db.worker.pid) - before) / 1024:.0f} MiB more at most")
        mark = len(proxy.requests)
        answers = [db.rows(sql) for sql in QUERIES]
        print(f"{len(QUERIES)} queries afterwards: {len(proxy.requests) - mark} requests")
        db.worker.kill()

        proxy.delay = 0.15
        db = opened(location, folder, "two.db")
        until(lambda: progress(db) >= 40, 600, "hydration", every=0.005)
        time.sleep(1.2)
        db.worker.kill()
        proxy.delay, mark = arguments.rtt / 1000, len(proxy.requests)
        db = opened(location, folder, "two.db")
        there = progress(db)
        until(lambda: progress(db) == 100, 600, "hydration")
        rest = asked(proxy, mark)
        same = [db.rows(sql) for sql in QUERIES] == answers
        print(f"killed in the middle: {there} % there at the reopen, {rest / 1e6:.1f} MB of {size / 1e6:.1f} MB fetched "
              f"after it, the same answers: {same}")
        db.worker.kill()
        proxy.close()


if __name__ == "__main__":
    main()
