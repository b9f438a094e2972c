"""sqlite-utils has the functions: `sqlite-utils query :memory: "SELECT litestream_restore('s3://bucket/app', 'app.db')"`."""

from __future__ import annotations

import sqlite3

from sqlite_utils import hookimpl

from ._library import load


@hookimpl
def prepare_connection(conn: sqlite3.Connection) -> None:
    load(conn)
