#!/usr/bin/env python3
"""What the first query of a process costs, with a pack and without.

A database of posts, users, likes and friendships with six indexes is replicated by a primary, whose replica is one large
file and its pack. Each query runs in a fresh process that has opened the replica and read the schema, through a network with a
set round trip, for three keys; the table has the medians. `pack=off` reads the same replica as one without a pack.
"""

import argparse
import random
import sqlite3
import statistics
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY  # noqa: E402
from harness.s3 import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.worker import Worker  # noqa: E402
from network import Network, Traffic  # noqa: E402
from presign import presigned  # noqa: E402
from reader_process import Reader  # noqa: E402

SCHEMA = [["SELECT * FROM sqlite_schema", []]]
WORDS = "the of and to in is you that it he was for on are as with his they at be this have from or one had by word".split()
TABLES = """
CREATE TABLE user(id INTEGER PRIMARY KEY, name TEXT, email TEXT, about TEXT);
CREATE TABLE post(id INTEGER PRIMARY KEY, user INTEGER, at INTEGER, body TEXT);
CREATE TABLE liked(id INTEGER PRIMARY KEY, post INTEGER, user INTEGER, at INTEGER);
CREATE TABLE friend(a INTEGER, b INTEGER, at INTEGER);
"""
INDEXES = """
CREATE INDEX user_email ON user(email);
CREATE INDEX post_user ON post(user, at);
CREATE INDEX liked_post ON liked(post);
CREATE INDEX liked_user ON liked(user);
CREATE INDEX friend_a ON friend(a, b);
CREATE INDEX friend_b ON friend(b, a);
"""
QUERIES = {
    "one post with its user": "SELECT * FROM post JOIN user ON user.id = post.user WHERE post.id = ?",
    "profile: a user and the ten latest posts":
        "SELECT * FROM user JOIN post ON post.user = user.id WHERE user.id = ? ORDER BY post.at DESC LIMIT 10",
    "who liked a post": "SELECT user.* FROM liked JOIN user ON user.id = liked.user WHERE liked.post = ? ORDER BY user.name",
    "mutual friends": "SELECT x.b FROM friend x JOIN friend y ON y.a = x.b AND y.b = ?1 % 30000 + 1 WHERE x.a = ?1",
    "count over an index, one key": "SELECT count(*) FROM liked WHERE user = ?",
}
SCAN, SOME, OPEN = "scan of the table with a filter", "100 random rows, each a query", "open and schema"


def build(path: Path, page_size: int, scale: float) -> None:
    """The database, the same at each run."""
    pick = random.Random(1)
    users, posts = int(30_000 * scale), int(300_000 * scale)

    def text(words: int) -> str:
        return " ".join(f"{pick.choice(WORDS)}{pick.randrange(1000)}" for _ in range(words))

    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA page_size={page_size}")
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(TABLES)
        db.executemany("INSERT INTO user VALUES(?, ?, ?, ?)",
                       ((n, f"user {n}", f"{pick.randrange(10**9)}@example.com", text(20)) for n in range(1, users + 1)))
        db.executemany("INSERT INTO post VALUES(?, ?, ?, ?)",
                       ((n, pick.randrange(users) + 1, n * 7, text(70)) for n in range(1, posts + 1)))
        db.executemany("INSERT INTO liked VALUES(?, ?, ?, ?)",
                       ((n, pick.randrange(posts) + 1, pick.randrange(users) + 1, n) for n in range(1, 5 * posts + 1)))
        db.executemany("INSERT INTO friend VALUES(?, ?, ?)",
                       ((pick.randrange(users) + 1, pick.randrange(users) + 1, n) for n in range(2 * posts)))
        db.executescript(INDEXES)
    db.close()


class Run(NamedTuple):
    """One step in a process of its own: seconds of the open and of the query, what went through the network for the query, or
    for the open if there is none, and the most resident memory."""

    opened: float
    query: float
    traffic: Traffic
    peak_kib: int


class Bench:
    """Steps on a replica at `location` whose primary had `settings`."""

    def __init__(self, folder: Path, location: Location, page_size: int, scale: float, **settings: str):
        self.location, self.posts, self.users = location, int(300_000 * scale), int(30_000 * scale)
        self.database = folder / "app.db"
        build(self.database, page_size, scale)
        replica = Location.file(folder / "replica")
        worker = Worker("python")
        try:
            db = worker.open(replica.primary(self.database, **settings))
            db.one("SELECT litestream_sync(600)", deadline=700)
            db.close()
        finally:
            worker.end()
        self.sizes = {path.relative_to(replica.folder): path.stat().st_size for path in replica.folder.rglob("*.*")
                      if path.is_file()}
        for path in self.sizes:
            self.store(replica.folder / path, path)
        self.digests: dict[str, str] = {}

    def store(self, path: Path, name: Path) -> None:
        """Puts a file of a replica in a folder through the server, in a single request: s3s-fs hashes a whole object for each
        range of one that came otherwise."""
        key = name if name.parts[0] == "vfs" else Path(f"{int(name.parts[1]):04x}") / name.name
        url = presigned("PUT", f"{self.location.settings['endpoint']}/{self.location.url.removeprefix('s3://')}/{key}", REGION, ACCESS_KEY, SECRET_KEY)
        urlopen(Request(url, data=path.read_bytes(), method="PUT")).close()

    def statements(self, step: str, key: int) -> list:
        if step == SCAN:
            return [["SELECT count(*), sum(length(body)) FROM post NOT INDEXED WHERE body LIKE ?", [f"%word{key}%"]]]
        if step == SOME:
            pick = random.Random(key)
            return [["SELECT * FROM post WHERE id = ?", [pick.randrange(self.posts) + 1]] for _ in range(100)]
        return [[QUERIES[step], [key % (self.posts if "post" in step and "user and" not in step else self.users) + 1]]]

    def measure(self, step: str, key: int, network: Network, **parameters) -> Run:
        there = self.location.at(network.endpoint)
        with Reader(there.env) as reader:
            reader.call("load", path=str(LIBRARY), entry=None)
            mark = network.mark()
            opened = reader.call("open", uri=there.replica(poll_interval="1h", **parameters), count=1)["seconds"]
            opened += reader.call("run", statements=SCHEMA)["seconds"]
            traffic = network.since(mark)
            if step == OPEN:
                return Run(opened, 0.0, traffic, reader.call("peak")["peak_kib"])
            mark = network.mark()
            result = reader.call("run", statements=self.statements(step, key))
            if self.digests.setdefault(f"{step} {key}", result["digest"]) != result["digest"]:
                raise RuntimeError(f"{step}: something else is read")
            return Run(opened, result["seconds"], network.since(mark), result["peak_kib"])


def row(*cells: object) -> None:
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def cells(runs: list[Run], is_open: bool) -> list[str]:
    def median(value) -> float:
        return statistics.median(map(value, runs))

    query = "-" if is_open else f"{median(lambda r: r.query) * 1000:.0f} ms"
    requests, trips = (median(lambda r: len(r.traffic.requests)), median(lambda r: r.traffic.round_trips))
    return [query, f"{median(lambda r: r.opened + r.query) * 1000:.0f} ms", f"{requests:.0f}, {trips:.0f} in a row",
            f"{median(lambda r: r.traffic.size) / 1000:.0f} KB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=20, help="milliseconds")
    parser.add_argument("--page-size", type=int, default=4096)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 300 000 posts")
    parser.add_argument("--keys", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="parts of the names of the steps to run")
    arguments = parser.parse_args()
    with scratch("s3") as (folder, location):
        bench = Bench(folder, location, arguments.page_size, arguments.scale)
        print(f"database {bench.database.stat().st_size / 1e6:.0f} MB, pages of {arguments.page_size}, {arguments.rtt:g} ms;",
              ", ".join(f"{path} {size / 1e6:.2f} MB" for path, size in bench.sizes.items()), flush=True)
        steps = [s for s in (OPEN, *QUERIES, SOME, SCAN) if not arguments.only or any(o in s for o in arguments.only)]
        with Network(int(location.settings["endpoint"].rpartition(":")[2]), arguments.rtt) as network:
            columns = ("query", "open and query", "requests of the query", "bytes")
            row("step", *(f"{way}: {column}" for way in ("pack", "pack=off") for column in columns))
            row(*["---"] * 9)
            for step in steps:
                found = []
                for parameters in ({}, {"pack": "off"}):
                    runs = [bench.measure(step, 1000 + 7919 * n, network, **parameters) for n in range(arguments.keys)]
                    found += cells(runs, step == OPEN)
                row(step, *found)


if __name__ == "__main__":
    main()
