"""A real WebDAV server on loopback."""

import subprocess
from pathlib import Path

from .location import Location
from .paths import RCLONE, clean_env
from .s3 import accepts, free_port
from .wait import until

USER = "backup"
PASSWORD = "test-password-that-must-never-be-printed"


class WebDavServer:
    """`rclone serve webdav`. What is stored is below `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.port = free_port()
        self.password = PASSWORD
        self._process: subprocess.Popen | None = None
        root.mkdir(parents=True)
        self.start()

    def start(self) -> None:
        if not RCLONE.exists():
            raise FileNotFoundError(f"{RCLONE}: run `make tools`, or set LITESTREAM_TEST_RCLONE")
        with self.root.with_name(self.root.name + ".log").open("ab") as log:
            self._process = subprocess.Popen(
                [RCLONE, "serve", "webdav", self.root, "--addr", f"127.0.0.1:{self.port}", "--user", USER,
                 "--pass", self.password], stdout=log, stderr=log, env=clean_env())
        until(lambda: accepts(self.port), what=f"rclone on port {self.port}")

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.stop()

    def lock_out(self) -> None:
        """From now on the user has another password."""
        self.stop()
        self.password = "another password"
        self.start()

    def let_in(self) -> None:
        """It is the old one again."""
        self.stop()
        self.password = PASSWORD
        self.start()

    def location(self, path: str, port: int | None = None, password: str = PASSWORD) -> Location:
        """The replica at `path`, perhaps through a proxy that listens on `port`."""
        host = f"127.0.0.1:{port or self.port}"
        return Location(
            url=f"webdav://{host}/{path}",
            folder=self.root / path,
            env={"LITESTREAM_WEBDAV_USERNAME": USER, "LITESTREAM_WEBDAV_PASSWORD": password},
            peer={"url": f"webdav://{USER}:{PASSWORD}@{host}/{path}"},
        )
