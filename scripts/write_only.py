#!/usr/bin/env python3
"""Kills a primary that has recipients only at each request of a cycle of levels, snapshots and retention, takes its state folder
away, lets other processes and machines take over, and each time tries what its disk opens of all that it ever sent:
`.venv/bin/python scripts/write_only.py`; with `--step 5` at each fifth request."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from harness import write_only  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.s3 import S3Server  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--when", choices=("before", "after", "both"), default="both",
                        help="before a request arrives, or after it was done and before its answer is there")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="litestream-vfs-") as name:
        server = S3Server(Path(name) / "s3")
        try:
            location = Location.s3(server.bucket("bucket"), "app", server.endpoint)
            moments = {"before": (write_only.BEFORE,), "after": (write_only.AFTER,)}
            write_only.run(arguments.seed, server, location, Path(name), arguments.step,
                           moments.get(arguments.when, (write_only.BEFORE, write_only.AFTER)), say=lambda line: print(line, flush=True))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
