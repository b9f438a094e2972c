#!/usr/bin/env python3
"""What the first copy of a database into a folder costs while nobody writes, and what it costs a writer at full speed: this
library, and an earlier release of it (`old`, which LITESTREAM_VFS_OLD names). Rounds go in turn.

    LITESTREAM_VFS_OLD=old/liblitestream_vfs.so .venv/bin/python benches/first_copy.py --mib 2048

The writer is a thread of the process that replicates. Its rate from the open until the database is in the replica is compared with
that after it, when the WAL was emptied.
"""

import argparse
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import big  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, OLD_LIBRARY, SQLITE_SHELL, SYSTEM_PYTHON, clean_env  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.script import PREAMBLE  # noqa: E402
from restore import Cost, measured, table  # noqa: E402

WRITER = """
import json
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
db, other = connect(uri), connect(uri, check_same_thread=False)
db.execute("PRAGMA synchronous=NORMAL")

def write(until):
    times, begun = [], time.monotonic()
    while not until():
        began = time.monotonic()
        db.execute("UPDATE written SET y = randomblob(100) WHERE rowid = 1 + abs(random()) % 100000")
        times.append(time.monotonic() - began)
    times.sort()
    seconds = time.monotonic() - begun
    return {"seconds": seconds, "rate": len(times) / seconds, "p99": times[int(len(times) * 0.99)], "longest": times[-1]}

copied = threading.Thread(target=lambda: other.execute("SELECT litestream_sync(600)").fetchone())
copied.start()
during = write(lambda: not copied.is_alive())
db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
other.execute("SELECT litestream_sync(600)").fetchone()
end = time.monotonic() + seconds
after = write(lambda: time.monotonic() > end)
print(json.dumps([during, after]), flush=True)
"""


def forget(database: Path, location: Location) -> None:
    """No copy was made."""
    shutil.rmtree(location.folder, ignore_errors=True)
    shutil.rmtree(database.with_name(f".{database.name}-litestream"), ignore_errors=True)


def make(database: Path, size: int) -> None:
    """A database of `size` bytes, and a table that a writer changes."""
    big.make(database, size)
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("CREATE TABLE written(y BLOB)")
        db.execute("WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000) INSERT INTO written SELECT randomblob(100) FROM n")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def beside_a_writer(name: str, library: Path, database: Path, location: Location, seconds: float) -> float:
    """The rate of a writer while the copy is made, of that after it."""
    forget(database, location)
    names = f"library, uri, seconds = {str(library)!r}, {location.primary(database)!r}, {seconds}\n"
    done = subprocess.run([SYSTEM_PYTHON, "-c", PREAMBLE + names + WRITER], env=clean_env(), stdout=subprocess.PIPE, check=True,
                          text=True)
    during, after = json.loads(done.stdout)
    ratio = during["rate"] / after["rate"]
    said = ", ".join(f"{what} {run['rate']:.0f} commits a second for {run['seconds']:.1f} s, p99 {run['p99'] * 1e3:.2f} ms, longest "
                     f"{run['longest'] * 1e3:.0f} ms" for what, run in (("during", during), ("after", after)))
    print(f"writer, {name}: {said}: {ratio:.2f}", flush=True)
    return ratio


def copy(library: Path, database: Path, location: Location) -> Cost:
    """A process that opens the database, and waits until it is in the replica, which is empty before."""
    forget(database, location)
    return measured([SQLITE_SHELL, ":memory:", "-cmd", f".load {library.with_suffix('')}",
                     "-cmd", f".open '{location.primary(database)}'", "SELECT litestream_sync(600);"], clean_env())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--writer-rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of writing after a copy")
    parser.add_argument("--folder", help="where everything is")
    arguments = parser.parse_args()
    libraries = {"ours": LIBRARY} | ({"old": OLD_LIBRARY} if OLD_LIBRARY else {})
    with scratch("file", arguments.folder) as (folder, location):
        database = folder / "app.db"
        make(database, arguments.mib << 20)
        results: dict[str, list[Cost]] = {way: [] for way in libraries}
        for n in range(arguments.rounds):
            for way, runs in results.items():
                runs.append(copy(libraries[way], database, location))
                print(f"round {n + 1} {way}: {runs[-1].seconds:.2f} s, {runs[-1].cpu:.2f} s of processor, "
                      f"{runs[-1].memory:.0f} MiB", flush=True)
        print(table(results), flush=True)
        ratios: dict[str, list[float]] = {way: [] for way in libraries}
        for _ in range(arguments.writer_rounds):
            for way, found in ratios.items():
                found.append(beside_a_writer(way, libraries[way], database, location, arguments.seconds))
        for way, found in ratios.items() if arguments.writer_rounds else ():
            print(f"writer, {way}: median {statistics.median(found):.2f} of its rate after the copy")


if __name__ == "__main__":
    main()
