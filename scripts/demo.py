#!/usr/bin/env python3
"""The whole life of a replicated database in one process: primary, replica, restore.

Ends with an error unless the restored file is equal to the source, byte for byte.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
LIBRARY = os.environ.get("LITESTREAM_VFS_LIB") or str(
    Path(__file__).resolve().parents[1] / "dist" / f"litestream_vfs{SUFFIX}")


def connect(target: str):
    """A connection in autocommit mode, from `sqlite3` if it loads extensions, else from `apsw`."""
    import sqlite3

    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return sqlite3.connect(target, uri=True, isolation_level=None)
    import apsw

    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    return apsw.Connection(target, flags=flags)


def one(connection, sql: str, *parameters):
    """The first value of the first row."""
    return next(iter(connection.execute(sql, parameters)))[0]


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="litestream-demo-") as name:
        folder = Path(name)
        replica_url = f"file://{folder}/replica"

        step("load the library")
        plain = connect(":memory:")
        plain.enable_load_extension(True)
        plain.load_extension(LIBRARY)
        print("litestream_version():", one(plain, "SELECT litestream_version()"))

        step("primary: an ordinary SQLite file that replicates each commit")
        uri = f"file:{folder}/app.db?vfs=litestream&replica={replica_url}"
        print(uri)
        primary = connect(uri)
        primary.execute("CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT)")
        for number in range(1000):
            primary.execute("INSERT INTO note(text) VALUES (?)", (f"note {number}",))
        print("litestream_sync():", one(primary, "SELECT litestream_sync()"))

        step("replica: nothing local, pages come from the replica")
        print(uri + "&mode=ro")
        replica = connect(uri + "&mode=ro")
        print("rows on the replica:", one(replica, "SELECT count(*) FROM note"))

        step("the replica follows")
        primary.execute("INSERT INTO note(text) VALUES ('one more')")
        one(primary, "SELECT litestream_sync()")
        began = time.monotonic()
        while one(replica, "SELECT count(*) FROM note") != 1001:
            if time.monotonic() - began > 10:
                sys.exit("the replica did not see the new row")
            time.sleep(0.01)
        print(f"the new row is there after {time.monotonic() - began:.2f} s")

        step("restore")
        print(one(plain, "SELECT litestream_restore(?, ?)", replica_url, str(folder / "restored.db")))

        step("compare")
        list(primary.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
        source, restored = (folder / "app.db").read_bytes(), (folder / "restored.db").read_bytes()
        if source != restored:
            sys.exit("the restored database differs from the source")
        print(f"the restored database is equal to the source: {len(source)} bytes")
        for connection in (replica, primary, plain):
            connection.close()


if __name__ == "__main__":
    main()
