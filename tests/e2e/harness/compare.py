"""The content of a database, for equality. Runs in this process and inside the workers."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Query = Callable[[str], Iterable[tuple]]


@dataclass(frozen=True)
class Content:
    """Everything of a database that its users can see. `page_count` pages of `page_size` bytes."""

    integrity: str
    page_size: int
    page_count: int
    user_version: int
    application_id: int
    schema: tuple
    tables: dict  # name: (rows, SHA-256 of all values in order)

    def to_json(self) -> dict:
        return self.__dict__ | {"schema": [list(r) for r in self.schema]}

    @classmethod
    def from_json(cls, value: dict) -> "Content":
        value = dict(value)
        value["schema"] = tuple(tuple(r) for r in value["schema"])
        value["tables"] = {k: tuple(v) for k, v in value["tables"].items()}
        return cls(**value)


def content(query: Query) -> Content:
    """Reads all of a database through `query`, which runs one statement and gives its rows."""

    def one(sql: str):
        return next(iter(query(sql)))[0]

    query("BEGIN")
    try:
        schema = tuple(tuple(r) for r in query("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2"))
        stored = [(name, sql) for kind, name, _, sql in schema if kind == "table" and not _is_virtual(sql)]
        return Content(
            integrity="\n".join(r[0] for r in query("PRAGMA integrity_check")),
            page_size=one("PRAGMA page_size"),
            page_count=one("PRAGMA page_count"),
            user_version=one("PRAGMA user_version"),
            application_id=one("PRAGMA application_id"),
            schema=schema,
            tables={name: _rows(query, name) for name, _ in stored},
        )
    finally:
        query("COMMIT")


def _is_virtual(sql: str | None) -> bool:
    return bool(sql) and sql.lstrip().upper().startswith("CREATE VIRTUAL")


def _rows(query: Query, table: str) -> tuple[int, str]:
    """Rows in the order of the table's own B-tree."""
    digest, count = hashlib.sha256(), 0
    name = table.replace('"', '""')
    for row in query(f'SELECT * FROM "{name}" NOT INDEXED'):
        for value in row:
            data = value if isinstance(value, bytes) else repr(value).encode()
            digest.update(f"{type(value).__name__}:{len(data)}:".encode() + data)
        digest.update(b"\n")
        count += 1
    return count, digest.hexdigest()


def differing_pages(a, b, page_size: int) -> list[int]:
    """The numbers of the pages in which two database files differ, in bytes; sizes included."""
    with open(a, "rb") as file_a, open(b, "rb") as file_b:
        differing, pgno = [], 0
        while True:
            page_a, page_b = file_a.read(page_size), file_b.read(page_size)
            if not page_a and not page_b:
                return differing
            pgno += 1
            if page_a != page_b:
                differing.append(pgno)
