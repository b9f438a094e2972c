"""Statements of the library that need no database, on a connection of their own."""

from __future__ import annotations

import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from ._connect import text
from ._library import NotLoadable, load


def restore(url: str, path: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Write the database file `path` from the replica at `url`, and return the report.

    `url` may also be the path of a database that the configuration file has: then its first replica is restored. `options`
    are those of `litestream_restore`: `force`, `timestamp` (text or `datetime`), `txid`, `if_db_not_exists`,
    `if_replica_exists`, `integrity_check`, `parallelism`, `dry_run`, `rewind`, `age_identity_file`,
    `plain_until`, and settings of the store.

    The report has `restored`, `path`, `txid`, `timestamp`, `pages`, `bytes`, `files`, `duration`; `reason` if nothing was to
    be done. Control-C ends it and leaves nothing behind. Raises `sqlite3.OperationalError` with the reason.
    """
    given = {name: value for name, value in options.items() if value is not None}
    [[report]] = query("SELECT litestream_restore(?, ?, ?)", os.fspath(url), os.fspath(path), dumps(given))
    answer: dict[str, Any] = json.loads(report)
    return answer


def follow(url: str, path: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Have the database file `path` follow the replica at `url`, in this process until its end or `unfollow`.

    If the file is not there it is made first; one that followed before continues. Any SQLite program may read it meanwhile.
    `options` are those of `litestream_follow`: `follow_interval`, `bandwidth`, `age_identity_file`, `plain_until`, and settings
    of the store. The report has `path`, `replica`, `txid`, `timestamp`, `pages`, and `restored` if the file was made.
    """
    given = {name: value for name, value in options.items() if value is not None}
    [[report]] = query("SELECT litestream_follow(?, ?, ?)", os.fspath(url), os.fspath(path), dumps(given))
    answer: dict[str, Any] = json.loads(report)
    return answer


def unfollow(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Have the copy `path` follow no more, and return how far it is. `follow` continues it."""
    [[report]] = query("SELECT litestream_unfollow(?)", os.fspath(path))
    answer: dict[str, Any] = json.loads(report)
    return answer


def dumps(options: dict[str, Any]) -> str:
    """Options as the functions take them."""
    return json.dumps({name: text(value) if isinstance(value, datetime) else value for name, value in options.items()}, default=text)


def query(sql: str, *parameters: Any) -> list[list[Any]]:
    """The rows of a statement, on a connection that may write files and reach stores. Control-C interrupts it."""
    own = connection()
    try:
        with ThreadPoolExecutor(1) as pool:
            rows = pool.submit(lambda: [list(row) for row in own.execute(sql, parameters)])
            try:
                return rows.result()
            except KeyboardInterrupt:
                own.interrupt()
                raise
    except Exception as error:
        if isinstance(error, sqlite3.Error):
            raise
        wrapped: Any = sqlite3.OperationalError(str(error))
        wrapped.sqlite_errorcode = getattr(error, "extendedresult", 0)
        raise wrapped from error
    finally:
        own.close()


def connection() -> Any:
    """A connection that may write files and reach stores, of any thread."""
    own: Any = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        load(own)
    except NotLoadable:
        own.close()
        try:
            import apsw
        except ImportError:
            pass
        else:
            own = apsw.Connection(":memory:")
            load(own)
            return own
        raise
    except BaseException:
        own.close()
        raise
    return own
