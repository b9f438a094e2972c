import sqlite3
import sys

_, library, primary, replica, _ = sys.argv
first = sqlite3.connect(":memory:")
first.enable_load_extension(True)
first.load_extension(library)

db = sqlite3.connect(primary, uri=True)
db.execute("CREATE TABLE t(x)")
db.execute("INSERT INTO t VALUES (41)")
db.commit()
db.execute("SELECT litestream_sync()").fetchall()
reader = sqlite3.connect(replica, uri=True)
print(reader.execute("SELECT x + 1 FROM t").fetchone()[0])
