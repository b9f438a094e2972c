#!/usr/bin/env python3
"""Containers with an empty disk, again and again: `.venv/bin/python scripts/container.py --rounds 50 --seed 1`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import container  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2, help="the longest life")
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    arguments = parser.parse_args()
    with scratch(arguments.store) as (folder, location):
        report = container.run(arguments.rounds, arguments.seed, location, folder, arguments.seconds,
                               say=lambda line: print(line, flush=True))
    print(report)


if __name__ == "__main__":
    main()
