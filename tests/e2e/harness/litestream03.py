"""The real Litestream 0.3.13: generations, LZ4 snapshots and WAL segments, with age if wanted."""

import json
import re
import signal
import subprocess
from pathlib import Path

from .location import Location
from .paths import LITESTREAM_03, clean_env
from .wait import until

_SEGMENT = re.compile(r"([0-9a-f]{8})_([0-9a-f]{8,16})\.wal\.lz4")


def _replica(location: Location, **settings) -> dict:
    """How its configuration says where the replica is."""
    if not location.is_s3:
        return {"type": "file", "path": str(location.folder)} | settings
    bucket, _, path = location.url.removeprefix("s3://").partition("/")
    return {"type": "s3", "bucket": bucket, "path": path, "force-path-style": True,
            "endpoint": location.settings["endpoint"], "region": location.settings["region"]} | settings


def snapshots(location: Location) -> list[Path]:
    return sorted(location.folder.glob("generations/*/snapshots/*.snapshot.lz4"))


def segments(location: Location) -> list[Path]:
    return sorted(location.folder.glob("generations/*/wal/*.wal.lz4"))


def wal_indexes(location: Location) -> set[str]:
    """The indexes of the WAL files that the replica has something of, with their generations."""
    return {f"{path.parts[-3]}/{_SEGMENT.fullmatch(path.name)[1]}" for path in segments(location)}


class Replicate:
    """`litestream replicate` of version 0.3.13. A context manager."""

    def __init__(self, database: Path, location: Location, folder: Path,
                 keys: tuple[str, str] | None = None, snapshot: str = "1h", checkpoint_pages: int = 1000):
        self.database, self.location = database, location
        self.log = folder / f"{database.name}.litestream-0.3.log"
        self._config = folder / f"{database.name}.litestream-0.3.yml"
        settings = {"sync-interval": "50ms", "snapshot-interval": snapshot, "retention": "24h"}
        if keys:
            settings["age"] = {"identities": [keys[0]], "recipients": [keys[1]]}
        # JSON is YAML.
        self._config.write_text(json.dumps({"dbs": [{
            "path": str(database), "monitor-interval": "50ms", "checkpoint-interval": "1h",
            "min-checkpoint-page-count": checkpoint_pages,
            "replicas": [_replica(location, **settings)],
        }]}))

    def __enter__(self) -> "Replicate":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [LITESTREAM_03, "replicate", "-config", self._config],
                stdout=log, stderr=log, env=clean_env(**self.location.env),
            )
        until(self._started, what=f"litestream 0.3.13; see {self.log}", timeout=30)
        return self

    def _started(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"litestream 0.3.13 ended:\n{self.log.read_text()}")
        return bool(snapshots(self.location) and segments(self.location))

    def restore(self, output: Path, timestamp: str | None = None) -> Path:
        """What 0.3.13 itself restores."""
        at = ["-timestamp", timestamp] if timestamp else []
        done = subprocess.run([LITESTREAM_03, "restore", "-config", self._config, "-o", output, *at, self.database],
                              env=clean_env(**self.location.env), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"litestream 0.3.13 restore: {done.returncode}\n{done.stdout}")
        return output

    def stop(self) -> None:
        """Asks it to end; it syncs what is left first."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise

    def __exit__(self, *_) -> None:
        self.stop()
