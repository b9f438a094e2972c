#!/usr/bin/env python3
"""What replication costs a primary: `make bench`.

Runs go in pairs, plain SQLite and then each way of replicating, so that a machine whose speed drifts
does not tilt the ratio. The S3 server is on loopback; `down` is this library when the server is gone from the
first insert to the last, `old` an earlier release of it, which LITESTREAM_VFS_OLD names. The last columns are what each
commit costs: processor time of all threads but the committing one, and bytes written to files.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import litestream, proc  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, OLD_LIBRARY, clean_env  # noqa: E402
from harness.s3 import S3Server  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.wait import until  # noqa: E402

HOST = ROOT / "benches" / "host" / "target" / "release" / "bench-host"


def host(*arguments, location: Location | None = None, **options) -> subprocess.Popen:
    return subprocess.Popen([HOST, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            env=clean_env(**(location.env if location else {})), **options)


def output(process: subprocess.Popen, told: str | None = None) -> str:
    text, _ = process.communicate(told)
    if process.returncode:
        raise RuntimeError(f"bench-host ended with {process.returncode}")
    return text


def rated(text: str) -> dict:
    """What `bench-host insert` printed, and its commits a second."""
    result = json.loads(text)
    return result | {"rate": result["commits"] / result["seconds"], "sidecar_kib": 0}


class Bench:
    """Runs on copies of one prepared database."""

    def __init__(self, folder: Path, location: Location, rows: int):
        self.folder, self.location = folder, location
        self.template = folder / "template.db"
        self.count = 0
        output(host("prepare", self.template, rows))

    def copy(self) -> tuple[Path, Location]:
        """A fresh copy of the database, and an empty replica for it."""
        self.count += 1
        path = self.folder / f"run-{self.count}.db"
        shutil.copyfile(self.template, path)
        os.sync()  # else the kernel writes the copy back while the run is measured
        bucket = self.location.folder.parent
        location = (Location.s3(bucket, f"run-{self.count}", self.location.settings["endpoint"])
                    if self.location.is_s3 else Location.file(self.folder / f"replica-{self.count}"))
        return path, location

    def drop(self, path: Path, location: Location) -> None:
        for file in self.folder.glob(path.name + "*"):
            file.unlink() if file.is_file() else shutil.rmtree(file)
        shutil.rmtree(self.folder / f".{path.name}-litestream", ignore_errors=True)
        shutil.rmtree(location.folder, ignore_errors=True)

    @contextmanager
    def replicated(self, way: str):
        """The host's URI and library, and the sidecar if there is one."""
        path, location = self.copy()
        try:
            if way == "plain":
                yield path, None, location, None
            elif way in ("ours", "old"):
                yield location.primary(path), LIBRARY if way == "ours" else OLD_LIBRARY, location, None
            else:
                sidecar = litestream.Replicate(path, location, self.folder, sync="1s", levels=("30s",),
                                               snapshot="24h", l0_retention="5m", monitor="1s")
                with sidecar:
                    os.sync()  # as bench-host does after the first copy
                    yield path, None, location, sidecar
        finally:
            self.drop(path, location)

    def insert(self, way: str, seconds: float) -> dict:
        if way == "down":
            return self.insert_alone(seconds)
        with self.replicated(way) as (uri, library, location, sidecar):
            arguments = [uri, seconds] + ([library] if library else [])
            result = rated(output(host("insert", *arguments, location=location)))
            result["sidecar_kib"] = proc.peak_rss_kib(sidecar.pid) if sidecar else 0
            return result

    def insert_alone(self, seconds: float) -> dict:
        """With a server of its own, which has the database and is then gone."""
        path, _ = self.copy()
        server = S3Server(self.folder / f"s3-{self.count}")
        location = Location.s3(server.bucket("bucket"), "app", server.endpoint)
        process = host("insert", location.primary(path), seconds, LIBRARY, "wait", location=location,
                       stdin=subprocess.PIPE)
        try:
            process.stdout.readline()
            server.stop()
            return rated(output(process, "go\n"))
        finally:
            process.kill()
            server.wipe()
            self.drop(path, location)

    def latencies(self, way: str, count: int, interval_ms: int) -> list[float]:
        """Milliseconds from the return of a commit to its object in the bucket."""
        with self.replicated(way) as (uri, library, location, _):
            arguments = [uri, count, interval_ms] + ([library] if library else [])
            seen: dict[str, int] = {}
            process = host("single", *arguments, location=location)
            ended = threading.Event()
            watcher = threading.Thread(target=watch, args=(location.level(0), seen, ended))
            watcher.start()
            commits = [int(line) for line in output(process).split()]
            until(lambda: max(seen.values(), default=0) > commits[-1], 10, "the last object")
            ended.set()
            watcher.join()
        times = sorted(seen.values())
        return [(next(t for t in times if t > commit) - commit) / 1e6 for commit in commits]


def watch(folder: Path, seen: dict[str, int], ended: threading.Event) -> None:
    """Notes when each file of `folder` was first seen, to the millisecond."""
    while not ended.wait(0.001):
        now = time.time_ns()
        for path in folder.glob("*.ltx") if folder.is_dir() else ():
            seen.setdefault(path.name, now)


def table(results: dict[str, list[dict]], latencies: dict[str, list[float]]) -> str:
    lines = ["| | commits/s | of plain | p50 / p99 / max ms | longest stall, of plain | resident MiB "
             "| commit to object, median / max ms | other threads µs | written, of plain |", "| --- " * 9 + "|"]
    plain = results["plain"]
    for way, runs in results.items():
        ratio = statistics.median(r["rate"] / p["rate"] for r, p in zip(runs, plain))
        stall = statistics.median(r["max_ms"] for r in runs) / statistics.median(p["max_ms"] for p in plain)
        sidecar = max(r["sidecar_kib"] for r in runs) / 1024
        memory = f"{max(r['rss_kib'] for r in runs) / 1024:.0f}" + (f" + {sidecar:.0f}" if sidecar else "")
        times = latencies.get(way)
        latency = f"{statistics.median(times):.1f} / {max(times):.1f}" if times else "-"
        others = statistics.median(r["others_us"] for r in runs)
        # The kernel counts no bytes of files in memory.
        is_counted = all(p["written"] for p in plain)
        written = f"{statistics.median(r['written'] / p['written'] for r, p in zip(runs, plain)):.3f}" if is_counted else "-"
        percentiles = " / ".join(f"{statistics.median(r[k] for r in runs):.3f}" for k in ("p50_ms", "p99_ms", "max_ms"))
        lines.append(f"| {way} | {statistics.median(r['rate'] for r in runs):.0f} | {ratio:.2f} | {percentiles} "
                     f"| {stall:.2f} | {memory} | {latency} | {others:.2f} | {written} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--singles", type=int, default=20)
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    parser.add_argument("--folder", help="where the databases are; on tmpfs no fsync hides what replication costs")
    parser.add_argument("--ways", nargs="+", default=["ours", "down", "litestream"],
                        choices=("ours", "down", "old", "litestream"))
    arguments = parser.parse_args()
    with scratch(arguments.store, arguments.folder) as (folder, location):
        bench = Bench(folder, location, arguments.rows)
        print(f"{bench.template.stat().st_size / 1e6:.0f} MB, {arguments.pairs} pairs of {arguments.seconds:g} s, "
              f"{arguments.singles} single commits a second apart", flush=True)
        results: dict[str, list[dict]] = {way: [] for way in ["plain", *arguments.ways]}
        for pair in range(arguments.pairs):
            for way, runs in results.items():
                runs.append(bench.insert(way, arguments.seconds))
                print(f"pair {pair + 1} {way}: {runs[-1]['rate']:.0f} commits/s, longest {runs[-1]['max_ms']:.1f} ms",
                      flush=True)
        latencies = {way: bench.latencies(way, arguments.singles, 1000) for way in arguments.ways if way != "down"}
        print("\n" + table(results, latencies))


if __name__ == "__main__":
    main()
