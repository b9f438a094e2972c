"""The real Litestream: it replicates, it restores, and its VFS reads."""

import http.client
import json
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .compare import Content
from .location import Location
from .paths import LITESTREAM, clean_env, litestream_vfs
from .wait import until
from .worker import Connection, Worker

T = TypeVar("T")


def _run(location: Location, *arguments: str, deadline: float = 600) -> str:
    done = subprocess.run([LITESTREAM, *arguments], env=clean_env(**location.env, **location.peer_env), timeout=deadline,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"litestream {' '.join(arguments)}: {done.returncode}\n{done.stdout}")
    return done.stdout


def url_of(location: Location) -> str:
    """The replica's URL as Litestream takes it."""
    return location.full_url + ("&forcePathStyle=true" if location.is_s3 else "")


def restore(location: Location, output: Path, txid: int | None = None, timestamp: str | None = None) -> Path:
    """`litestream restore`; `output` must not exist."""
    arguments = ["restore", "-o", str(output)]
    if txid is not None:
        arguments += ["-txid", f"{txid:016x}"]
    if timestamp is not None:
        arguments += ["-timestamp", timestamp]
    _run(location, *arguments, *_named(location, output.parent))
    return output


def ltx(location: Location, folder: Path) -> list[dict]:
    """`litestream ltx`: the files of all levels. `folder` is for its configuration."""
    return json.loads(_run(location, "ltx", "-json", "-level", "all", *_named(location, folder)))


def _named(location: Location, folder: Path) -> list[str]:
    """The arguments that name the replica: its URL, or a configuration in `folder`."""
    if not location.needs_config:
        return [url_of(location)]
    config, database = folder / "named.litestream.yml", folder / "named.db"
    config.write_text(json.dumps({"dbs": [{"path": str(database), "replica": location.litestream()}]}))
    return ["-config", str(config), str(database)]


def by_vfs(location: Location, read: Callable[[Connection], T]) -> T:
    """What `read` finds by Litestream's own loadable extension, which fetches each page by itself."""
    env = location.env | {"LITESTREAM_REPLICA_URL": url_of(location)}
    worker = Worker("apsw", env=env, load=False)
    try:
        worker.load(litestream_vfs(), "sqlite3_litestreamvfs_init")
        return read(worker.open("file:replica.db?vfs=litestream&mode=ro"))
    finally:
        worker.kill()


def read_by_vfs(location: Location) -> Content:
    """All that Litestream's own loadable extension reads."""
    return by_vfs(location, Connection.content)


class _Control(http.client.HTTPConnection):
    """HTTP over Litestream's control socket."""

    def __init__(self, path: Path):
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Replicate:
    """`litestream replicate` with intervals short enough for a test. A context manager."""

    def __init__(self, database: Path, location: Location, folder: Path, sync: str = "100ms",
                 levels: tuple[str, ...] = ("1s", "2s", "4s"), snapshot: str = "3s",
                 l0_retention: str = "2s", monitor: str = "50ms", **top: object):
        """`top`: more keys of the configuration's top, as `heartbeat_url`."""
        self.database, self.location = database, location
        self.log = folder / f"{database.name}.litestream.log"
        self._config = folder / f"{database.name}.litestream.yml"
        # The folder of a test may have a longer name than a socket can have.
        self._sockets = tempfile.TemporaryDirectory(prefix="litestream-")
        self._socket = Path(self._sockets.name) / "control"
        replica = {"sync-interval": sync} | location.litestream()
        # JSON is YAML.
        self._config.write_text(json.dumps({
            "socket": {"enabled": True, "path": str(self._socket)},
            "snapshot": {"interval": snapshot, "retention": "1h"},
            "levels": [{"interval": i} for i in levels],
            "l0-retention": l0_retention,
            "l0-retention-check-interval": "1s",
            "dbs": [{"path": str(database), "monitor-interval": monitor, "replica": replica}],
        } | {key.replace("_", "-"): value for key, value in top.items()}))

    def __enter__(self) -> "Replicate":
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [LITESTREAM, "replicate", "-config", self._config],
                stdout=log, stderr=log, env=clean_env(**self.location.env, **self.location.peer_env),
            )
        until(self._started, what=f"litestream replicate; see {self.log}", timeout=30)
        return self

    def _started(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"litestream replicate ended:\n{self.log.read_text()}")
        return self._socket.exists() and bool(self.location.files())

    @property
    def pid(self) -> int:
        return self._process.pid

    def sync(self) -> int:
        """`litestream sync -wait`; the last TXID of the replica then."""
        control = _Control(self._socket)
        control.request("POST", "/sync", json.dumps({"path": str(self.database), "wait": True, "timeout": 30}),
                        {"Content-Type": "application/json"})
        answer = control.getresponse()
        text = answer.read().decode()
        control.close()
        if answer.status != 200:
            raise RuntimeError(f"litestream sync: {answer.status} {text}")
        return self.location.last_txid()

    def compacted(self) -> set[int]:
        """The levels that have a file by now."""
        return {f.level for f in self.location.files()}

    def deleted(self) -> int:
        """How many L0 files retention has deleted by now."""
        return sum(int(n) for n in re.findall(r"deleted_count=(\d+)", self.log.read_text()))

    def kill(self) -> None:
        """It ends without sending what is left."""
        self._process.kill()
        self._process.wait()

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
        self._sockets.cleanup()
