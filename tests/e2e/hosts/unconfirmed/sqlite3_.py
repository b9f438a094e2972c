import sqlite3, sys
library, uri = sys.argv[1:]
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
db = sqlite3.connect(uri, uri=True, isolation_level=None)
db.execute("CREATE TABLE t(x)")
print("ready", flush=True)
sys.stdin.readline()
try:
    db.execute("INSERT INTO t VALUES (1)")
except sqlite3.Error as e:
    print(f"{type(e).__name__}: {e}")
print(db.execute("SELECT count(*) FROM t").fetchone()[0])
