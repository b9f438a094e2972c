"""The child's side of a Python host: one JSON request a line in, one JSON answer a line out.

    python worker_main.py sqlite3|apsw|sqlcipher|sqlite3mc

`sqlite3` is the standard library's module, `apsw` the package; `sqlcipher` and `sqlite3mc` are the same with a SQLite that
encrypts. All answer the same requests.
"""

import base64
import ctypes
import json
import os
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True

from harness.compare import content  # noqa: E402


class Sqlite3:
    """The standard library's module."""

    def __init__(self):
        import sqlite3

        self.module = sqlite3

    def open(self, target, timeout):
        return self.module.connect(target, uri=True, isolation_level=None, timeout=timeout)

    def load(self, connection, path, entry):
        if entry:
            # 3.11 has no entry argument; the SQL function has.
            connection.enable_load_extension(True)
            connection.execute("SELECT load_extension(?, ?)", (path, entry)).fetchall()
        else:
            connection.enable_load_extension(True)
            connection.load_extension(path)


class Apsw:
    """The package, with a copy of SQLite of its own."""

    def __init__(self):
        import apsw

        self.module = apsw

    def open(self, target, timeout):
        module = self.module
        flags = module.SQLITE_OPEN_READWRITE | module.SQLITE_OPEN_CREATE | module.SQLITE_OPEN_URI
        connection = module.Connection(target, flags=flags)
        connection.set_busy_timeout(int(timeout * 1000))
        return connection

    def load(self, connection, path, entry):
        connection.enable_load_extension(True)
        connection.load_extension(path, entry)


class Sqlcipher(Sqlite3):
    """The module of the standard library, on SQLCipher."""

    def __init__(self):
        from sqlcipher3 import dbapi2

        self.module = dbapi2


class Sqlite3mc(Apsw):
    """The package, on SQLite3MultipleCiphers."""

    def __init__(self):
        sys.path.insert(0, os.environ["SQLITE3MC"])
        super().__init__()


class Worker:
    def __init__(self, host):
        self.host = host
        self.connections = {}

    def op_load(self, path, entry=None):
        connection = self.host.open(":memory:", 0)
        try:
            self.host.load(connection, path, entry)
        finally:
            connection.close()

    def op_load_on(self, name, path):
        self.host.load(self.connections[name], path, None)

    def op_open(self, name, target, timeout=10):
        self.connections[name] = self.host.open(target, timeout)

    def op_close(self, name):
        self.connections.pop(name).close()

    def op_exec(self, name, sql, params=()):
        cursor = self.connections[name].cursor()
        return [list(row) for row in cursor.execute(sql, tuple(params))]

    def op_interrupted(self, name, sql, after, params=()):
        """Runs a statement that another thread interrupts after so many seconds."""
        timer = threading.Timer(after, self.connections[name].interrupt)
        timer.start()
        try:
            return self.op_exec(name, sql, params)
        finally:
            timer.cancel()

    def op_many(self, name, sql, rows):
        self.connections[name].cursor().executemany(sql, [tuple(r) for r in rows])

    def op_content(self, name):
        connection = self.connections[name]
        # Rows as they come, so that a large table is never in memory as a whole.
        return content(lambda sql: connection.cursor().execute(sql) if sql[:6] == "SELECT"
                       else list(connection.cursor().execute(sql))).to_json()

    def op_cache_misses(self, name):
        """How often the connection did not find a page in SQLite's own cache; only apsw can tell."""
        return self.connections[name].status(self.host.module.SQLITE_DBSTATUS_CACHE_MISS)[0]

    def op_persist_wal(self, name):
        """Has the last close leave the WAL where it is; only apsw can ask for it."""
        on = ctypes.c_int(1)
        self.connections[name].file_control("main", self.host.module.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(on))

    def op_wal_hook(self, name):
        """Installs a WAL hook of the host's own; only apsw can."""
        calls = self.hook_calls = []
        self.connections[name].set_wal_hook(lambda connection, schema, frames: calls.append(frames) or 0)

    def op_hook_calls(self):
        return len(self.hook_calls)

    def op_come_and_go(self, target):
        """A thread opens, reads and closes connections until `came_and_went`."""
        self.going = True

        def come_and_go():
            while self.going:
                connection = self.host.open(target, 10)
                list(connection.cursor().execute("SELECT count(*) FROM sqlite_schema"))
                connection.close()

        self.visitors = threading.Thread(target=come_and_go)
        self.visitors.start()

    def op_came_and_went(self):
        self.going = False
        self.visitors.join()

    def op_env(self, name):
        return os.environ.get(name)


def to_json(value):
    if isinstance(value, (bytes, memoryview)):
        return {"bytes": base64.b64encode(value).decode()}
    raise TypeError(type(value))


def from_json(value):
    return base64.b64decode(value["bytes"]) if set(value) == {"bytes"} else value


def main():
    worker = Worker({"sqlite3": Sqlite3, "apsw": Apsw, "sqlcipher": Sqlcipher, "sqlite3mc": Sqlite3mc}[sys.argv[1]]())
    for line in sys.stdin:
        request = json.loads(line, object_hook=from_json)
        try:
            answer = {"ok": getattr(worker, "op_" + request.pop("op"))(**request)}
        except Exception as e:  # every failure is the caller's to judge
            answer = {"error": [type(e).__name__, str(e)]}
        sys.stdout.write(json.dumps(answer, default=to_json) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
