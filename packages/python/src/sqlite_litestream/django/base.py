"""Django's SQLite engine, on databases that replicate and on replicas."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import base, client

from .._connect import SQLITE3, uri
from .._library import load_into_process, loadable_path

_DJANGO = SQLITE3 | {"transaction_mode", "init_command", "uri"}
"""What else in `OPTIONS` is not for the library."""


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of Django and `sqlite3`, and those of the library."""
    theirs = {name: value for name, value in options.items() if name in _DJANGO}
    return theirs, {name: value for name, value in options.items() if name not in _DJANGO}


class DatabaseClient(client.DatabaseClient):  # type: ignore[misc]
    """`dbshell`: SQLite's shell, with the library in it."""

    @classmethod
    def settings_to_cmd_args_env(cls, settings_dict: Any, parameters: Any) -> Any:
        name = uri(settings_dict["NAME"], **_split(settings_dict["OPTIONS"])[1])
        opening = ["-cmd", f".load '{loadable_path()}'", "-cmd", f".open '{name}'"]
        return [cls.executable_name, *opening, *parameters], None


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]
    """A connection whose database is opened with `vfs=litestream`; databases in memory, as tests have them, are not."""

    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        options, (theirs, ours) = self.settings_dict["OPTIONS"], _split(self.settings_dict["OPTIONS"])
        self.settings_dict["OPTIONS"] = theirs
        try:
            parameters: dict[str, Any] = super().get_connection_params()
        finally:
            self.settings_dict["OPTIONS"] = options
        if not self.is_in_memory_db():
            parameters["database"] = uri(self.settings_dict["NAME"], **ours)
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        load_into_process()
        return super().get_new_connection(conn_params)
