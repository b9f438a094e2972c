#!/usr/bin/env python3
"""What the first copy of a database into a folder costs while nobody writes: this library, and an earlier release of it
(`old`, which LITESTREAM_VFS_OLD names). Rounds go in turn.

    LITESTREAM_VFS_OLD=old/liblitestream_vfs.so .venv/bin/python benches/first_copy.py --mib 2048
"""

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import big  # noqa: E402
from harness.location import Location  # noqa: E402
from harness.paths import LIBRARY, OLD_LIBRARY, SQLITE_SHELL, clean_env  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from restore import Cost, measured, table  # noqa: E402


def copy(library: Path, database: Path, location: Location) -> Cost:
    """A process that opens the database, and waits until it is in the replica, which is empty before."""
    shutil.rmtree(location.folder, ignore_errors=True)
    shutil.rmtree(database.with_name(f".{database.name}-litestream"), ignore_errors=True)
    return measured([SQLITE_SHELL, ":memory:", "-cmd", f".load {library.with_suffix('')}",
                     "-cmd", f".open '{location.primary(database)}'", "SELECT litestream_sync(600);"], clean_env())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--folder", help="where everything is")
    arguments = parser.parse_args()
    libraries = {"ours": LIBRARY} | ({"old": OLD_LIBRARY} if OLD_LIBRARY else {})
    with scratch("file", arguments.folder) as (folder, location):
        database = folder / "app.db"
        big.make(database, arguments.mib << 20)
        results: dict[str, list[Cost]] = {way: [] for way in libraries}
        for n in range(arguments.rounds):
            for way, runs in results.items():
                runs.append(copy(libraries[way], database, location))
                print(f"round {n + 1} {way}: {runs[-1].seconds:.2f} s, {runs[-1].cpu:.2f} s of processor, "
                      f"{runs[-1].memory:.0f} MiB", flush=True)
        print(table(results))


if __name__ == "__main__":
    main()
