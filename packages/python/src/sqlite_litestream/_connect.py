"""Connections to databases that replicate, and to replicas."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime, timedelta
from typing import Any, Sequence, Union
from urllib.parse import quote

from ._library import load_into_process

SQLITE3 = {"timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "autocommit"}
"""What belongs to `sqlite3.connect`; everything else is a setting of the library."""

Replica = Union[str, Sequence[str], None]


def connect(path: str | os.PathLike[str], replica: Replica = None, *, role: str | None = None, **settings: Any) -> sqlite3.Connection:
    """Open `path` as a primary that replicates, or a replica to read. The answer is an ordinary `sqlite3.Connection`.

    `replica` is the URL of the replica, or several; without it the configuration file must have an entry for `path`.
    `role="replica"` reads the replica: then nothing of `path` is read or written. `settings` are those that `docs/settings.md` lists
    (`sync_interval="5s"`, `endpoint=…`) and the keywords of `sqlite3.connect` (`timeout`, `isolation_level`, …).

    Raises `NotLoadable` if this Python cannot load extensions, `sqlite3.OperationalError` with the reason if the open is refused.
    """
    keywords = {name: settings.pop(name) for name in SQLITE3 & settings.keys()}
    load_into_process()
    connection: sqlite3.Connection = sqlite3.connect(uri(path, replica, role=role, **settings), uri=True, **keywords)
    return connection


def uri(path: str | os.PathLike[str], replica: Replica = None, *, role: str | None = None, **settings: Any) -> str:
    """The URI that opens `path` so, for hosts that open databases themselves, such as `apsw` and connection pools."""
    replicas = [replica] if isinstance(replica, str) else list(replica or [])
    parameters: list[tuple[str, Any]] = [("vfs", "litestream"), *(("replica", url) for url in replicas)]
    if role == "replica":
        parameters.append(("mode", "ro"))
    elif role is not None:
        parameters.append(("role", role))
    parameters += [(name, value) for name, value in settings.items() if value is not None]
    query = "&".join(f"{name}={quote(text(value), safe='/:.-_~@,')}" for name, value in parameters)
    return f"file:{quote(os.fsencode(path), safe='/.-_~')}?{query}"


def text(value: Any) -> str:
    """A setting's value as settings are written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta):
        return f"{round(value.total_seconds() * 1000)}ms"
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat()
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
