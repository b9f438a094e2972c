"""The life of a container, again and again: an empty folder, the database comes back, a client writes, the process is ended or
killed, and the folder is gone."""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .location import Location
from .paths import SYSTEM_PYTHON, clean_env
from .script import PREAMBLE

# It numbers its rows, and says after each sync up to which number they are in the replica. On SIGTERM it ends as servers do.
PROGRAM = PREAMBLE + """
import json
uri, rows = sys.argv[1], int(sys.argv[2])
load()
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(True))
db = connect(uri)
db.execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, x)")
last = one(db, "SELECT coalesce(max(n), 0) FROM t")
print(json.dumps({"found": last, "count": one(db, "SELECT count(*) FROM t")}), flush=True)
while not ends:
    db.execute("BEGIN")
    for _ in range(rows):
        last += 1
        db.execute("INSERT INTO t VALUES (?, randomblob(200))", (last,))
    db.execute("COMMIT")
    one(db, "SELECT litestream_sync(30)")
    print(json.dumps({"synced": last}), flush=True)
db.close()
"""


def run(rounds: int, seed: int, location: Location, folder: Path, seconds: float = 1.0,
        say: Callable[[str], None] = lambda line: None) -> dict[str, int]:
    """`rounds` lives of up to `seconds`; half of them end by SIGTERM. Counts what was confirmed and found again."""
    chance, disk = random.Random(seed), folder / "disk"
    confirmed, report = 0, {"terminated": 0, "killed": 0, "rows": 0}
    for number in range(1, rounds + 1):
        disk.mkdir()
        end = signal.SIGTERM if number % 2 else signal.SIGKILL
        lines = _live(location, disk, chance.uniform(0.2, seconds), chance.randint(1, 50), end)
        found = lines[0]["found"]
        assert found >= confirmed, f"round {number}: {confirmed} rows were confirmed, {found} came back"
        assert lines[0]["count"] == found, f"round {number}: rows are missing before {found}"
        confirmed = max([found, *(line["synced"] for line in lines[1:])])
        report["terminated" if end == signal.SIGTERM else "killed"] += 1
        report["rows"] = confirmed
        say(f"round {number}: {end.name}, {found} rows found, {confirmed} confirmed")
        shutil.rmtree(disk)
        assert location.gaps() == []
    return report


def _live(location: Location, disk: Path, seconds: float, rows: int, end: signal.Signals) -> list[dict]:
    """What one life printed."""
    uri = location.primary(disk / "app.db", restore="missing", sync_interval="50ms")
    process = subprocess.Popen([SYSTEM_PYTHON, "-c", PROGRAM, uri, str(rows)], stdout=subprocess.PIPE, text=True,
                               env=clean_env(**location.env))
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(end)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == (0 if end == signal.SIGTERM else -signal.SIGKILL), process.returncode
    # The last line may be cut by a kill.
    return [json.loads(line) for line in [first, *rest.splitlines(keepends=True)] if line.endswith("\n")]
