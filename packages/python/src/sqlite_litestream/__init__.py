"""SQLite databases that replicate to object storage, and read replicas that need nothing local.

The work is done by a SQLite extension, a shared library that this package carries; what is here loads it.

    import sqlite_litestream

    db = sqlite_litestream.connect("app.db", replica="s3://bucket/app")
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    db.execute("SELECT litestream_sync()")

    reader = sqlite_litestream.connect("app.db", replica="s3://bucket/app", role="replica")
    sqlite_litestream.restore("s3://bucket/app", "restored.db")
    sqlite_litestream.follow("s3://bucket/app", "copy.db")
"""

from importlib.metadata import version as _version

from ._connect import connect, uri
from ._library import NotLoadable, load, load_into_process, loadable_path
from ._restore import follow, restore, unfollow

__version__ = _version("sqlite-litestream")

__all__ = ["NotLoadable", "__version__", "connect", "follow", "load", "load_into_process", "loadable_path", "restore", "unfollow", "uri"]
