"""A connection keeps its lock while other connections of its process, and ours, are opened and closed.

The story: on a busy machine a service opens its database, and an operator looks at it with a plain `sqlite3` shell, writes a
row and leaves. The shell was the last to close, as it seemed to it: it took the database for itself, checkpointed and deleted
the WAL. What the service committed from then on went into a file without a name, and was gone at its end.

The service had lost its lock when it began. On POSIX the close of any descriptor of a file releases all locks that the process
has on it. SQLite keeps a descriptor open while one of its connections holds a lock, but it looks first and closes then, and the
lock of another thread can come in between: here that of the first statement, while a look at the new file ended.
"""

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

import pytest

from harness.sql import fill, insert, restore, sync

SHIM = Path(__file__).parent / "harness" / "slow_close.c"
# The bytes that SQLite locks (`os_unix.c`): SHARED_FIRST and SHARED_SIZE.
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
FLOCK = "hhqqi4x"


@pytest.fixture
def slow_closes(tmp_path) -> dict:
    """The environment of a host in which the close of `app.db` takes long."""
    shim = tmp_path / "slow_close.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, SHIM], check=True)
    return {"LD_PRELOAD": str(shim), "SLOW_CLOSE": "/app.db"}


def who_has_shared(database: Path) -> int | None:
    """The process that holds SHARED on the database, as the kernel tells another one that wants more."""
    fd = os.open(database, os.O_RDWR)
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, SHARED_FIRST, SHARED_SIZE, 0)
        kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else pid
    finally:
        os.close(fd)


def test_the_first_statements_of_a_new_database(start, in_folder, tmp_path, slow_closes):
    host = start("python", in_folder, env=slow_closes)
    for n in range(25):
        folder = tmp_path / str(n)
        folder.mkdir()
        primary = host.open(f"file:{folder}/app.db?vfs=litestream&replica=file://{folder}/replica&watch_interval=200ms")
        primary.run("CREATE TABLE a (b)")
        # The next statement meets what the first one set off at another moment each time.
        time.sleep(n / 250)
        primary.run("INSERT INTO a VALUES (1)")
        assert who_has_shared(folder / "app.db") == host.pid, f"database {n}"
        subprocess.run(["sqlite3", folder / "app.db", "INSERT INTO a VALUES (2)"], check=True)
        primary.run("INSERT INTO a VALUES (3)")
        sync(primary)
        primary.close()
        restored = host.open(folder / "app.db", "plain")
        assert restored.rows("SELECT b FROM a ORDER BY b") == [[1], [2], [3]]
        restored.close()


def test_connections_that_come_and_go(start, in_folder, tmp_path, slow_closes):
    """One thread opens, reads and closes connection after connection; those of another keep theirs."""
    uri = in_folder.primary(tmp_path / "app.db")
    host = start("python", in_folder, env=slow_closes)
    primary = host.open(uri)
    fill(primary, rows=100)
    primary.close()
    host.call("come_and_go", target=uri)
    for n in range(20):
        kept = host.open(uri, f"kept{n}")
        assert kept.one("SELECT count(*) FROM t") == 100
        assert who_has_shared(tmp_path / "app.db") == host.pid, f"connection {n}"
        kept.close()
    host.call("came_and_went")
    primary = host.open(uri)
    insert(primary)
    sync(primary)
    restore(primary, in_folder, tmp_path / "restored.db")
    restored = host.open(tmp_path / "restored.db", "restored")
    assert restored.content() == primary.content()
