"""Processes whose commits wait are killed at any moment, and their machines lose their disks or their power.

Each commit that returned is in the replica after kill -9, with the disk thrown away; and after a power failure with the disk
kept, of which only what was synced is left, in the database and in the replica. `scripts/commits.py` runs it for as long as one
likes.
"""

from harness import commits


def test_what_returned_survives_kills_and_power_failures(location, tmp_path):
    report = commits.run(rounds=4, seed=1, location=location, folder=tmp_path, seconds=1.5)
    assert report["kills"] == 6 and report["power_failures"] == 2 and report["acked"] > 10
