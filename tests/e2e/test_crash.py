"""A process that several threads write through is killed or closed at any moment, again and again.

What `litestream_sync` answered for is in the replica right after the kill, no transaction is there by
half, and after the next open and close the replica is what the database is. `scripts/crash.py` runs it
for as long as one likes.
"""

from harness import crash


def test_kills_and_closes_in_the_middle_of_work(location, tmp_path):
    report = crash.run(rounds=8, seed=1, location=location, folder=tmp_path, seconds=1)
    assert report["kills"] == 4 and report["acked"] > 10


def test_three_processes_are_killed_at_moments_of_their_own(location, tmp_path):
    """One of them publishes; what the others committed is in the next one's hands."""
    report = crash.run(rounds=4, seed=2, location=location, folder=tmp_path, seconds=1.5, threads=2, processes=3)
    assert report["kills"] == 12
