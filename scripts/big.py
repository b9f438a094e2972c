#!/usr/bin/env python3
"""A database with a lock page, and what it costs in memory: `.venv/bin/python scripts/big.py`."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import big  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    parser.add_argument("--some", action="store_true", help="the replica reads some rows instead of all pages")
    arguments = parser.parse_args()
    with scratch(arguments.store) as (folder, location):
        say = lambda line: print(line, flush=True)  # noqa: E731
        print(json.dumps(big.run(arguments.megabytes * 1_000_000, location, folder, read_all=not arguments.some, say=say), indent=2))


if __name__ == "__main__":
    main()
