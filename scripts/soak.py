#!/usr/bin/env python3
"""Mixed work on a primary with two replica readers: `.venv/bin/python scripts/soak.py --minutes 10 --seed 1`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import soak  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    parser.add_argument("--big", type=int, default=100, help="size of the one large transaction in MiB")
    arguments = parser.parse_args()
    with scratch(arguments.store) as (folder, location):
        soak.run(arguments.minutes * 60, arguments.seed, location, folder, arguments.big,
                 reopen_every=min(60, arguments.minutes * 15), say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
