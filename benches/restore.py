#!/usr/bin/env python3
"""What a restore costs: this library, an earlier release of it (`old`, which LITESTREAM_VFS_OLD names), `litestream restore`,
and the same bytes fetched and written by programs that do nothing else.

The replica is one full copy of a database, then `--files` small files; in a folder, or on an S3 server on loopback behind a
network with a round trip of `--rtt` milliseconds. Rounds go in turn, so that a machine whose speed drifts does not tilt
the ratio. "cp" copies the database and syncs it; "curl" fetches the objects and throws them away, then a file of the
database's size is written and synced.

    .venv/bin/python benches/restore.py --store file --mib 2048 --files 0
    .venv/bin/python benches/restore.py --store s3 --rtt 20 --mib 2048 --files 0
"""

import argparse
import filecmp
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import big, litestream  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, LITESTREAM, OLD_LIBRARY, SQLITE_SHELL, clean_env  # noqa: E402
from harness.s3 import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.sql import sync  # noqa: E402
from harness.worker import Worker  # noqa: E402
from network import Network  # noqa: E402
from presign import presigned  # noqa: E402

WAYS = ("ours", "old", "litestream", "cp", "curl")


def replicate(location: Location, folder: Path, size: int, files: int) -> Path:
    """The database, whose replica is a full copy and so many small files."""
    source, made = folder / "app.db", Location.file(folder / "made")
    big.make(source, size)
    worker = Worker("apsw")
    try:
        db = worker.open(made.primary(source, sync_interval="10ms"))
        db.rows("SELECT litestream_sync(600)", deadline=600)
        for n in range(files):
            db.rows("UPDATE t SET name = 'changed ' || ? WHERE id = ?", n, 1 + n * 7 % (size // 100_000))
            sync(db)
        db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
    finally:
        worker.kill()
    for file in made.files():
        store(location, location.level(file.level) / file.path.name, file.path)
    return source


def store(location: Location, path: Path, content: Path) -> None:
    """Puts a file into the replica. Not in parts: s3s-fs hashes a whole object for each range of one that came in parts."""
    if not location.is_s3:
        path.parent.mkdir(parents=True, exist_ok=True)
        content.rename(path)
        return
    with content.open("rb") as body:
        url = signed("PUT", location, path)
        headers = {"Content-Length": str(content.stat().st_size), "Content-Type": "application/octet-stream"}
        urlopen(Request(url, data=body, headers=headers, method="PUT")).close()
    content.unlink()


def signed(method: str, location: Location, path: Path) -> str:
    """A URL of an object that needs no further credentials."""
    bucket = location.folder.parent
    url = f"{location.settings['endpoint']}/{bucket.name}/{path.relative_to(bucket)}"
    return presigned(method, url, REGION, ACCESS_KEY, SECRET_KEY)


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

    def ours(self, library: Path = LIBRARY) -> Cost:
        sql = f"SELECT litestream_restore('{self.location.full_url}', '{self.output}');"
        return measured([SQLITE_SHELL, ":memory:", "-cmd", f".load {library.with_suffix('')}", sql], self.env)

    def old(self) -> Cost:
        return self.ours(OLD_LIBRARY)

    def litestream(self) -> Cost:
        return measured([LITESTREAM, "restore", "-o", self.output, litestream.url_of(self.location)], self.env)

    def cp(self) -> Cost:
        return measured(["sh", "-c", 'cp "$1" "$2" && sync "$2"', "cp", self.source, self.output], self.env)

    def curl(self) -> Cost:
        wishes = self.folder / "curl.txt"
        urls = [signed("GET", self.location, file.path) for file in self.location.files()]
        wishes.write_text("".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls))
        fetch = measured(["curl", "-sSf", "-Z", "--parallel-max", "8", "-K", wishes], self.env)
        write = measured(["dd", f"if={self.source}", f"of={self.output}", "bs=1M", "conv=fsync", "status=none"], self.env)
        return fetch + write


def table(results: dict[str, list[Cost]]) -> str:
    lines = ["", "| | median s | longest s | processor s | cores | resident MiB | of ours |", "| --- " * 7 + "|"]
    medians = {way: statistics.median(c.seconds for c in costs) for way, costs in results.items()}
    for way, costs in results.items():
        ratio = f"{medians[way] / medians['ours']:.2f}" if "ours" in medians else "-"
        lines.append(f"| {way} | {medians[way]:.2f} | {max(c.seconds for c in costs):.2f} "
                     f"| {statistics.median(c.cpu for c in costs):.2f} | {statistics.median(c.cpu / c.seconds for c in costs):.2f} "
                     f"| {max(c.memory for c in costs):.0f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="s3", choices=("s3", "file"))
    parser.add_argument("--rtt", type=float, default=0, help="milliseconds to the S3 server and back")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--folder", help="where everything is")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="all that are there, if not given")
    arguments = parser.parse_args()
    is_s3 = arguments.store == "s3"
    left_out = {"cp" if is_s3 else "curl", None if OLD_LIBRARY else "old"}
    ways = arguments.ways or [way for way in WAYS if way not in left_out]
    with scratch(arguments.store, arguments.folder) as (folder, location):
        source = replicate(location, folder, arguments.mib << 20, arguments.files)
        files = location.files()
        print(json.dumps({"database": source.stat().st_size, "replica": sum(f.size for f in files), "files": len(files)}),
              flush=True)
        port = urlsplit(location.settings["endpoint"]).port if is_s3 and arguments.rtt else None
        with Network(port, arguments.rtt) if port else nullcontext() as network:
            bench = Bench(folder, location.at(network.endpoint) if network else location, source)
            results: dict[str, list[Cost]] = {way: [] for way in ways}
            for n in range(arguments.rounds):
                for way, runs in results.items():
                    runs.append(bench.run(way))
                    print(f"round {n + 1} {way}: {runs[-1].seconds:.2f} s, {runs[-1].cpu:.2f} s of processor, "
                          f"{runs[-1].memory:.0f} MiB", flush=True)
            print(table(results))


if __name__ == "__main__":
    main()
