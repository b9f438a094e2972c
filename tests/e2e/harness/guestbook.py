"""A web application for gunicorn: each POST adds a row, GET counts them. Replicated by the library under test.

The master loads the library and opens the database before it forks its workers (`--preload`); each worker opens a connection
of its own at its first request. From the environment: LITESTREAM_VFS_LIB, GUESTBOOK_URI; GUESTBOOK_LAZY: the master opens nothing.
"""

import os
import threading

import apsw


def connect() -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    db = apsw.Connection(os.environ["GUESTBOOK_URI"], flags=flags)
    db.set_busy_timeout(30_000)
    return db


loader = apsw.Connection(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["LITESTREAM_VFS_LIB"])
if "GUESTBOOK_LAZY" not in os.environ:
    master = connect()
    """The master's own connection. No worker uses it."""
    master.execute("CREATE TABLE IF NOT EXISTS entry(pid INTEGER)")
mine = threading.local()


def application(environ, start_response):
    if not hasattr(mine, "db"):
        mine.db = connect()
        mine.db.execute("CREATE TABLE IF NOT EXISTS entry(pid INTEGER)")
    if environ["REQUEST_METHOD"] == "POST":
        mine.db.execute("INSERT INTO entry VALUES (?)", (os.getpid(),))
    count = mine.db.execute("SELECT count(*) FROM entry").fetchall()[0][0]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {count}".encode()]
