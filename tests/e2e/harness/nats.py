"""A real NATS server with JetStream on loopback, and replicas in its object stores."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from .clouds import InCloud
from .paths import clean_env
from .s3 import accepts, free_port
from .wait import until

NATS = Path(os.environ.get("LITESTREAM_TEST_NATS") or Path(sys.executable).parent / "nats-server")
USER, PASSWORD = "backup", "nats-password-that-must-never-be-printed"


class NatsServer:
    """`nats-server`, for one user."""

    def __init__(self, folder: Path):
        self.port = free_port()
        self.password = PASSWORD
        self.folder = folder
        self._config: str | None = None
        self._login: dict = {"user": USER, "password": PASSWORD}
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        if not NATS.exists():
            raise FileNotFoundError(f"{NATS}: run `make tools`, or set LITESTREAM_TEST_NATS")
        logins = ["--user", USER, "--pass", self.password]
        if self._config is not None:
            (self.folder / "config").write_text(self._config)
            logins = ["-c", self.folder / "config"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [NATS, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.folder / "data", *logins],
                stdout=log, stderr=log, env=clean_env())
        until(lambda: accepts(self.port), what=f"nats-server on port {self.port}")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart_with(self, config: str, login: dict | None = None) -> None:
        """The server with this in its configuration file, in place of the one user. `login` is how an object store is made
        there."""
        self.stop()
        self._config = config
        self._login = login or self._login
        self.start()

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

    def replica(self, bucket: str, port: int | None = None, password: str = PASSWORD) -> InCloud:
        """An empty replica in a new object store, or one that is there, perhaps through a proxy that listens on `port`."""
        if port is None:
            self._run(lambda js: js.create_object_store(bucket))
        address = f"nats://127.0.0.1:{port or self.port}/{bucket}"
        return InCloud(
            url=address, folder=Path(), listing=lambda: self.names(bucket), layout=r"ltx/(\d)/(.*)",
            settings={"username": USER, "password": password},
            peer={"url": address, "username": USER, "password": PASSWORD},
        )

    def names(self, bucket: str) -> list[tuple[str, int]]:
        async def listed(js):
            from nats.js.errors import NotFoundError

            store = await js.object_store(bucket)
            try:
                return [(found.name, found.size) for found in await store.list()]
            except NotFoundError:
                return []

        return self._run(listed)

    def _run(self, work):
        import nats

        async def connected():
            client = await nats.connect(f"nats://127.0.0.1:{self.port}", **self._login)
            try:
                return await work(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(connected())
