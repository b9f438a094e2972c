"""Mixed work with two replica readers, in short; `scripts/soak.py` runs it for as long as one likes."""

from harness import soak


def test_every_read_is_consistent_and_all_copies_end_identical(location, tmp_path):
    report = soak.run(seconds=20, seed=1, location=location, folder=tmp_path, big=10, reopen_every=5,
                      sync_interval="200ms")
    assert report["transactions"] > 100 and report["steps"]["reopen"] >= 2
    assert min(report["states"]) >= 10, "the readers hardly saw anything change"
