"""A program lives too short for the first copy of its database, over a slow link: each run begins it again.

Its last close tells how far the copy came, that it is given up, and what to do; so does the status of the next run.
"""

import re
import sqlite3

from harness.litestream import restore
from harness.proxy import Hang
from harness.script import run

GIVEN_UP = r"the copy of the database, which came to (\d+) %, is given up and begins again at the next open: keep the database open"
SHORT_RUN = """
load()
if not os.path.exists("app.db"):
    plain = sqlite3.connect("app.db")
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("CREATE TABLE t(data)"); plain.execute("INSERT INTO t SELECT randomblob(40000000)")
    plain.commit(); plain.close()
db = connect(uri)
deadline = time.monotonic() + 20
while one(db, "SELECT state FROM litestream_status") != "copying":
    assert time.monotonic() < deadline
    time.sleep(0.02)
"""


# Waits until two parts of about eight are there, and prints what a wait says then.
TWO_PARTS = """
import re
deadline = time.monotonic() + 60
while True:
    try:
        db.execute("SELECT litestream_sync(0.5)").fetchall()
    except sqlite3.OperationalError as e:
        if re.search("it is still copying, and came to (1[5-9]|2[0-9]) %", str(e)):
            break
        assert time.monotonic() < deadline, e
"""


def parts_until(proxy, count: int) -> None:
    """The link takes this many parts of an upload, and hangs."""
    taken = []

    def fault(request):
        if request.kind != "PUT":
            return None
        taken.append(request)
        return None if len(taken) <= count else Hang()

    proxy.fault = fault


def test_each_run_is_too_short(through_proxy, in_s3, proxy, tmp_path):
    uri = through_proxy.primary(tmp_path / "app.db", close_timeout="100ms", part_size="5MiB")
    parts_until(proxy, 2)
    first = run(SHORT_RUN + TWO_PARTS + "db.close()", tmp_path, through_proxy.env, uri=uri)
    [percent] = re.findall(GIVEN_UP, first.stderr)
    assert 15 <= int(percent) <= 30, first.stderr
    parts_until(proxy, 2)
    second = run(SHORT_RUN + """
print(one(db, "SELECT notice FROM litestream_status"))
db.close()
""", tmp_path, through_proxy.env, uri=uri)
    assert f"the last copy of the database had come to {percent} % when it was closed, and was given up" in second.stdout
    assert re.search(GIVEN_UP, second.stderr)
    proxy.fault = lambda request: None
    run(SHORT_RUN.partition("deadline")[0] + "db.execute('SELECT litestream_sync(60)'); db.close()", tmp_path,
        through_proxy.env, uri=uri)
    third = run(SHORT_RUN.partition("deadline")[0] + "db.close()", tmp_path, through_proxy.env, uri=uri)
    assert "given up" not in third.stderr
    with sqlite3.connect(restore(in_s3, tmp_path / "restored.db")) as db:
        assert db.execute("SELECT length(data) FROM t").fetchall() == [(40000000,)]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
