"""1.2 GB with 4 KiB pages, so that the lock page exists; `scripts/big.py` runs it by hand."""

import pytest

from harness import big
from harness.paths import LIBRARY

LIMIT = 64 << 20


@pytest.mark.slow
def test_a_database_with_a_lock_page_in_bounded_memory(location, tmp_path):
    report = big.run(1_200_000_000, location, tmp_path, read_all=not location.is_s3)
    assert report["pages"] > big.LOCK_PAGE
    assert report["differing_pages"] == [] and report["differing_from_litestream"] == []
    assert report["same_rows"] and report.get("replica_integrity", "ok") == "ok"
    if LIBRARY.parent.name != "debug":
        assert report["snapshot"] - report["plain"] < LIMIT
        assert report["restore"] < LIMIT
