"""A checkpoint that overlaps the restart of the WAL loses no commit.

SQLite 3.7.0 to 3.51.2, but 3.44.6 and 3.50.7, has the WAL-reset bug (https://www.sqlite.org/wal.html#walresetbug). The
story: a checkpoint reads the WAL index, in which all is copied already; before it goes on, a writer restarts the WAL and
commits a little; the checkpoint then notes as copied what is not in the WAL yet. What is committed next is lost when the
last connection closes. Here the steps are forced by a VFS below ours, so that it happens every time.

The guard works from either side: it is enough that the checkpoint or the writer goes through us.
"""

import json
import sqlite3 as of_this_python
import subprocess

import pytest

from harness.location import sqlite_uri
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env

MAIN = __file__.replace("test_wal_reset.py", "harness/wal_reset_main.py")


def overlap(tmp_path, checkpointer: str, writer: str) -> tuple[int, int]:
    """Rows that were committed, and rows that are there afterwards."""
    done = subprocess.run([SYSTEM_PYTHON, MAIN, str(LIBRARY), checkpointer, writer], env=clean_env(), cwd=tmp_path,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["steps"] == ["restarted"], "the writer did not come in between"
    there = of_this_python.connect(tmp_path / "app.db").execute("SELECT count(*) FROM t NOT INDEXED").fetchone()[0]
    return report["committed"], there


@pytest.fixture
def plain(tmp_path) -> str:
    return sqlite_uri(tmp_path / "app.db")


@pytest.fixture
def affected() -> None:
    script = "import sqlite3; print(*sqlite3.sqlite_version_info)"
    version = tuple(map(int, subprocess.check_output([SYSTEM_PYTHON, "-c", script], text=True).split()))
    if not (3, 7, 0) <= version < (3, 51, 3) or version[:2] in ((3, 44), (3, 50)):
        pytest.skip(f"SQLite {version} does not have the bug")


def test_this_sqlite_loses_commits(affected, plain, tmp_path):
    committed, there = overlap(tmp_path, plain, plain)
    assert there < committed


def test_without_the_guard_commits_are_lost_through_us_too(affected, in_folder, tmp_path):
    uri = in_folder.primary(tmp_path / "app.db", wal_reset_guard="false")
    committed, there = overlap(tmp_path, uri, uri)
    assert there < committed


def test_with_the_guard_no_commit_is_lost(in_folder, tmp_path):
    uri = in_folder.primary(tmp_path / "app.db")
    committed, there = overlap(tmp_path, uri, uri)
    assert there == committed


def test_our_checkpoint_loses_no_commit_of_a_plain_writer(in_folder, plain, tmp_path):
    committed, there = overlap(tmp_path, in_folder.primary(tmp_path / "app.db"), plain)
    assert there == committed


def test_our_commits_are_not_lost_by_a_plain_checkpoint(in_folder, plain, tmp_path):
    committed, there = overlap(tmp_path, plain, in_folder.primary(tmp_path / "app.db"))
    assert there == committed
