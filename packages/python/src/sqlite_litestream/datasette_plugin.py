"""Datasette serves replicas: each of `replicas` in the plugin's configuration is a database that follows its primary."""

from __future__ import annotations

import sqlite3
from typing import Any

from datasette import hookimpl
from datasette.database import Database

from ._connect import connect


class Replica(Database):  # type: ignore[misc]
    """A database that is read where it is replicated to."""

    def __init__(self, datasette: Any, name: str, url: str):
        super().__init__(datasette, path=name + ".db")
        self.cached_size, self.url = 0, url

    def connect(self, write: bool = False) -> sqlite3.Connection:
        return connect(self.path, self.url, role="replica", check_same_thread=False)

    @property
    def mtime_ns(self) -> None:
        """There is no file."""


@hookimpl  # type: ignore[untyped-decorator]
def startup(datasette: Any) -> None:
    config = datasette.plugin_config("sqlite-litestream") or {}
    for name, url in config.get("replicas", {}).items():
        datasette.add_database(Replica(datasette, name, url), name=name)
