#!/usr/bin/env python3
"""What a seal costs, next to the same run without: `make bench`; or some of it, `benches/sealed.py --parts commits restore`.

Each round has a plain run, a sealed one and a plain one again, in an order that changes: the last two columns of the table
are what a seal costs, and how far the plain runs are from each other. `commits`: commits a second that wait for nothing
(`bench-host insert`). `large`: a snapshot of a database whose pages do not fit into memory, and its restore. `cold`: first
queries of processes that read the replica through a network with a set round trip. Each has memory and sizes too. The replica is a folder, or
on an S3 server on loopback for what is cold. With nothing else at work: ratios of a few percent are lost in any other noise.
"""

import argparse
import filecmp
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import cold  # noqa: E402
import primary  # noqa: E402
from harness import age, big, proc  # noqa: E402
from harness.location import Location, Ltx  # noqa: E402
from harness.paths import LIBRARY, SQLITE_SHELL, clean_env  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.worker import Worker  # noqa: E402
from network import Network  # noqa: E402
from restore import Cost, measured  # noqa: E402

PLAIN, SEALED, AGAIN = WAYS = ("plain", "sealed", "plain again")
PARTS = ("commits", "large", "cold")
# Else files are merged while it is measured.
QUIET = {"levels": "24h", "snapshot_interval": "8760h"}
A_PAGE, A_FILE, A_RECIPIENT = 28 + 3, 16, 160


class Key:
    """A pair of its own."""

    def __init__(self, folder: Path):
        identity, self.recipient = age.generate()
        self.file = folder / "key.txt"
        self.file.write_text(identity + "\n")
        self.file.chmod(0o600)

    def writing(self, way: str) -> dict[str, str]:
        """What a primary is told."""
        return {"age_recipient": self.recipient} if way == SEALED else {}

    def reading(self, way: str) -> dict[str, str]:
        """What a reader is told."""
        return {"age_identity_file": str(self.file)} if way == SEALED else {}


def in_turns(rounds: int, run: Callable[[str], object], what: Callable[[object], str]) -> dict[str, list]:
    """What `run` gives for each way, in each of so many rounds."""
    results: dict[str, list] = {way: [] for way in WAYS}
    for n in range(rounds):
        for place in range(len(WAYS)):
            way = WAYS[(n + place) % len(WAYS)]
            results[way].append(run(way))
            print(f"round {n + 1} {way}: {what(results[way][-1])}", flush=True)
    return results


class Table:
    """What is shown in the end."""

    def __init__(self):
        self.lines = ["", "| what | plain | sealed | limit | | sealed: median (quartiles) | plain again: median (quartiles) |",
                      "| --- " * 7 + "|"]

    def row(self, what: str, results: dict[str, list], value: Callable, limit: float | None, form: str, is_ratio: bool,
            most: bool = True) -> None:
        """Compares the values of each round with those of its plain run: their ratio or difference is `limit` at most, or at
        least, if there is one."""
        values = {way: [value(run) for run in runs] for way, runs in results.items()}

        def against_plain(way: str) -> list[float]:
            return sorted(v / p if is_ratio else v - p for v, p in zip(values[way], values[PLAIN], strict=True))

        def spread(found: list[float]) -> str:
            low, middle, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
            return f"{middle:.3f} ({low:.3f} to {high:.3f})"

        middle = statistics.median(against_plain(SEALED))
        bound, holds = "", None
        if limit is not None:
            bound = f"{'at most' if most else 'at least'} {limit:g}{'' if is_ratio else ' more'}"
            holds = middle <= limit if most else middle >= limit
        self.lines.append(f"| {what} | {statistics.median(values[PLAIN]):{form}} | {statistics.median(values[SEALED]):{form}} "
                          f"| {bound} | { {True: 'yes', False: '**no**', None: ''}[holds]} "
                          f"| {spread(against_plain(SEALED))} | {spread(against_plain(AGAIN))} |")

    def sizes(self, what: str, plain: Ltx, sealed: Ltx) -> None:
        """Of two files of the same pages."""
        pages = int.from_bytes(plain.path.open("rb").read(16)[12:])
        more, limit = sealed.size - plain.size, A_PAGE * pages + A_RECIPIENT + A_FILE
        self.lines.append(f"| bytes of {what}, {pages} pages | {plain.size} | {sealed.size} | at most {limit} more "
                          f"| {'yes' if more <= limit else '**no**'} | {more}, {(more - A_RECIPIENT - A_FILE) / pages:.2f} a page | |")

    def show(self) -> None:
        print("\n".join(self.lines), flush=True)


def commits(folder: Path, key: Key, table: Table, pairs: int, seconds: float) -> None:
    bench = primary.Bench(folder, Location.file(folder / "replica"), 20_000)

    def run(way: str) -> dict:
        path, location = bench.copy()
        try:
            uri = location.primary(path, **QUIET, **key.writing(way))
            return primary.rated(primary.output(primary.host("insert", uri, seconds, LIBRARY)))
        finally:
            bench.drop(path, location)

    results = in_turns(pairs, run, lambda r: f"{r['rate']:.0f} commits/s, {r['rss_kib'] / 1024:.1f} MiB")
    table.row("commits a second", results, lambda r: r["rate"], 0.98, ".0f", is_ratio=True, most=False)
    table.row("resident MiB of who commits", results, lambda r: r["rss_kib"] / 1024, 2, ".1f", is_ratio=False)


def large(folder: Path, key: Key, table: Table, rounds: int, mib: int) -> None:
    replicas = {way: Location.file(folder / f"{way}-replica") for way in (PLAIN, SEALED)}
    replicas[AGAIN] = replicas[PLAIN]
    workers = {way: Worker("apsw") for way in (PLAIN, SEALED)}
    workers[AGAIN] = workers[PLAIN]
    databases = {way: folder / f"{way}.db" for way in (PLAIN, SEALED)}
    big.make(databases[PLAIN], mib << 20)
    shutil.copy(databases[PLAIN], databases[SEALED])
    # A sealed snapshot begins when the next file may be published.
    opened = {way: workers[way].open(replicas[way].primary(path, sync_interval="10ms", **QUIET, **key.writing(way)))
              for way, path in databases.items()}
    opened[AGAIN] = opened[PLAIN]
    for db in (opened[PLAIN], opened[SEALED]):
        db.one("SELECT litestream_sync(900)", deadline=900)

    def snapshot(way: str) -> Cost:
        db, pid = opened[way], workers[way].pid
        db.run("UPDATE t SET name = 'changed' WHERE id = 7")
        db.one("SELECT litestream_sync(60)")
        proc.reset_peak(pid)
        begun, cpu = time.monotonic(), proc.cpu_seconds(pid)
        db.one("SELECT litestream_snapshot()", deadline=900)
        cost = Cost(time.monotonic() - begun, proc.cpu_seconds(pid) - cpu, proc.peak_rss_kib(pid) / 1024)
        # One is enough for a restore, and for the next one to begin with.
        for file in replicas[way].files(9)[:-1]:
            file.path.unlink()
        return cost

    def say(cost: Cost) -> str:
        return f"{cost.seconds:.2f} s, {cost.cpu:.2f} s of processor, {cost.memory:.1f} MiB"

    title = f"of {databases[PLAIN].stat().st_size / 1e9:.2f} GB"
    results = in_turns(rounds, snapshot, lambda cost: f"snapshot {say(cost)}")
    table.row(f"a snapshot {title}, seconds", results, lambda cost: cost.seconds, 1.3, ".2f", is_ratio=True)
    table.row("its processor seconds, all threads", results, lambda cost: cost.cpu, None, ".2f", is_ratio=True)
    table.row("resident MiB of who makes it", results, lambda cost: cost.memory, 2, ".1f", is_ratio=False)
    for way in (PLAIN, SEALED):
        opened[way].run("PRAGMA wal_checkpoint(TRUNCATE)")
        opened[way].close()
        workers[way].end()
    output = folder / "restored.db"

    def restored(way: str) -> Cost:
        output.unlink(missing_ok=True)
        options = "".join(f", '{{\"{name}\": \"{value}\"}}'" for name, value in key.reading(way).items())
        sql = f"SELECT litestream_restore('{replicas[way].full_url}', '{output}'{options});"
        cost = measured([SQLITE_SHELL, ":memory:", "-cmd", f".load {LIBRARY.with_suffix('')}", sql], clean_env())
        if not filecmp.cmp(databases[way if way == SEALED else PLAIN], output, shallow=False):
            raise RuntimeError(f"{way}: something else was restored")
        return cost

    results = in_turns(rounds, restored, lambda cost: f"restore {say(cost)}")
    table.row(f"a restore {title}, seconds", results, lambda cost: cost.seconds, 1.3, ".2f", is_ratio=True)
    table.row("its processor seconds, all threads", results, lambda cost: cost.cpu, None, ".2f", is_ratio=True)
    table.row("resident MiB of who restores", results, lambda cost: cost.memory, 2, ".1f", is_ratio=False)
    table.sizes(f"the first copy {title}", replicas[PLAIN].files(0)[0], replicas[SEALED].files(0)[0])


def first_queries(folder: Path, key: Key, table: Table, rounds: int, scale: float, rtt: float, location: Location) -> None:
    benches = {}
    for way in (PLAIN, SEALED):
        (folder / way).mkdir()
        there = Location.s3(location.folder.parent, way, location.settings["endpoint"])
        benches[way] = cold.Bench(folder / way, there, 4096, scale, **key.writing(way))
    benches[AGAIN] = benches[PLAIN]
    with Network(int(location.settings["endpoint"].rpartition(":")[2]), rtt) as network:
        everything: dict[str, list[cold.Run]] = {way: [] for way in WAYS}
        for step in (cold.OPEN, *cold.QUERIES, cold.SOME):
            numbers = {way: iter(range(rounds)) for way in WAYS}

            def run(way: str) -> cold.Run:
                return benches[way].measure(step, 1000 + 7919 * next(numbers[way]), network, **key.reading(way))

            queries = 100 if step == cold.SOME else 1

            def ms(r: cold.Run) -> float:
                return (r.query or r.opened) * 1e3 / queries

            results = in_turns(rounds, run, lambda r: f"{step}: {ms(r):.1f} ms each, {r.traffic}")
            table.row(f"{step}, ms each", results, ms, 5, ".1f", is_ratio=False)
            table.row("its requests", results, lambda r: len(r.traffic.requests), 0, ".0f", is_ratio=False)
            for way, runs in results.items():
                everything[way] += runs
        table.row("resident MiB of who reads", everything, lambda r: r.peak_kib / 1024, 2, ".1f", is_ratio=False)
    files = {way: Location.file(folder / way / "replica").files(0)[0] for way in (PLAIN, SEALED)}
    table.sizes("a full copy", files[PLAIN], files[SEALED])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pairs", type=int, default=30, help="of commits")
    parser.add_argument("--seconds", type=float, default=2.5, help="of commits")
    parser.add_argument("--rounds", type=int, default=5, help="of all else")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--scale", type=float, default=0.3, help="of the database that is read cold; 1 is 300 000 posts")
    parser.add_argument("--rtt", type=float, default=20, help="milliseconds")
    parser.add_argument("--folder", help="where everything is; on tmpfs no fsync hides what a seal costs")
    arguments = parser.parse_args()
    table = Table()
    for part in arguments.parts:
        with scratch("s3" if part == "cold" else "file", arguments.folder) as (folder, location):
            key = Key(folder)
            if part == "commits":
                commits(folder, key, table, arguments.pairs, arguments.seconds)
            elif part == "large":
                large(folder, key, table, arguments.rounds, arguments.mib)
            else:
                first_queries(folder, key, table, arguments.rounds, arguments.scale, arguments.rtt, location)
    table.show()


if __name__ == "__main__":
    main()
