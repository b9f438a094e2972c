#!/usr/bin/env python3
"""Kills the primary, and lets its store fail, in the middle of compaction, snapshots and retention, and restores
each time: `.venv/bin/python scripts/interrupted.py --count 300 --seed 1`."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import interrupted  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.s3 import S3Server  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{arguments.count} interruptions, seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="litestream-vfs-") as name:
        server = S3Server(Path(name) / "s3")
        try:
            location = Location.s3(server.bucket("bucket"), "app", server.endpoint)
            interrupted.run(arguments.count, arguments.seed, server, location, Path(name),
                            say=lambda line: print(line, flush=True))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
