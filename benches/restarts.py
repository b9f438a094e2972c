#!/usr/bin/env python3
"""What the restart of a WAL costs the committing thread: `benches/restarts.py`, with a release build of the library.

Autocommitted inserts at SQLite's default checkpoint, plain SQLite and a primary in turn, on tmpfs, where no fsync hides what
replication costs. Only the commits that restart the WAL are counted: there the library takes note of the page numbers of the
WAL that ends. Prints a histogram of both, their percentiles and the differences.
"""

import argparse
from bisect import bisect

from primary import LIBRARY, Bench, host, output
from harness.scratch import scratch  # primary.py has put it on the path

EDGES = (10, 20, 30, 40, 50, 75, 100, 150, 200, 500, 1000, 10_000)
"""Of the histogram, in microseconds."""


def times(bench: Bench, way: str, seconds: float) -> list[float]:
    """Microseconds of each restart."""
    with bench.replicated(way) as (uri, library, location, _):
        return [int(line) / 1e3 for line in output(host("restarts", uri, seconds, *filter(None, [library]), location=location)).split()]


def at(sorted_times: list[float], share: float) -> float:
    return sorted_times[int((len(sorted_times) - 1) * share)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", default="/dev/shm")
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {"plain": [], "ours": []}
    with scratch("s3", arguments.folder) as (folder, location):
        bench = Bench(folder, location, arguments.rows)
        for _ in range(arguments.pairs):
            for way, all_times in found.items():
                all_times += times(bench, way, arguments.seconds)
    print("| | restarts | " + " | ".join(f"< {edge} µs" for edge in EDGES) + " | more | p50 | p90 | p99 µs |")
    print("| --- " * (len(EDGES) + 6) + "|")
    for way, all_times in found.items():
        all_times.sort()
        counts = [0] * (len(EDGES) + 1)
        for time in all_times:
            counts[bisect(EDGES, time)] += 1
        print(f"| {way} | {len(all_times)} | " + " | ".join(map(str, counts)) + " | "
              + " | ".join(f"{at(all_times, share):.0f}" for share in (0.5, 0.9, 0.99)) + " |")
    print("difference at p50, p90, p99: "
          + ", ".join(f"{at(found['ours'], share) - at(found['plain'], share):.0f}" for share in (0.5, 0.9, 0.99)) + " µs")


if __name__ == "__main__":
    main()
