#!/usr/bin/env python3
"""A copy that follows while the primary commits and the follower is killed again and again, with four readers that look at an
invariant all the time: `.venv/bin/python scripts/follow.py --transactions 1000 --kills 100 --seed 1 --store s3`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import following  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("file", "s3"), default="s3")
    arguments = parser.parse_args()
    with scratch(arguments.store) as (folder, location):
        report = following.run(arguments.transactions, arguments.kills, arguments.seed, location, folder,
                               say=lambda line: print(line, flush=True))
        print(f"never broken, equal at the end: {report}", flush=True)


if __name__ == "__main__":
    main()
