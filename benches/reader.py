"""A process that reads a database and says how long it took: one JSON object a line, in and out.

    {"op": "load", "path": …, "entry": …}          loads an extension
    {"op": "open", "uri": …, "count": n}           opens n connections; the last one is used from then on
    {"op": "run", "statements": [[sql, params]…]}  runs them on that connection; rows are fetched and digested
    {"op": "peak"}                                 only answers

Each answer has the seconds, a digest of the rows, resident KiB now and at most, and the pages that SQLite
asked the VFS for.
"""

import hashlib
import json
import sys
import time

import apsw

connections: list[apsw.Connection] = []


def load(path: str, entry: str | None) -> None:
    loader = apsw.Connection(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(path, entry)


def open_all(uri: str, count: int) -> None:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    for _ in range(count):
        connections.append(apsw.Connection(uri, flags=flags))


def run(statements: list) -> str:
    digest = hashlib.sha256()
    for sql, params in statements:
        for row in connections[-1].execute(sql, params):
            digest.update(repr(row).encode())
    return digest.hexdigest()[:12]


def status(field: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def pages_read() -> int:
    return connections[-1].status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0] if connections else 0


def answer(request: dict) -> dict:
    pages, began = pages_read(), time.perf_counter()
    digest = None
    match request.pop("op"):
        case "load":
            load(**request)
        case "open":
            open_all(**request)
        case "run":
            digest = run(**request)
    return {"seconds": time.perf_counter() - began, "digest": digest, "pages": pages_read() - pages,
            "rss_kib": status("VmRSS"), "peak_kib": status("VmHWM")}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
