"""Mixed work on one database with two replicas, of which one may be dead for the whole run."""

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from . import proc
from .compare import differing_pages
from .location import Location
from .proxy import Proxy
from .several import assert_each_is, primary_of, states
from .state import state_folder
from .wait import until
from .worker import Worker
from .workload import Workload, serial_if_consistent

PAGE_SIZE = 4096
REST = 100
"""MiB that the work does not touch, and that do not compress: a full copy is told from what changed by them."""
SETTINGS = dict(close_timeout="60s", spool_limit="4MiB")


class InPlace(Workload):
    """Work that leaves most of the database as it is."""

    def vacuum(self) -> None:
        """Would move every page."""
        self.checkpoint()


def run(seconds: float, seed: int, s3: Location, folder: Path, dead: bool, say: Callable[[str], None]) -> dict:
    """Works for `seconds` on a database with a replica in S3 and one in a folder; with `dead`, S3 is away all that time.
    At the end both hold what the database holds. Answers how fresh the folder was, and what S3 was sent afterwards."""
    proxy = Proxy(urlsplit(s3.settings["endpoint"]).port)
    worker = Worker("python", env=s3.env, cwd=folder)
    near = Location.file(folder / "near")
    try:
        uri = primary_of(folder / "app.db", s3.at(proxy.endpoint), near, sync_replicas="any", **SETTINGS)

        def reopen(db):
            if db:
                db.close()
            return worker.open(uri)

        work = InPlace(seed, reopen)
        work.db.run(f"CREATE TABLE rest AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {REST})"
                    " SELECT randomblob(1048576) FROM n")
        until(lambda: _behind(work) == [0, 0], 60, "the first copies")
        before, was = _sent(proxy), _copy(work, folder, "before.db")
        if dead:
            proxy.refuse()
        report = _work(work, seconds, near, folder, say) | {"dead": dead}
        if dead:
            proxy.accept()
        until(lambda: _behind(work) == [0, 0], 120, "all is in both")
        changed = len(differing_pages(was, _copy(work, folder, "after.db"), PAGE_SIZE)) * PAGE_SIZE
        report |= {"sent_to_s3": _sent(proxy) - before, "changed": changed, "database": was.stat().st_size}
        assert_each_is(work.db, folder, s3, near)
        work.db.close()
        return report
    finally:
        if not worker.ended:
            worker.kill()
        proxy.close()


def _sent(proxy: Proxy) -> int:
    """The bytes of what was published and of full copies: merges come by the clock, and the first holds the first copy again."""
    return sum(request.body_size for request in list(proxy.requests)
               if request.method == "PUT" and ("/0000/" in request.path or "/0009/" in request.path))


def _behind(work: Workload) -> list[float]:
    return [row["lag"] for row in states(work.db).values()]


def _work(work: Workload, seconds: float, near: Location, folder: Path, say: Callable[[str], None]) -> dict:
    """Steps until the time is over; now and then looks how long the folder takes to have what is committed."""
    began, fresh, most = time.monotonic(), [], 0
    while (elapsed := time.monotonic() - began) < seconds:
        for _ in range(20):
            work.step()
        asked = time.monotonic()
        work.db.one("SELECT litestream_sync()")
        fresh.append(time.monotonic() - asked)
        most = max(most, proc.rss_kib(work.db.worker.pid))
        if len(fresh) % 50 == 0:
            say(f"{elapsed:5.0f} s: {sum(work.done.values())} steps, sync {statistics.median(fresh):.3f} s, {most >> 10} MiB")
    work.transfer()
    assert "last_error" not in states(work.db)[near.url]
    return {"steps": dict(work.done), "transactions": serial_if_consistent(work.db), "sync_median": statistics.median(fresh),
            "sync_most": max(fresh), "resident_kib": most, "state_folder": _size(folder)}


def _copy(work: Workload, folder: Path, name: str) -> Path:
    """The database file with all that is committed."""
    work.db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(shutil.copy(folder / "app.db", folder / name))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in state_folder(folder / "app.db").rglob("*") if file.is_file())
