import apsw, sys
library, uri = sys.argv[1:]
loader = apsw.Connection(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
db = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
db.execute("CREATE TABLE t(x)")
print("ready", flush=True)
sys.stdin.readline()
try:
    db.execute("INSERT INTO t VALUES (1)")
except apsw.Error as e:
    print(f"{type(e).__name__}: {e}")
print(db.execute("SELECT count(*) FROM t").fetchone()[0])
