#!/usr/bin/env python3
"""Makes the golden LTX files anew, with real Litestream binaries.

    make.py LITESTREAM            0.5.17 or later: page-512, page-4096
    make.py --frames LITESTREAM   0.5.5, which compressed pages as LZ4 frames: lz4-frames

Each folder holds a replica as Litestream wrote it (<level>/<min>-<max>.ltx) and, for every transaction
that an L0 file ends with, the database that Litestream restores there (<txid>.db).
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEADLINE = 60

CONFIG = """
snapshot: {{interval: 24h, retention: 24h}}
levels:
  - interval: 1s
dbs:
  - path: {db}
    replica:
      type: file
      path: {replica}
      sync-interval: 100ms
"""


class Source:
    """A small database and its replica."""

    def __init__(self, litestream, folder, page_size):
        self.litestream = litestream
        self.db = folder / "app.db"
        self.replica = folder / "replica"
        self.config = folder / "litestream.yml"
        self.config.write_text(CONFIG.format(db=self.db, replica=self.replica))
        self.conn = sqlite3.connect(self.db, isolation_level=None)
        self.conn.execute(f"PRAGMA page_size = {page_size}")
        self.conn.execute("PRAGMA journal_mode = wal")
        self.conn.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, noise BLOB)")

    def insert(self, rows):
        self.conn.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO note (body, noise) SELECT printf('note %d: %.*c', i, 20 * i, 'x'), randomblob(2 * i) FROM n",
            (rows,),
        )

    def once(self, *arguments):
        command = [self.litestream, "replicate", "-config", self.config, "-once", *arguments]
        subprocess.run(command, check=True, env=environment(), capture_output=True)

    def daemon(self):
        command = [self.litestream, "replicate", "-config", self.config]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def files(self, level):
        """The ranges of transactions of a level's files."""
        names = sorted(p.stem for p in (self.replica / "ltx" / str(level)).glob("*.ltx"))
        return [tuple(int(txid, 16) for txid in name.split("-")) for name in names]

    def restore(self, txid, target):
        command = [self.litestream, "restore", "-txid", f"{txid:016x}", "-o", target, f"file://{self.replica}"]
        subprocess.run(command, check=True, env=environment(), capture_output=True)


def environment():
    return {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}


def wait_for(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"gave up waiting for {what}")
        time.sleep(0.05)


def write_current(source):
    """All kinds of change, a snapshot in the middle, then compactions from and not from TXID 1."""
    source.insert(40)
    source.once()
    source.conn.execute("DELETE FROM note WHERE id % 3 = 0")
    source.conn.execute("UPDATE note SET body = upper(body) WHERE id % 7 = 0")
    source.once()
    source.conn.execute("DELETE FROM note WHERE id > 5")
    source.conn.execute("VACUUM")
    source.once("-force-snapshot")
    source.insert(10)
    source.once()
    daemon = source.daemon()
    try:
        wait_for(lambda: source.files(1), "a compaction")
        compactions = len(source.files(1))
        source.insert(3)
        wait_for(lambda: len(source.files(1)) > compactions, "a second compaction")
    finally:
        daemon.terminate()
        daemon.wait()


def write_frames(source):
    source.insert(20)
    daemon = source.daemon()
    try:
        wait_for(lambda: source.files(0), "the first file")
        files = len(source.files(0))
        source.insert(5)
        wait_for(lambda: len(source.files(0)) > files, "another file")
    finally:
        daemon.terminate()
        daemon.wait()


def make(litestream, name, page_size, write):
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Source(litestream, Path(folder), page_size)
        write(source)
        shutil.copytree(source.replica / "ltx", target)
        for _, txid in source.files(0):
            source.restore(txid, target / f"{txid:016x}.db")
    for path in sorted(p for p in target.rglob("*") if p.is_file()):
        path.chmod(0o644)
        print(path.relative_to(HERE), path.stat().st_size)


def main(arguments):
    if len(arguments) == 1:
        make(arguments[0], "page-512", 512, write_current)
        make(arguments[0], "page-4096", 4096, write_current)
    elif len(arguments) == 2 and arguments[0] == "--frames":
        make(arguments[1], "lz4-frames", 4096, write_frames)
    else:
        sys.exit(__doc__)


main(sys.argv[1:])
