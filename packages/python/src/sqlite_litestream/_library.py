"""The shared library: where it is, and how a connection loads it."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


class NotLoadable(sqlite3.NotSupportedError):
    """This Python's `sqlite3` module was built without loadable extensions."""


def loadable_path() -> str:
    """The path of the shared library, for hosts that load it themselves. `LITESTREAM_VFS_LIB` names another one."""
    return os.environ.get("LITESTREAM_VFS_LIB") or str(Path(__file__).with_name("litestream_vfs" + _SUFFIX))


def load(connection: Any) -> None:
    """Load the library into `connection`, of `sqlite3`, `apsw`, or a pool that wraps one of them.

    One time is enough for a process: every later connection of it has the VFS and the functions. On a connection that was
    given here, SQL may also call what writes files and takes URLs, such as `litestream_restore`. Whether the connection may
    load extensions is the same afterwards as before.

    Raises `NotLoadable` if the module of the connection cannot load extensions.
    """
    connection = getattr(connection, "driver_connection", None) or connection
    enable = _method(connection, "enable_load_extension", "enableloadextension")
    load_extension = _method(connection, "load_extension", "loadextension")
    by_sql, by_call = _may_by_sql(connection), _may_by_call(connection)
    enable(True)
    try:
        load_extension(loadable_path())
    finally:
        enable(by_sql)
        if by_call and not by_sql:
            _may_by_call(connection, 1)


_is_loaded = False
"""The library was loaded from here. A forked child has it from its parent."""


def load_into_process() -> None:
    """Load the library for every later connection of this process; at once if it is loaded."""
    global _is_loaded
    if not _is_loaded:
        connection = sqlite3.connect(":memory:")
        try:
            load(connection)
        finally:
            connection.close()
        _is_loaded = True


def _method(connection: Any, *names: str) -> Any:
    for name in names:
        if hasattr(connection, name):
            return getattr(connection, name)
    if isinstance(connection, sqlite3.Connection):
        raise NotLoadable(
            f"the sqlite3 module of {sys.executable} was built without loadable extensions; use apsw (pip install apsw, "
            "then sqlite_litestream.load(apsw.Connection(':memory:'))), or a Python that has them: those of Debian, "
            "Ubuntu, Fedora, Homebrew, conda and the Docker images python:3"
        )
    raise TypeError(f"{type(connection).__name__} is no connection of sqlite3 or apsw")


def _may_by_sql(connection: Any) -> bool:
    """Whether `load_extension()` may be called now: SQL is asked, since most modules cannot say it."""
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT load_extension(NULL)")
        cursor.fetchall()
    except Exception:
        return False
    return True


def _may_by_call(connection: Any, to: int | None = None) -> bool:
    """Whether the program may load extensions into the connection now, where its module can say it; or makes it so."""
    option = 1005  # SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION
    if hasattr(connection, "getconfig"):
        if to is not None:
            connection.setconfig(option, bool(to))
        return bool(connection.getconfig(option))
    if hasattr(connection, "config"):
        return bool(connection.config(option, -1 if to is None else to))
    return False
