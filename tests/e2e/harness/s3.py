"""A real S3 server on loopback."""

import shutil
import socket
import subprocess
from pathlib import Path

from .paths import S3S_FS, clean_env
from .wait import until

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key-that-must-never-be-printed"
REGION = "us-east-1"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def credentials(access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> dict[str, str]:
    """The environment that gives a client access."""
    return {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}


def accepts(port: int) -> bool:
    """Whether somebody listens on `port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class S3Server:
    """An `s3s-fs` process. Its objects are files: `root/bucket/key`."""

    def __init__(self, root: Path, nice: int = 0, keys: tuple[str, str] = (ACCESS_KEY, SECRET_KEY), domain: str | None = None,
                 env: dict[str, str] | None = None):
        """Buckets are hosts below `domain`, if that is given, and the first part of paths otherwise."""
        self._env = env or {}
        self.root = root
        self._domain = ["--domain", domain] if domain else []
        self.keys = keys
        self._nice = nice
        self.port = free_port()
        self._process: subprocess.Popen | None = None
        self._log = root.with_name(root.name + ".log")
        root.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bucket(self, name: str) -> Path:
        """Creates the bucket if needed and returns its folder."""
        path = self.root / name
        path.mkdir(exist_ok=True)
        return path

    def start(self) -> None:
        if not S3S_FS.exists():
            raise FileNotFoundError(f"{S3S_FS}: run `make tools`, or set S3S_FS")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["nice", "-n", str(self._nice), S3S_FS, "--host", "127.0.0.1", "--port", str(self.port),
                 "--access-key", self.keys[0], "--secret-key", self.keys[1], *self._domain, str(self.root)],
                stdout=log, stderr=log, env=clean_env(RUST_LOG="error", **self._env),
            )
        until(lambda: accepts(self.port), what=f"s3s-fs on {self.endpoint}")

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lock_out(self) -> None:
        """From now on the key has another secret."""
        self.stop()
        self.keys = (ACCESS_KEY, "another secret")
        self.start()

    def let_in(self) -> None:
        """It has its own again."""
        self.stop()
        self.keys = (ACCESS_KEY, SECRET_KEY)
        self.start()

    def wipe(self) -> None:
        """Stops the server and removes its objects."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)
