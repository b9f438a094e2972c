import sys

import apsw

_, library, primary, replica, _ = sys.argv
first = apsw.Connection(":memory:")
first.enable_load_extension(True)
first.load_extension(library)

flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
db = apsw.Connection(primary, flags)
db.execute("CREATE TABLE t(x); INSERT INTO t VALUES (41); SELECT litestream_sync()").fetchall()
reader = apsw.Connection(replica, flags)
print(reader.execute("SELECT x + 1 FROM t").fetchone()[0])
