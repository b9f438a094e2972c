import sqlite3, sys
import sqlalchemy
library, uri = sys.argv[1:]
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
engine = sqlalchemy.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, check_same_thread=False),
                                  poolclass=sqlalchemy.pool.QueuePool)
with engine.begin() as db:
    db.exec_driver_sql("CREATE TABLE t(x)")
print("ready", flush=True)
sys.stdin.readline()
try:
    with engine.begin() as db:
        db.exec_driver_sql("INSERT INTO t VALUES (1)")
except sqlalchemy.exc.DBAPIError as e:
    print(f"{type(e).__name__}: {str(e).splitlines()[0]}")
with engine.begin() as db:
    print(db.exec_driver_sql("SELECT count(*) FROM t").scalar())
