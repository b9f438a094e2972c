"""A host unloads the library while its threads run: dlclose, as often as it likes, and sqlite3_close of the connection that
loaded it. The library stays, connections go on, and what they commit arrives.
"""

import sqlite3

import pytest

from harness.litestream import restore
from harness.paths import LIBRARY
from harness.script import run

UNLOAD = """
import _ctypes, ctypes
def unload():
    handle = ctypes.CDLL(library)._handle
    for _ in range(times):
        try:
            _ctypes.dlclose(handle)
        except OSError:  # closed more often than opened
            pass
"""


@pytest.mark.parametrize("times", [1, 5])
def test_dlclose_while_a_database_is_open(times, location, tmp_path):
    run(UNLOAD + """
load()
db = connect(uri)
db.execute("CREATE TABLE t(x)")
unload()
db.execute("INSERT INTO t VALUES (1)")
db.execute("SELECT litestream_sync(30)").fetchall()
db.close()
unload()
again = connect(uri)
again.execute("INSERT INTO t VALUES (2)")
again.close()
""", tmp_path, location.env, library=LIBRARY, times=times, uri=location.primary(tmp_path / "app.db", close_timeout="30s"))
    restored = sqlite3.connect(restore(location, tmp_path / "restored.db"))
    assert restored.execute("SELECT x FROM t ORDER BY x").fetchall() == [(1,), (2,)]


def test_a_library_that_was_never_loaded_by_sqlite_can_go(tmp_path):
    run(UNLOAD + "unload(); load(); unload(); load(); print(one(connect(':memory:'), 'SELECT litestream_version()'))",
        tmp_path, library=LIBRARY, times=1)
