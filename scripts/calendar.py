#!/usr/bin/env python3
"""Retention by calendar over years of virtual time (src/primary/maintenance/tests/calendar.rs), a policy on each core.

    scripts/calendar.py                    ten policies, two years each, at one commit an hour
    scripts/calendar.py --days 100 --policy 3

Stores are away for hours, and processes are killed. At the end of each day every point that is promised is restored and compared,
and of what is older than the retention nothing else may be there. Prints what each policy stored at most, beside as many hourly
snapshots. `cargo test` has 40 days of three policies.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simulate import ROOT, build, run_test

TEST = "primary::maintenance::tests::calendar::every_promised_point_restores_and_nothing_else_is_kept"
POLICIES = 10
"""As many as `policies()` of the test has."""


def run(program: Path, days: int, policy: int) -> subprocess.CompletedProcess[str]:
    """Runs one policy."""
    return run_test(program, TEST, {"CALENDAR_DAYS": str(days), "CALENDAR_POLICY": str(policy)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--policy", type=int, choices=range(POLICIES))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--program", type=Path, help="tests that are built already")
    arguments = parser.parse_args()
    program = arguments.program or build(ROOT, ROOT / "target" / "simulation")
    policies = range(POLICIES) if arguments.policy is None else [arguments.policy]
    failed = False
    with ThreadPoolExecutor(arguments.workers) as pool:
        for done in pool.map(lambda policy: run(program, arguments.days, policy), policies):
            failed |= done.returncode != 0
            lines = done.stdout.splitlines()
            print("\n".join(lines if done.returncode else [line for line in lines if line.startswith("policy")]), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
