#!/usr/bin/env python3
"""What a restore costs: this library, `litestream restore`, and curl fetching the same bytes.

The replica is one full copy of a database and many small files, on an S3 server on loopback. Rounds go
in turn, so that a machine whose speed drifts does not tilt the ratio. "curl" fetches the objects and
throws them away, then a file of the database's size is written and synced.
"""

import argparse
import filecmp
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

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


def measured(command: list, env: dict) -> tuple[float, float]:
    """Seconds, and the peak of resident memory in MiB."""
    os.sync()
    begun = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or b"rror" in output:
        raise RuntimeError(f"{command}: {process.returncode}\n{output.decode()}")
    return seconds, usage.ru_maxrss / 1024


class Bench:
    """Restores of one replica."""

    def __init__(self, folder: Path, location: Location, source: Path):
        self.folder, self.location, self.source = folder, location, source
        self.env = clean_env(**location.env)
        self.output = folder / "restored.db"

    def run(self, way: str) -> tuple[float, float]:
        self.output.unlink(missing_ok=True)
        seconds, memory = getattr(self, way)()
        if way != "curl" and not filecmp.cmp(self.source, self.output, shallow=False):
            raise RuntimeError(f"{way} restored something else")
        return seconds, memory

    def ours(self) -> tuple[float, float]:
        sql = f"SELECT litestream_restore('{self.location.full_url}', '{self.output}');"
        return measured([SQLITE_SHELL, ":memory:", "-cmd", f".load {LIBRARY.with_suffix('')}", sql], self.env)

    def litestream(self) -> tuple[float, float]:
        return measured([LITESTREAM, "restore", "-o", self.output, litestream.url_of(self.location)], self.env)

    def curl(self) -> tuple[float, float]:
        endpoint, bucket = self.location.settings["endpoint"], self.location.folder.parent
        wishes = self.folder / "curl.txt"
        wishes.write_text("".join(f'url = "{endpoint}/{bucket.name}/{file.path.relative_to(bucket)}"\n'
                                  'output = "/dev/null"\n' for file in self.location.files()))
        fetch = measured(["curl", "-sSf", "-Z", "--parallel-max", "8", "--aws-sigv4", f"aws:amz:{REGION}:s3",
                          "--user", f"{ACCESS_KEY}:{SECRET_KEY}", "-K", wishes], self.env)
        write = measured(["dd", f"if={self.source}", f"of={self.output}", "bs=1M", "conv=fsync", "status=none"], self.env)
        return fetch[0] + write[0], max(fetch[1], write[1])


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
        results: dict[str, list[tuple[float, float]]] = {way: [] for way in arguments.ways}
        for n in range(arguments.rounds):
            for way, runs in results.items():
                runs.append(bench.run(way))
                print(f"round {n + 1} {way}: {runs[-1][0]:.2f} s, {runs[-1][1]:.0f} MiB", flush=True)
        print("\n| | median s | longest s | resident MiB | of ours |\n| --- | --- | --- | --- | --- |")
        ours = statistics.median(s for s, _ in results.get("ours") or [(1, 0)])
        for way, runs in results.items():
            median = statistics.median(s for s, _ in runs)
            print(f"| {way} | {median:.2f} | {max(s for s, _ in runs):.2f} | {max(m for _, m in runs):.0f} "
                  f"| {median / ours:.2f} |")


if __name__ == "__main__":
    main()
