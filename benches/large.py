#!/usr/bin/env python3
"""What the first row of a very large replica costs: `benches/large.py`, with a release build of the library.

A replica of 25 million pages, 100 GB at 4 KiB, is made up (`bench-large` of benches/host: one snapshot, whose pages are mostly
zeros, and its pack), stored in an S3 server, and read through a network with a set round trip. Each line is a fresh process:
the open with the schema, then some rows anywhere. `pack=off` reads the same as a replica without a pack.
"""

import argparse
import random
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY  # noqa: E402
from harness.s3 import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from network import Network  # noqa: E402
from presign import presigned  # noqa: E402
from reader_process import Reader  # noqa: E402

BUILDER = ROOT / "benches" / "host" / "target" / "release" / "bench-large"
ROW = "SELECT id, length(body), hex(substr(body, -8)) FROM t WHERE id = ?"


def store(built: Path, location: Location) -> None:
    """Puts the files through the server, which hashes a whole object for each range of one that it did not get that way."""
    for path in sorted(file for file in built.rglob("*") if file.is_file()):
        url = presigned("PUT", f"{location.settings['endpoint']}/bucket/app/{path.relative_to(built)}", REGION, ACCESS_KEY, SECRET_KEY)
        with path.open("rb") as body:
            headers = {"Content-Length": str(path.stat().st_size)}
            urlopen(Request(url, data=body, headers=headers, method="PUT")).close()


def read(location: Location, network: Network, rows: list[int], **parameters: str) -> None:
    there = location.at(network.endpoint)
    with Reader(there.env) as reader:
        reader.call("load", path=str(LIBRARY), entry=None)
        before, mark = reader.call("peak")["peak_kib"], network.mark()
        opened = reader.call("open", uri=there.replica(**parameters), count=1)["seconds"]
        reader.call("run", statements=[["SELECT * FROM sqlite_schema", []]])
        first = reader.call("run", statements=[[ROW, rows[:1]]])["seconds"]
        beginning = network.since(mark)
        mark = network.mark()
        others = reader.call("run", statements=[[ROW, [row]] for row in rows[1:]])["seconds"]
        rest, peak = network.since(mark), reader.call("peak")["peak_kib"]
    print(f"{parameters or 'with the pack'}: open {opened * 1e3:.0f} ms, first row {first * 1e3:.0f} ms, "
          f"{beginning.round_trips} round trips, {beginning} and {beginning.size / 1e6:.2f} MB; {len(rows) - 1} more rows "
          f"{others * 1e3:.0f} ms, {rest.round_trips} round trips, {rest.size / 1e6:.2f} MB; "
          f"{peak / 1024:.0f} MiB resident at most, {(peak - before) / 1024:.0f} more than before the open", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=25_000_000)
    parser.add_argument("--rtt", type=float, default=20, help="milliseconds")
    parser.add_argument("--rows", type=int, default=101)
    parser.add_argument("--built", type=Path, help="a folder with what an earlier run made")
    parser.add_argument("--without", action="store_true", help="read it without its pack, too")
    arguments = parser.parse_args()
    with scratch("s3") as (folder, location):
        built = arguments.built or folder / "built"
        if not built.exists():
            subprocess.run([BUILDER, built, str(arguments.pages)], check=True, stdout=subprocess.DEVNULL)
        store(built, location)
        if arguments.built is None:
            shutil.rmtree(built)
        pick = random.Random(5)
        rows = [1 + pick.randrange(arguments.pages * 9 // 10) for _ in range(arguments.rows)]
        with Network(int(location.settings["endpoint"].rpartition(":")[2]), arguments.rtt) as network:
            for _ in range(3):
                read(location, network, rows)
            if arguments.without:
                read(location, network, rows, pack="off")


if __name__ == "__main__":
    main()
