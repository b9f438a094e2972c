"""`scripts/mutations.py` takes each protection out of the sources and has the simulation find it: it must know where each is."""

import sys

from harness.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import mutations  # noqa: E402


def test_each_protection_is_where_it_is_taken_out() -> None:
    assert mutations.stale() == []
