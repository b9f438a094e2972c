"""A real SFTP server on loopback, and a proxy before it that breaks connections."""

import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
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


class Breaker:
    """Passes bytes on, and breaks connections when told."""

    def __init__(self, server: int):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.sent = 0
        """Bytes that clients sent."""
        self.cut_after: int | None = None
        """Each connection breaks after so many bytes that a client sent by it."""
        self.loses_answers = False
        """A connection that breaks has passed on all that the client sent, but nothing of what was answered to the last."""
        self.delay = 0.0
        """Seconds by which an answer is late."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._server))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            silent = threading.Event()
            threading.Thread(target=self._up, args=(client, server, silent), daemon=True).start()
            late: queue.Queue = queue.Queue()
            threading.Thread(target=self._down, args=(server, late), daemon=True).start()
            threading.Thread(target=self._late, args=(client, server, silent, late), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        passed = 0
        try:
            while data := client.recv(65536):
                self.sent += len(data)
                passed += len(data)
                if self.cut_after is not None and passed > self.cut_after:
                    if self.loses_answers:
                        silent.set()
                        server.sendall(data)
                        # What was sent is read before the end is.
                        server.shutdown(socket.SHUT_WR)
                        time.sleep(0.05)
                    break
                server.sendall(data)
        except OSError:
            pass
        self._end(client, server)

    def _down(self, server: socket.socket, late: queue.Queue) -> None:
        try:
            while data := server.recv(65536):
                late.put((time.monotonic() + self.delay, data))
        except OSError:
            pass
        late.put((0, b""))

    def _late(self, client: socket.socket, server: socket.socket, silent: threading.Event, late: queue.Queue) -> None:
        try:
            while True:
                due, data = late.get()
                if not data:
                    break
                time.sleep(max(0, due - time.monotonic()))
                if not silent.is_set():
                    client.sendall(data)
        except OSError:
            pass
        self._end(client, server)

    @staticmethod
    def _end(*sockets: socket.socket) -> None:
        for end in sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
