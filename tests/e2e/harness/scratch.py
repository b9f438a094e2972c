"""A folder and a replica for a script's one run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .location import Location
from .s3 import S3Server


@contextmanager
def scratch(store: str, inside: str | None = None, nice: int = 0) -> Iterator[tuple[Path, Location]]:
    """A temporary folder (in the folder `inside`, if given), and an empty replica: `s3` in a server of its own with the
    priority `nice`, `file` in the folder."""
    with tempfile.TemporaryDirectory(prefix="litestream-vfs-", dir=inside) as name:
        folder = Path(name)
        if store == "file":
            yield folder, Location.file(folder / "replica")
            return
        server = S3Server(folder / "s3", nice)
        try:
            yield folder, Location.s3(server.bucket("bucket"), "app", server.endpoint)
        finally:
            server.stop()
