#!/usr/bin/env python3
"""A real Prometheus scrapes a process with three databases, two replicas each, while a store is away for a part of the time.

    .venv/bin/python scripts/prometheus.py --minutes 10

`prometheus` and `promtool` must be on the PATH (Debian: apt-get install prometheus). Shown are: what `promtool check metrics`
says, that the queries of Litestream's dashboard answer, that the alert rules are valid, and that the one for lag fires in the
outage, for the replica that is away alone, and clears after it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness.location import Location  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.s3 import free_port  # noqa: E402
from harness.scratch import scratch  # noqa: E402
from harness.several import primary_of  # noqa: E402
from harness.worker import Connection, Worker  # noqa: E402

RULES = ROOT / "packages" / "prometheus" / "litestream.rules.yml"
DASHBOARD = [
    "litestream_db_size", "litestream_wal_size", "litestream_txid",
    "rate(litestream_total_wal_bytes[1m])", "rate(litestream_sync_count[1m])", "rate(litestream_sync_seconds[1m])",
    "rate(litestream_sync_error_count[1m])", "sum by (db, mode) (rate(litestream_checkpoint_count[1m]))",
    "sum by (db, mode) (rate(litestream_checkpoint_seconds[1m]))",
    "rate(litestream_checkpoint_error_count[1m])",
    "sum by (operation, replica_type) (rate(litestream_replica_operation_total[1m]))",
    "sum by (operation, replica_type) (rate(litestream_replica_operation_bytes[1m]))",
    "histogram_quantile(0.99, sum by (le) (rate(litestream_replica_operation_duration_seconds_bucket[1m])))",
    "litestream_l0_retention_files_total", "litestream_disk_full",
]
"""What the panels of Litestream's dashboard ask for."""


class Prometheus:
    """A server of its own, asked by HTTP."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, what: str, **query: str) -> dict:
        with urlopen(self.url + what + "?" + urlencode(query), timeout=10) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[tuple[str, str, str]]:
        """Alert, database and replica of those that fire."""
        found = (a["labels"] | {"state": a["state"]} for a in self.ask("alerts")["alerts"])
        return {(a["alertname"], Path(a["db"]).name, a["replica"]) for a in found if a["state"] == "firing" and "replica" in a}


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `target` with our rules, each five seconds."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "litestream", "static_configs": [{"targets": [target]}]}],
    }))
    subprocess.run(["promtool", "check", "config", config], check=True, stdout=subprocess.DEVNULL)
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                                   f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield Prometheus(port)
    finally:
        server.terminate()
        server.wait(30)


def check_metrics(target: str) -> None:
    """Has promtool look at what is shown."""
    with urlopen(f"http://{target}/metrics", timeout=10) as answer:
        text = answer.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    said = (checked.stdout + checked.stderr).decode().strip()
    print(f"promtool check metrics: exit code {checked.returncode}, {said or 'nothing to say'}; {len(text)} bytes", flush=True)
    if checked.returncode != 0 or said:
        raise SystemExit("the metrics are not clean")


def commit_for(seconds: float, databases: list[Connection]) -> None:
    """Commits in each database, a few times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for db in databases:
            db.run("INSERT INTO t VALUES(randomblob(200))")
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="at least 6: an alert waits for two")
    minutes = parser.parse_args().minutes
    if minutes < 6:
        parser.error("--minutes must be at least 6")
    with scratch("s3") as (folder, location):
        proxy = Proxy(int(location.settings["endpoint"].rpartition(":")[2]))
        target = f"127.0.0.1:{free_port()}"
        worker = Worker("python", env=location.env | {"LITESTREAM_LISTEN": target}, cwd=folder)
        try:
            with prometheus(folder, target) as server:
                run(minutes * 60, folder, location.at(proxy.endpoint), proxy, worker, server, target)
        finally:
            worker.kill()
            proxy.close()


def run(seconds: float, folder: Path, location: Location, proxy: Proxy, worker: Worker, server: Prometheus,
        target: str) -> None:
    databases = []
    for n in range(3):
        far = Location.s3(location.folder.parent, f"app{n}", proxy.endpoint)
        replicas = [far, Location.file(folder / f"copy{n}")]
        databases.append(worker.open(primary_of(folder / f"app{n}.db", *replicas), f"db{n}"))
        databases[-1].run("CREATE TABLE t(a)")
    outage = seconds / 2
    before = (seconds - outage) / 2
    commit_for(before, databases)
    check_metrics(target)
    if server.firing():
        raise SystemExit(f"alerts before the outage: {server.firing()}")
    proxy.refuse()
    commit_for(outage, databases)
    fired = server.firing()
    print(f"after {outage:.0f} s without the store fire {sorted(fired)}", flush=True)
    lagging = {(db, replica) for name, db, replica in fired if name == "LitestreamLagHigh"}
    if lagging != {(f"app{n}.db", "s3") for n in range(3)}:
        raise SystemExit("the alert for lag fires for other replicas than those that are away")
    check_metrics(target)
    proxy.accept()
    commit_for(seconds - before - outage, databases)
    left = server.firing()
    print(f"after {seconds - before - outage:.0f} s with it again fire {sorted(left)}", flush=True)
    if any(name == "LitestreamLagHigh" for name, _, _ in left):
        raise SystemExit("the alert for lag has not cleared")
    for query in DASHBOARD:
        found = server.ask("query", query=query)["result"]
        print(f"{query}: {len(found)} series", flush=True)
        if not found:
            raise SystemExit("a query of the dashboard has no answer")


if __name__ == "__main__":
    main()
