#!/usr/bin/env python3
"""Mixed work on a database with a replica in S3 and one in a folder, and the same with S3 dead for the whole run:
`.venv/bin/python scripts/two_replicas.py --minutes 10 --seed 1`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import two_replicas  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for dead in (False, True):
        with scratch("s3") as (folder, location):
            report = two_replicas.run(arguments.minutes * 60, arguments.seed, location, folder, dead,
                                      say=lambda line: print(line, flush=True))
            print(f"identical: {report}", flush=True)


if __name__ == "__main__":
    main()
