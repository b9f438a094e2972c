"""Makes the replicas in this folder again, with Litestream 0.3.13 (`make tools`):

    .venv/bin/python tests/golden/litestream-0.3/make.py

`plain` and `age` hold `generations/` as Litestream writes it, with several snapshots, WAL files and segments,
and `database`, what Litestream 0.3.13 itself restores from it. `identity` opens `age`; it guards nothing else.
"""

import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "e2e"))

from harness import age  # noqa: E402
from harness.litestream03 import Replicate, segments, snapshots, wal_indexes  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.wait import until  # noqa: E402


def make(folder: Path, keys: tuple[str, str] | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    location = Location.file(folder)
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "app.db"
        db = sqlite3.connect(database, isolation_level=None)
        db.executescript("PRAGMA page_size=512; PRAGMA journal_mode=WAL; CREATE TABLE t(x)")
        with Replicate(database, location, Path(scratch), keys=keys, snapshot="1s", checkpoint_pages=20) as theirs:
            began = time.monotonic()
            while len(wal_indexes(location)) < 3 or len(snapshots(location)) < 2:
                assert time.monotonic() - began < 30
                before = len(segments(location))
                db.execute("INSERT INTO t VALUES (randomblob(700))")
                until(lambda: len(segments(location)) > before, 10, "the next segment")
            (folder / "database").write_bytes(theirs.restore(Path(scratch) / "restored.db").read_bytes())
        db.close()


if __name__ == "__main__":
    keys = age.generate()
    make(HERE / "plain", None)
    make(HERE / "age", keys)
    (HERE / "identity").write_text(keys[0] + "\n")
