import os, sys
import django
from django.conf import settings
replica, endpoint = os.environ["REPLICA"], os.environ["ENDPOINT"]
options = {"replica": replica, "endpoint": endpoint, "commit": "replicated", "commit_timeout": "300ms"}
settings.configure(DATABASES={"default": {"ENGINE": "sqlite_litestream.django", "NAME": "app.db", "OPTIONS": options}})
django.setup()
from django.db import connection, transaction
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE t(x)")
print("ready", flush=True)
sys.stdin.readline()
try:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)")
except django.db.Error as e:
    print(f"{type(e).__name__}: {e}")
with connection.cursor() as cursor:
    print(cursor.execute("SELECT count(*) FROM t").fetchone()[0])
