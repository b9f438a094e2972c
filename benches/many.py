#!/usr/bin/env python3
"""What many primaries in one process cost beside as many plain databases: memory, descriptors, threads, what they do while
nobody writes, and how long their close takes.

    .venv/bin/python benches/many.py --counts 1 100 1000 4000

Each database is opened, written to and brought into its replica, on an S3 server on loopback, before all are looked at.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.location import Location, sqlite_uri  # noqa: E402
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.scratch import scratch  # noqa: E402

# The open files of host and server.
DESCRIPTORS = 65536
# Seconds until all that was written is merged, and how long nobody does anything then.
MERGED, IDLE = 70, 20

HOST = """
import json, os, sqlite3, sys, time
library, uris, rounds = sys.argv[1], json.load(open(sys.argv[2])), 10
loader = sqlite3.connect(":memory:")
if library:
    loader.enable_load_extension(True); loader.load_extension(library)

def say(seconds):
    fields = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    woken = 0
    for thread in os.listdir("/proc/self/task"):
        if thread != str(os.getpid()):
            lines = open(f"/proc/self/task/{thread}/status").read().splitlines()
            woken += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
    print(json.dumps({"rss": int(fields["VmRSS"].split()[0]), "peak": int(fields["VmHWM"].split()[0]),
                      "threads": int(fields["Threads"]), "descriptors": len(os.listdir("/proc/self/fd")),
                      "woken": woken, "seconds": seconds}), flush=True)
    sys.stdin.readline()

began = time.monotonic()
databases = []
for uri in uris:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
    db.execute("PRAGMA journal_mode=WAL").fetchone()
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    databases.append(db)
for _ in range(rounds):
    for db in databases:
        db.execute("INSERT INTO t(x) VALUES (randomblob(1000))")
if library:
    for db in databases:
        db.execute("SELECT litestream_sync(300)").fetchone()
say(time.monotonic() - began)
say(0)
say(0)
began = time.monotonic()
for db in databases:
    db.close()
say(time.monotonic() - began)
"""


def bucket_of_its_own(location: Location, name: str) -> Location:
    """The server lists a bucket by reading all of it."""
    (location.folder.parents[1] / name).mkdir()
    return replace(location, url=f"s3://{name}/app")


def measure(folder: Path, location: Location | None, count: int) -> dict:
    """Figures of a host with `count` databases: when all was done, `idle` after a while, and the seconds of the `close`."""
    uris = []
    for n in range(count):
        path = folder / f"{'plain' if location is None else 'ours'}-{count}-{n}.db"
        here = location and bucket_of_its_own(location, f"db-{count}-{n}")
        uris.append(here.primary(path) if here else sqlite_uri(path))
    names = folder / "uris.json"
    names.write_text(json.dumps(uris))
    host = subprocess.Popen([SYSTEM_PYTHON, "-c", HOST, str(LIBRARY) if location else "", names], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_env(**(location.env if location else {})))

    def next_figures() -> dict:
        said = json.loads(host.stdout.readline())
        return said | {"at": time.monotonic()}

    def proceed() -> None:
        host.stdin.write("\n")
        host.stdin.flush()

    figures = next_figures()
    for name, seconds in (("quiet", MERGED), ("idle", IDLE)):
        time.sleep(seconds if location else 0)
        proceed()
        figures[name] = next_figures()
    proceed()
    figures["close"] = next_figures()["seconds"]
    host.communicate("\n")
    return figures


def show(folder: Path, location: Location, proxy: Proxy, count: int) -> None:
    plain = measure(folder, None, count)
    before = len(proxy.requests)
    ours = measure(folder, location, count)
    quiet, idle = ours["quiet"], ours["idle"]
    asked = [request for request in proxy.requests[before:] if quiet["at"] < request.at < idle["at"]]
    mib = {name: (ours[name] - plain[name]) / 1024 for name in ("rss", "peak")}
    each = (ours["descriptors"] - plain["descriptors"]) / count
    print(f"{count:5} databases: {mib['rss']:.1f} MiB more than plain ({plain['rss'] / 1024:.1f}), peak {mib['peak']:.1f} more; "
          f"{each:.2f} descriptors more each (plain {plain['descriptors'] / count:.2f}); {ours['threads']} threads; "
          f"ready in {ours['seconds']:.1f} s (plain {plain['seconds']:.1f}); "
          f"{IDLE} s idle: {idle['woken'] - quiet['woken']} wake-ups, {len(asked)} requests; "
          f"closed in {ours['close']:.2f} s (plain {plain['close']:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 100, 1000])
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    with scratch("s3") as (folder, location):
        proxy = Proxy(urlsplit(location.settings["endpoint"]).port)
        try:
            for count in options.counts:
                show(folder, location.at(proxy.endpoint), proxy, count)
        finally:
            proxy.close()


if __name__ == "__main__":
    main()
