#!/usr/bin/env python3
"""How many commits a second wait for the replica: `benches/commits.py`, with a release build of the library.

The S3 server is on loopback behind a proxy that answers each request late. The limit is one upload under way with everyone
aboard: so many connections in each round trip. Without connections that wait at the same time (one of them) that is one PUT a
commit, and what it takes beyond the round trip is the cost of the library, of the server and of the proxy; that of server and
proxy alone is measured first.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.location import Location  # noqa: E402
from harness.paths import SYSTEM_PYTHON, clean_env  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.s3 import S3Server  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.script import PREAMBLE  # noqa: E402

WRITERS = """
import json
load()
first = connect(uri)
first.execute("PRAGMA synchronous=NORMAL")
first.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, thread, data)")
first.execute("INSERT INTO t(thread, data) VALUES (0, 'first')")
done, waits, end = [0] * writers, [], [0.0]
def write(n):
    db = connect(uri)
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("INSERT INTO t(thread, data) VALUES (?, 'warm')", (n,))
    ready.wait()
    while time.monotonic() < end[0]:
        began = time.monotonic()
        db.execute("INSERT INTO t(thread, data) VALUES (?, randomblob(100))", (n,))
        waits.append(time.monotonic() - began)
        done[n] += 1
    db.close()
ready = threading.Barrier(writers + 1)
threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
for thread in threads: thread.start()
while ready.n_waiting < writers: time.sleep(0.01)
print("begin", flush=True)
sys.stdin.readline()
end[0] = time.monotonic() + seconds
began = time.monotonic()
ready.wait()
for thread in threads: thread.join()
print(json.dumps([sum(done), time.monotonic() - began, sorted(waits)[len(waits) // 2]]), flush=True)
sys.stdin.readline()
"""


def writers(uri: str, location: Location, count: int, seconds: float) -> subprocess.Popen:
    names = f"uri, writers, seconds = {uri!r}, {count}, {seconds}\n"
    return subprocess.Popen([SYSTEM_PYTHON, "-c", PREAMBLE + names + WRITERS], env=clean_env(**location.env),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def bare(proxy: Proxy) -> float:
    """Seconds that server and proxy take for a request, without the delay."""
    proxy.delay = 0
    times = []
    for _ in range(30):
        began = time.monotonic()
        try:
            urllib.request.urlopen(f"{proxy.endpoint}/nothing/here").read()
        except OSError:
            pass
        times.append(time.monotonic() - began)
    return statistics.median(times)


def measure(server: S3Server, folder: Path, name: str, rtt: float, count: int, seconds: float, commit: str) -> dict:
    proxy = Proxy(server.port)
    location = Location.s3(server.bucket(name), "app", server.endpoint).at(proxy.endpoint)
    uri = location.primary(folder / f"{name}.db", commit=commit, levels="24h")
    process = writers(uri, location, count, seconds)
    assert process.stdout.readline() == "begin\n"
    proxy.delay = rtt
    before = proxy.counts()["PUT"]
    process.stdin.write("go\n")
    process.stdin.flush()
    commits, took, median = json.loads(process.stdout.readline())
    puts = proxy.counts()["PUT"] - before
    proxy.delay = 0
    process.communicate("end\n", timeout=60)
    proxy.close()
    return {"rate": commits / took, "per_put": commits / max(puts, 1), "median": median}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rtt", type=float, nargs="+", default=[1, 20, 100], help="milliseconds")
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 8, 64])
    arguments = parser.parse_args()
    with scratch("file") as (folder, _):
        server = S3Server(folder / "s3")
        proxy = Proxy(server.port)
        print(f"server and proxy alone: {bare(proxy) * 1e3:.1f} ms a request", flush=True)
        proxy.close()
        print("rtt_ms writers commits/s commits/put median_ms limit/s", flush=True)
        for rtt in arguments.rtt:
            for count in arguments.writers:
                got = measure(server, folder, f"r{rtt:g}w{count}", rtt / 1e3, count, arguments.seconds, "replicated")
                print(f"{rtt:6g} {count:7} {got['rate']:9.1f} {got['per_put']:11.1f} {got['median'] * 1e3:9.1f} "
                      f"{count / (rtt / 1e3):7.0f}", flush=True)
        server.stop()


if __name__ == "__main__":
    main()
