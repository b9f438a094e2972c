"""A machine that has recipients only reads back no more than what waits for a merge, however it is killed.

At one request of each kind here; `scripts/write_only.py` kills it at each request of a cycle.
"""

from harness import write_only
from harness.write_only import AFTER, BEFORE, RESTART, SNAPSHOT, STANDBY, TOP

KILLS = [("file of a commit", AFTER, STANDBY), ("merge", AFTER, RESTART), ("merge", BEFORE, STANDBY), ("snapshot", AFTER, RESTART),
         ("deletion", BEFORE, RESTART)]


def test_the_machine_opens_only_what_is_to_be_merged_whatever_happens_to_it(s3, in_s3, tmp_path):
    report = write_only.run(1, s3, in_s3, tmp_path, kinds=KILLS)
    assert report["waiting_that_opened"] > 5 and report["keys_tried"] > 10_000, report
    assert report["files"].keys() >= {0, TOP, SNAPSHOT} and len(report["table"]) > 12, report
