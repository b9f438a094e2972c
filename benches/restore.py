#!/usr/bin/env python3
"""What a restore costs: this library, `litestream restore`, and curl fetching the same bytes.

The replica is one full copy of a database and many small files, on an S3 server on loopback. Rounds go
in turn, so that a machine whose speed drifts does not tilt the ratio. "curl" fetches the objects and
throws them away, then a file of the database's size is written and synced.
"""

import argparse
import filecmp
import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import big, litestream  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, LITESTREAM, SQLITE_SHELL, clean_env  # noqa: E402
from harness.s3 import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.sql import sync  # noqa: E402
from harness.worker import Worker  # noqa: E402


def replicate(location: Location, folder: Path, size: int, files: int) -> Path:
    """The database, whose replica is a full copy and so many small files."""
    source = folder / "app.db"
    big.make(source, size)
    worker = Worker("apsw", env=location.env)
    try:
        db = worker.open(location.primary(source, sync_interval="10ms"))
        db.rows("SELECT litestream_sync(600)", deadline=600)
        for n in range(files):
            db.rows("UPDATE t SET name = 'changed ' || ? WHERE id = ?", n, 1 + n * 7 % (size // 100_000))
            sync(db)
        db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
    finally:
        worker.kill()
    return source


@dataclass(frozen=True)
class Cost:
    """Seconds, seconds of processor, and the peak of resident memory in MiB."""

    seconds: float
    cpu: float
    memory: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu, max(self.memory, other.memory))


def measured(command: list, env: dict) -> Cost:
    os.sync()
    begun = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or b"rror" in output:
        raise RuntimeError(f"{command}: {process.returncode}\n{output.decode()[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def presigned(endpoint: str, path: str) -> str:
    """A URL that gets an object without further credentials (AWS Signature Version 4, in the query)."""
    now = time.gmtime()
    day, stamp = time.strftime("%Y%m%d", now), time.strftime("%Y%m%dT%H%M%SZ", now)
    scope = f"{day}/{REGION}/s3/aws4_request"
    query = urlencode({"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{ACCESS_KEY}/{scope}",
                       "X-Amz-Date": stamp, "X-Amz-Expires": 3600, "X-Amz-SignedHeaders": "host"})
    host = endpoint.removeprefix("http://")
    request = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (day, REGION, "s3", "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{endpoint}{path}?{query}&X-Amz-Signature={key.hex()}"


class Bench:
    """Restores of one replica."""

    def __init__(self, folder: Path, location: Location, source: Path):
        self.folder, self.location, self.source = folder, location, source
        self.env = clean_env(**location.env)
        self.output = folder / "restored.db"

    def run(self, way: str) -> Cost:
        self.output.unlink(missing_ok=True)
        cost = getattr(self, way)()
        if way != "curl" and not filecmp.cmp(self.source, self.output, shallow=False):
            raise RuntimeError(f"{way} restored something else")
        return cost

    def ours(self) -> Cost:
        sql = f"SELECT litestream_restore('{self.location.full_url}', '{self.output}');"
        return measured([SQLITE_SHELL, ":memory:", "-cmd", f".load {LIBRARY.with_suffix('')}", sql], self.env)

    def litestream(self) -> Cost:
        return measured([LITESTREAM, "restore", "-o", self.output, litestream.url_of(self.location)], self.env)

    def curl(self) -> Cost:
        endpoint, bucket = self.location.settings["endpoint"], self.location.folder.parent
        wishes = self.folder / "curl.txt"
        paths = [f"/{bucket.name}/{file.path.relative_to(bucket)}" for file in self.location.files()]
        wishes.write_text("".join(f'url = "{presigned(endpoint, path)}"\noutput = "/dev/null"\n' for path in paths))
        fetch = measured(["curl", "-sSf", "-Z", "--parallel-max", "8", "-K", wishes], self.env)
        write = measured(["dd", f"if={self.source}", f"of={self.output}", "bs=1M", "conv=fsync", "status=none"], self.env)
        return fetch + write


def table(results: dict[str, list[Cost]]) -> str:
    lines = ["", "| | median s | longest s | processor s | resident MiB | of ours |", "| --- " * 6 + "|"]
    medians = {way: statistics.median(c.seconds for c in costs) for way, costs in results.items()}
    for way, costs in results.items():
        ratio = f"{medians[way] / medians['ours']:.2f}" if "ours" in medians else "-"
        lines.append(f"| {way} | {medians[way]:.2f} | {max(c.seconds for c in costs):.2f} "
                     f"| {statistics.median(c.cpu for c in costs):.2f} | {max(c.memory for c in costs):.0f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--folder", help="where everything is")
    parser.add_argument("--ways", nargs="+", default=["litestream", "ours", "curl"], choices=("litestream", "ours", "curl"))
    arguments = parser.parse_args()
    with scratch("s3", arguments.folder) as (folder, location):
        source = replicate(location, folder, arguments.mib << 20, arguments.files)
        files = location.files()
        print(json.dumps({"database": source.stat().st_size, "replica": sum(f.size for f in files), "files": len(files)}),
              flush=True)
        bench = Bench(folder, location, source)
        results: dict[str, list[Cost]] = {way: [] for way in arguments.ways}
        for n in range(arguments.rounds):
            for way, runs in results.items():
                runs.append(bench.run(way))
                print(f"round {n + 1} {way}: {runs[-1].seconds:.2f} s, {runs[-1].cpu:.2f} s of processor, "
                      f"{runs[-1].memory:.0f} MiB", flush=True)
        print(table(results))


if __name__ == "__main__":
    main()
