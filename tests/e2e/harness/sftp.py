"""A real SFTP server on loopback."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .location import Location
from .paths import ROOT
from .s3 import accepts, free_port
from .wait import until

SSHD = ROOT / "tests" / "sshd.sh"


def _children(parent: int) -> list[int]:
    """The processes below `parent`, each of which serves one connection, in a session of its own."""
    shown = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True, check=True).stdout
    parents = {int(pid): int(ppid) for pid, ppid in (line.split() for line in shown.splitlines())}
    direct = [pid for pid, ppid in parents.items() if ppid == parent]
    return direct + [pid for pid, ppid in parents.items() if ppid in direct]


class SftpServer:
    """OpenSSH's server. What is stored is below `root`."""

    def __init__(self, _: Path):
        # The folders of tests are closed to the user whom the server runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="litestream-sftp-"))
        self.folder.chmod(0o755)
        self.root = self.folder / "files"
        self.port = free_port()
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [SSHD, str(self.port), str(self.folder)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: self._process.poll() is not None or accepts(self.port), what=f"sshd on port {self.port}")
        if self._process.poll() is not None:
            raise RuntimeError(f"no SFTP server: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        """The server goes away, and its connections with it."""
        processes = [self._process.pid, *_children(self._process.pid)]
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def lock_out(self) -> None:
        """From now on the key lets nobody in."""
        self.stop()
        (self.folder / "authorized_keys").write_text("")
        self.start()

    def let_in(self) -> None:
        """It does again."""
        shutil.copyfile(self.folder / "id.pub", self.folder / "authorized_keys")

    @property
    def key(self) -> Path:
        return self.folder / "id"

    @property
    def host_key(self) -> str:
        return (self.folder / "host.pub").read_text().strip()

    @property
    def user(self) -> str:
        return (self.folder / "user").read_text().strip()

    def location(self, path: str, port: int | None = None, **settings: str) -> Location:
        """The replica at `path`, perhaps through a proxy that listens on `port`."""
        address, place = f"127.0.0.1:{port or self.port}", self.root / path
        named = {"key-path": str(self.key), "host-key": self.host_key} | settings
        return Location(
            url=f"sftp://{self.user}@{address}{place}",
            folder=place,
            settings={name: value for name, value in named.items() if value},
            peer={"type": "sftp", "host": address, "user": self.user, "key-path": str(self.key),
                  "host-key": self.host_key, "path": str(place)},
        )
