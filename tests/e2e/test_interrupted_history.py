"""The process is killed, or its store fails, while it merges files, makes a snapshot, or deletes what is too old.

Whatever was done by half, the replica restores to a state that the database had, and once nothing fails any
more the history is as tidy as if nothing had happened. `scripts/interrupted.py` does it for as long as one likes.
"""

import pytest

from harness import interrupted


@pytest.mark.slow
def test_interruptions_of_compaction_snapshots_and_retention(s3, in_s3, tmp_path):
    report = interrupted.run(15, 1, s3, in_s3, tmp_path)
    kills = sum(n for what, n in report["happened"].items() if "killed" in what)
    assert 3 < kills < 15 and len({what.split()[0] for what in report["happened"]}) == 4, report
