#!/usr/bin/env python3
"""Threads read a replica whose files are merged and removed under them, while the primary commits:
`.venv/bin/python scripts/isolation.py --minutes 10 --seed 1`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import isolation  # noqa: E402
from harness.scratch import scratch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--long", type=float, default=45, help="seconds of each transaction of the first thread")
    parser.add_argument("--hydrate", action="store_true")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.minutes} minutes", flush=True)
    with scratch(arguments.store) as (folder, location):
        figures = isolation.run(arguments.minutes * 60, arguments.seed, location, folder, arguments.threads,
                                arguments.long, say=lambda line: print(line, flush=True),
                                **({"hydrate": 1} if arguments.hydrate else {}))
    errors = figures.pop("errors")
    print(figures)
    for error in errors[:20]:
        print(error)
    if errors or figures["exit"] or figures["growth_mib"] > 20:
        sys.exit(f"failed: {len(errors)} errors, {figures['growth_mib']} MiB more at the end than at the beginning")


if __name__ == "__main__":
    main()
