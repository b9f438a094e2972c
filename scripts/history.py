#!/usr/bin/env python3
"""A primary whose history is kept with short intervals, restored at many moments by us and by Litestream:
`.venv/bin/python scripts/history.py --minutes 10 --seed 1`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import history  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    arguments = parser.parse_args()
    with scratch(arguments.store) as (folder, location):
        history.run(arguments.minutes * 60, arguments.seed, location, folder,
                    say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
