#!/usr/bin/env python3
"""How few round trips a replica needs: `make bench`.

A replica of one table with two indexes, about 90 MB in 36 LTX files, is read through a network with a set
round trip: by this library, by Litestream's own VFS, and as a local file by SQLite alone. Each step runs in
a fresh process that has opened the replica and read its schema, except for the row that does nothing else.
"""

import argparse
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.litestream import url_of  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, clean_env, litestream_vfs  # noqa: E402
from harness.s3 import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from network import Network, Traffic  # noqa: E402
from presign import presigned  # noqa: E402
from reader_process import Reader  # noqa: E402

BUILDER = ROOT / "benches" / "host" / "target" / "release" / "bench-replica"
SCHEMA = [["SELECT * FROM sqlite_schema", []]]
OURS, PEER, PLAIN = "ours", "Litestream", "plain SQLite"


def steps(rows: int) -> dict[str, list]:
    """What is read, as statements with parameters."""
    pick = random.Random(4)
    some = [pick.randrange(1, rows) for _ in range(100)]
    middle = rows * 2 // 5
    return {
        "open and read the schema": [],
        "one row by primary key": [["SELECT * FROM item WHERE id = ?", [rows // 3]]],
        "10 000 consecutive rows": [["SELECT count(*), sum(length(payload)) FROM item WHERE id BETWEEN ? AND ?",
                                     [middle, middle + 9999]]],
        "count(*) over an index": [["SELECT count(*) FROM item INDEXED BY item_kind", []]],
        "100 random rows by primary key": [["SELECT * FROM item WHERE id = ?", [n]] for n in some],
        "join over 500 scattered rows": [["SELECT count(*), sum(length(t.payload)) FROM (SELECT id FROM item "
                                          "WHERE key >= '7' ORDER BY key LIMIT 500) AS i CROSS JOIN item AS t USING (id)",
                                          []]],
        SCAN: [["SELECT count(*), sum(length(payload)) FROM item NOT INDEXED", []]],
    }


SCAN = "full scan of the table"


class Bench:
    def __init__(self, folder: Path, location: Location, rows: int, rtt: float):
        self.folder, self.location, self.rtt = folder, location, rtt
        self.database = folder / "plain.db"
        subprocess.run([BUILDER, self.database, folder / "built", str(rows)], check=True)
        self.store(folder / "built")
        self.files = location.files()
        self.frame = self.files[-1].size / (self.database.stat().st_size / 4096)
        self.steps = steps(rows)
        self.digests: dict[str, str] = {}

    def store(self, built: Path) -> None:
        """Puts the files through the server: s3s-fs hashes a whole object for each range of one that it did not get in
        a single request itself."""
        for path in sorted(built.rglob("*.ltx")):
            url = self.presigned("PUT", f"app/{path.relative_to(built)}", self.location.settings["endpoint"])
            urlopen(Request(url, data=path.read_bytes(), method="PUT")).close()

    def presigned(self, method: str, key: str, endpoint: str) -> str:
        return presigned(method, f"{endpoint}/bucket/{key}", REGION, ACCESS_KEY, SECRET_KEY)

    @contextmanager
    def reader(self, way: str, endpoint: str, **parameters):
        """A fresh process with the library loaded, and the URI to open."""
        there = self.location.at(endpoint)
        uri = {OURS: there.replica(**parameters), PEER: "file:replica.db?vfs=litestream&mode=ro",
               PLAIN: f"file:{self.database}?mode=ro"}[way]
        env = there.env | ({"LITESTREAM_REPLICA_URL": url_of(there)} if way == PEER else {})
        with Reader(env) as reader:
            if way == OURS:
                reader.call("load", path=str(LIBRARY), entry=None)
            elif way == PEER:
                reader.call("load", path=str(litestream_vfs()), entry="sqlite3_litestreamvfs_init")
            reader.uri = uri
            yield reader

    def open(self, reader: "Reader", count: int = 1) -> float:
        opened = reader.call("open", uri=reader.uri, count=count)
        read = reader.call("run", statements=SCHEMA)
        return opened["seconds"] + read["seconds"]

    def measure(self, way: str, step: str, network: Network) -> dict:
        """One step in a process of its own."""
        with self.reader(way, network.endpoint) as reader:
            mark = network.mark()
            seconds = self.open(reader)
            traffic, result = network.since(mark), {"seconds": seconds, "pages": 0}
            if self.steps[step]:
                mark = network.mark()
                result = reader.call("run", statements=self.steps[step])
                traffic = network.since(mark)
                self.check(step, way, result["digest"])
            return result | {"traffic": traffic, "peak_kib": reader.call("peak")["peak_kib"]}

    def check(self, step: str, way: str, digest: str) -> None:
        if self.digests.setdefault(step, digest) != digest:
            raise RuntimeError(f"{step}: {way} reads something else")

    def all_steps(self, way: str, network: Network, chosen: list[str]) -> tuple[dict[str, dict], int]:
        """All steps one after the other in one process: requests of each, and the most resident memory."""
        results = {}
        with self.reader(way, network.endpoint) as reader:
            self.open(reader)
            for step in chosen:
                if self.steps[step]:
                    mark = network.mark()
                    result = reader.call("run", statements=self.steps[step])
                    results[step] = result | {"traffic": network.since(mark)}
                    self.check(step, way, result["digest"])
            return results, reader.call("peak")["peak_kib"]

    def second_connection(self, way: str, network: Network) -> tuple[float, Traffic]:
        with self.reader(way, network.endpoint) as reader:
            self.open(reader)
            mark = network.mark()
            return self.open(reader), network.since(mark)

    def idle(self, way: str, network: Network, connections: int, seconds: float) -> float:
        """Listings a second of a process that does nothing."""
        with self.reader(way, network.endpoint) as reader:
            self.open(reader, connections)
            mark = network.mark()
            sleep(seconds)
            return network.since(mark).counts["LIST"] / seconds

    def curl(self, network: Network, size: int) -> float:
        """Seconds in which curl downloads so many bytes of the snapshot."""
        snapshot = self.files[-1]
        url = self.presigned("GET", f"app/{snapshot.path.relative_to(self.location.folder)}", network.endpoint)
        times = []
        for _ in range(3):
            done = subprocess.run(
                ["curl", "--silent", "--fail", "--output", "/dev/null", "--write-out", "%{time_total}",
                 "--range", f"0-{min(size, snapshot.size) - 1}", url],
                check=True, capture_output=True, text=True, env=clean_env())
            times.append(float(done.stdout))
        return min(times)


def requests(traffic: Traffic) -> str:
    return f"{traffic}, {traffic.round_trips} in a row"


def row(*cells: object) -> None:
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def cold_table(bench: Bench, network: Network, ways: list[str], chosen: list[str]) -> dict[tuple[str, str], dict]:
    results = {}
    row("step, cold", *(f"{way}: time | requests | MB | MiB resident" for way in ways), "faster")
    row(*["---"] * (2 + 4 * len(ways)))
    for step in chosen:
        cells = []
        for way in ways:
            if way == PEER and step == SCAN:
                cells += ["-"] * 4
                continue
            r = results[way, step] = bench.measure(way, step, network)
            cells += [f"{r['seconds']:.3f} s", requests(r["traffic"]), f"{r['traffic'].size / 1e6:.1f}",
                      f"{r['peak_kib'] / 1024:.0f}"]
        both = [results[way, step]["seconds"] for way in (OURS, PEER) if (way, step) in results]
        row(step, *cells, f"{both[1] / both[0]:.0f} times" if len(both) == 2 else "-")
    return results


def trace(traffic: Traffic) -> list[str]:
    """Each request: when it began and how long it took in milliseconds, and what was asked for."""
    start = min((r.began for r in traffic.requests), default=0)
    return [f"{(r.began - start) / 1e6:8.1f} {((r.ended or r.began) - r.began) / 1e6:7.1f}  {r.status} {r.size:8} {r.range:24} "
            f"{r.target.partition('?')[0] if r.kind == 'GET' else r.target}" for r in traffic.requests]


def unused(bench: Bench, result: dict) -> str:
    """The share of the bytes that came and that SQLite did not ask for."""
    used = result["pages"] * bench.frame
    return f"{max(0.0, 1 - used / result['traffic'].size) * 100:.0f} %"


def speeds(bench: Bench, network: Network) -> None:
    """The full scan, against curl."""
    for cap in (0, 50):
        network.tell(f"cap {cap}")
        scan = bench.measure(OURS, SCAN, network)
        curl = bench.curl(network, scan["traffic"].size)
        row(f"full scan, {f'{cap} Mbit/s' if cap else 'no cap'}", f"{scan['seconds']:.3f} s",
            f"curl {curl:.3f} s", f"{curl / scan['seconds']:.2f} of its speed")
    network.tell("cap 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--rtt", type=float, default=20, help="milliseconds")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--trace", action="store_true", help="print each request of the cold steps")
    parser.add_argument("--only", nargs="+", help="parts of the names of the cold steps to run, and nothing else")
    arguments = parser.parse_args()
    ways = [OURS] if arguments.ours_only else [OURS, PEER]
    with scratch("s3") as (folder, location):
        bench = Bench(folder, location, arguments.rows, arguments.rtt)
        print(f"database {bench.database.stat().st_size / 1e6:.0f} MB, replica "
              f"{sum(f.size for f in bench.files) / 1e6:.0f} MB in {len(bench.files)} files, {arguments.rtt:g} ms", flush=True)
        upstream = int(location.settings["endpoint"].rpartition(":")[2])
        with Network(upstream, arguments.rtt) as network:
            chosen = [s for s in bench.steps if not arguments.only or any(o in s for o in arguments.only)]
            results = cold_table(bench, network, ways, chosen)
            for (way, step), result in results.items():
                if arguments.trace:
                    print(f"{way}: {step}", *trace(result["traffic"]), sep="\n")
                if "random" in step:
                    print(f"{way}: {unused(bench, result)} of the bytes of '{step}' were not used")
            if not arguments.only:
                the_rest(bench, network, ways)


def the_rest(bench: Bench, network: Network, ways: list[str]) -> None:
    print()
    speeds(bench, network)
    for way in ways:
        seconds, traffic = bench.second_connection(way, network)
        row(f"second connection, {way}", f"{seconds:.3f} s", traffic)
    for way, connections in [(w, 1) for w in ways] + [(OURS, 50)]:
        row(f"idle, {way}, {connections} connections", f"{bench.idle(way, network, connections, 10):.1f} LIST a second")
    in_one = list(bench.steps)
    in_one.remove(SCAN)
    in_one.insert(1, SCAN)
    for way in [PLAIN, *ways]:
        results, peak = bench.all_steps(way, network, [s for s in in_one if way != PEER or s != SCAN])
        row(f"all steps in one process, {way}", f"{peak / 1024:.0f} MiB resident",
            *(f"{step}: {r['traffic']}" for step, r in results.items()))


if __name__ == "__main__":
    main()
