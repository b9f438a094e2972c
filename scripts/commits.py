#!/usr/bin/env python3
"""Kills processes whose commits wait, or fails their power, and compares: `.venv/bin/python scripts/commits.py --rounds 1000`."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import commits  # noqa: E402
from harness.failing import failing  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="kills and power failures by turns")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1, help="the longest round")
    parser.add_argument("--threads", type=int, default=2, help="the most threads of a process, each with a connection of its own")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--store", choices=("s3", "file"), default="file")
    parser.add_argument("--failing", action="store_true", help="the store, S3, fails at random")
    arguments = parser.parse_args()
    print(f"{arguments.rounds} rounds, seed {arguments.seed}, {arguments.processes} processes", flush=True)
    with ExitStack() as stack:
        folder, location = stack.enter_context(scratch("s3" if arguments.failing else arguments.store))
        through = stack.enter_context(failing(location, arguments.seed)) if arguments.failing else None
        commits.run(arguments.rounds, arguments.seed, location, folder, arguments.seconds, arguments.threads,
                    arguments.processes, say=lambda line: print(line, flush=True), through=through)


if __name__ == "__main__":
    main()
