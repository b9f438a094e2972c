"""A database with several replicas."""

import json
from pathlib import Path
from urllib.parse import quote

from . import litestream
from .compare import Content
from .location import Location, sqlite_uri
from .sql import restore, status
from .worker import Connection


def primary_of(database: Path | str, *locations: Location, **parameters: object) -> str:
    """The URI that opens `database` as the primary of all `locations`, each with its settings in its own query."""
    replicas = "".join(f"&replica={quote(location.full_url, safe='/:.-_~?=')}" for location in locations)
    return sqlite_uri(database, vfs="litestream", **parameters) + replicas


def states(db: Connection) -> dict[str, dict]:
    """The rows of the database in `litestream_status()`, by the URL of the replica, in their order."""
    return {row["url"]: row for row in json.loads(status(db))["databases"]}


def content(db: Connection, path: Path) -> Content:
    """All that is in a database file."""
    opened = db.worker.open(path, path.name)
    found = opened.content()
    opened.close()
    return found


def assert_each_is(db: Connection, folder: Path, *locations: Location, name: str = "restored") -> None:
    """This library and Litestream restore from each replica what the database holds."""
    source = db.content()
    assert source.integrity == "ok"
    for n, location in enumerate(locations):
        assert location.gaps() == []
        ours, theirs = folder / f"{name}.{n}.ours.db", folder / f"{name}.{n}.theirs.db"
        restore(db, location, ours)
        litestream.restore(location, theirs)
        assert content(db, ours) == source, location.url
        assert content(db, theirs) == source, location.url


def bytes_in(location: Location) -> int:
    """The size of what was published and of full copies: merges come by the clock, and the first holds the first copy again."""
    return sum(file.size for file in location.files(0, 9))
