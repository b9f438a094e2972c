#!/usr/bin/env python3
"""What the restart of a WAL costs the committing thread: `benches/restarts.py`, with a release build of the library.

Autocommitted inserts at SQLite's default checkpoint, plain SQLite and a primary in turn, on tmpfs, where no fsync hides what
replication costs. Only the commits that restart the WAL are counted: there the library takes note of the page numbers of the
WAL that ends. Prints a histogram of both, their percentiles and the differences: of how long these commits took, and of how long
their thread ran, which leaves out what the S3 server and the publisher on the same processors took from it.
"""

import argparse
from bisect import bisect

from primary import LIBRARY, Bench, host, output
from harness.scratch import scratch  # primary.py has put it on the path

EDGES = (10, 20, 30, 40, 50, 75, 100, 150, 200, 500, 1000, 10_000)
"""Of the histogram, in microseconds."""
SHARES = (0.5, 0.9, 0.99)


def times(bench: Bench, way: str, seconds: float) -> list[list[float]]:
    """Of each restart, the microseconds that it took, and those that its thread ran."""
    with bench.replicated(way) as (uri, library, location, _):
        lines = output(host("restarts", uri, seconds, *filter(None, [library]), location=location)).splitlines()
        return [[int(word) / 1e3 for word in line.split()] for line in lines]


def at(sorted_times: list[float], share: float) -> float:
    return sorted_times[int((len(sorted_times) - 1) * share)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", default="/dev/shm")
    arguments = parser.parse_args()
    found: dict[str, list[list[float]]] = {"plain": [], "ours": []}
    with scratch("s3", arguments.folder) as (folder, location):
        bench = Bench(folder, location, arguments.rows)
        for _ in range(arguments.pairs):
            for way, all_times in found.items():
                all_times += times(bench, way, arguments.seconds)
    for column, name in enumerate(("took", "ran")):
        show(name, {way: sorted(row[column] for row in rows) for way, rows in found.items()})


def show(name: str, found: dict[str, list[float]]) -> None:
    """Prints a table of sorted times, which are called `name`."""
    print(f"| {name} | restarts | " + " | ".join(f"< {edge} µs" for edge in EDGES) + " | more | p50 | p90 | p99 µs |")
    print("| --- " * (len(EDGES) + 6) + "|")
    for way, all_times in found.items():
        counts = [0] * (len(EDGES) + 1)
        for time in all_times:
            counts[bisect(EDGES, time)] += 1
        print(f"| {way} | {len(all_times)} | " + " | ".join(map(str, counts)) + " | "
              + " | ".join(f"{at(all_times, share):.0f}" for share in SHARES) + " |")
    print("difference at p50, p90, p99: "
          + ", ".join(f"{at(found['ours'], share) - at(found['plain'], share):.0f}" for share in SHARES) + " µs\n")


if __name__ == "__main__":
    main()
