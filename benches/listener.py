#!/usr/bin/env python3
"""What a listener that is scraped each second costs a primary: `benches/listener.py`, with a release build of the library.

Autocommitted inserts as fast as they go, in turn without a listener, without once more, which shows how far the same differs from
itself, and with one. Prints the medians of the ratios of rates and of processor time per commit, and the least and most of them.
"""

import argparse
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from primary import LIBRARY, Bench, host, output, rated
from harness import monitor  # primary.py has put it on the path
from harness.s3 import free_port
from harness.scratch import scratch

WAYS = ("off", "off again", "on")


@contextmanager
def scraped(port: int) -> Iterator[list[int]]:
    """Asks for the metrics each second; the sizes of the answers."""
    sizes, ended = [], threading.Event()

    def scrape() -> None:
        while not ended.wait(1):
            try:
                sizes.append(len(monitor.get(port, "/metrics")[1]))
            except OSError:
                pass  # It does not listen yet, or no longer.

    thread = threading.Thread(target=scrape)
    thread.start()
    yield sizes
    ended.set()
    thread.join()


def insert(bench: Bench, way: str, seconds: float) -> dict:
    path, location = bench.copy()
    try:
        if way != "on":
            return rated(output(host("insert", location.primary(path), seconds, LIBRARY, location=location)))
        port = free_port()
        with scraped(port) as sizes:
            uri = location.primary(path, listen=f"127.0.0.1:{port}")
            result = rated(output(host("insert", uri, seconds, LIBRARY, location=location)))
        assert len(sizes) > seconds / 2, "it was not asked"
        return result
    finally:
        bench.drop(path, location)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", default="/dev/shm")
    arguments = parser.parse_args()
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    with scratch("s3", arguments.folder) as (folder, location):
        bench = Bench(folder, location, arguments.rows)
        for pair in range(arguments.pairs):
            for way in WAYS:
                runs[way].append(insert(bench, way, arguments.seconds))
            print(f"pair {pair + 1}: " + ", ".join(f"{way} {runs[way][-1]['rate']:.0f}" for way in WAYS), flush=True)
    print("| of off | rate, median (least, most) | processor time a commit |\n| --- | --- | --- |")
    for way in WAYS[1:]:
        cells = []
        for figure in (lambda run: run["rate"], lambda run: run["own_us"] + run["others_us"]):
            ratios = [figure(run) / figure(off) for run, off in zip(runs[way], runs["off"])]
            cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.2f}, {max(ratios):.2f})")
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
