"""Counts in a database that others count in too, until it is killed.

    python counter_main.py LIBRARY URI NAME SECONDS LOG

Each transaction adds one to the row NAME and to the total. A line goes to LOG after each commit.
"""

import os
import sqlite3
import sys
import time



def main(library: str, uri: str, name: str, seconds: float, log: str) -> None:
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(library)
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    db.execute("PRAGMA wal_autocheckpoint=100")
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO counter VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET n = n + 1", (name,))
        db.execute("UPDATE total SET n = n + 1")
        db.execute("COMMIT")
        os.write(out, b"+\n")
        count += 1
        if count % 500 == 0:
            db.execute(("PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint(RESTART)")[count // 500 % 2])
    db.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5])
