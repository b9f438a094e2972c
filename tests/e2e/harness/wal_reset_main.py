"""A checkpoint that overlaps the restart of the WAL, step by step, in one thread: see test_wal_reset.py.

    python wal_reset_main.py LIBRARY CHECKPOINTER-URI WRITER-URI

Prints how many rows were committed, and whether the writer ran in the middle of the checkpoint.
"""

import json
import os
import sqlite3
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True

from harness.between import Between  # noqa: E402

library, checkpointer_uri, writer_uri = sys.argv[1:]
between = Between()
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)


def connect(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)
    db.execute("PRAGMA wal_autocheckpoint=0")
    return db


def replicate() -> None:
    """Afterwards the publisher has nothing to do: it holds no lock that could change what happens."""
    for db, uri in ((writer, writer_uri), (checkpointer, checkpointer_uri)):
        if "vfs=litestream" in uri:
            db.execute("SELECT litestream_sync(30)").fetchall()


writer = connect(writer_uri)
writer.execute("PRAGMA journal_mode=WAL").fetchall()
checkpointer = connect(checkpointer_uri)
writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, data)")
checkpointer.execute("SELECT count(*) FROM t").fetchall()
# Many frames, all of them copied to the database file. The other connection has not seen this state of the index yet.
for _ in range(30):
    writer.execute("INSERT INTO t(data) VALUES (randomblob(5000))")
replicate()
checkpointed = writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
assert checkpointed[0] == 0 and checkpointed[1] == checkpointed[2] > 60, checkpointed

steps = []


def write_in_between() -> None:
    writer.execute("INSERT INTO t(data) VALUES ('in the middle of the checkpoint')")
    steps.append("restarted")


between.action = write_in_between
checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
# The WAL is shorter than what the checkpoint believes to have copied.
for _ in range(3):
    writer.execute("INSERT INTO t(data) VALUES ('after the checkpoint')")
checkpointer.close()
writer.close()
print(json.dumps({"committed": 30 + 1 + 3, "steps": steps, "sqlite": sqlite3.sqlite_version}))
