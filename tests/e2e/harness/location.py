"""One replica, in a folder or in a bucket, and the URLs that name it."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, urlencode

from .s3 import REGION, credentials

NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx")


def sqlite_uri(path: Path | str, **parameters: object) -> str:
    """`file:path?…`, as a user would write it: only what SQLite would misread is encoded."""
    query = "&".join(f"{k}={quote(str(v), safe='/:.-_~@,')}" for k, v in parameters.items())
    return f"file:{quote(str(path), safe='/:.-_~')}" + (f"?{query}" if query else "")


@dataclass(frozen=True)
class Ltx:
    """A file of a replica."""

    level: int
    min: int
    max: int
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True)
class Location:
    """Where a replica is. `folder` is where its objects are on this machine's disk."""

    url: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    peer_env: dict[str, str] = field(default_factory=dict)
    """What Litestream needs in its environment beside `env`."""
    peer: dict[str, object] = field(default_factory=dict)
    """The replica as Litestream's configuration file has it; empty for a folder or S3."""

    @classmethod
    def file(cls, folder: Path) -> "Location":
        return cls(url=f"file://{folder}", folder=folder)

    @classmethod
    def s3(cls, bucket: Path, path: str, endpoint: str) -> "Location":
        return cls(
            url=f"s3://{bucket.name}/{path}",
            folder=bucket / path,
            settings={"endpoint": endpoint, "region": REGION},
            env=credentials(),
        )

    @property
    def is_s3(self) -> bool:
        return self.url.startswith("s3:")

    def litestream(self) -> dict[str, object]:
        """The replica as Litestream's configuration file has it."""
        if self.peer:
            return self.peer
        if not self.is_s3:
            return {"type": "file", "path": str(self.folder)}
        bucket, _, path = self.url.removeprefix("s3://").partition("/")
        return {"type": "s3", "bucket": bucket, "path": path, "force-path-style": True,
                "endpoint": self.settings["endpoint"], "region": self.settings["region"]}

    @property
    def needs_config(self) -> bool:
        """Whether Litestream is told of the replica by its configuration file, and not by a URL."""
        return bool(self.peer)

    @property
    def full_url(self) -> str:
        """The URL with its settings in its own query, for `litestream_restore` and for Litestream."""
        return self.url + ("?" + urlencode(self.settings, safe="/:") if self.settings else "")

    def at(self, endpoint: str) -> "Location":
        """The same bucket behind another endpoint, such as a proxy's."""
        return replace(self, settings=self.settings | {"endpoint": endpoint})

    def primary(self, database: Path | str, **parameters: object) -> str:
        """The URI that opens `database` as the primary of this replica."""
        return sqlite_uri(database, vfs="litestream", replica=self.url, **self.settings, **parameters)

    def replica(self, name: Path | str = "replica.db", **parameters: object) -> str:
        """The URI that reads this replica; `name` is not a file."""
        return self.primary(name, mode="ro", **parameters)

    def level(self, level: int) -> Path:
        """The folder of one level, in the layout that Litestream has for this store."""
        return self.folder / f"{level:04x}" if self.is_s3 else self.folder / "ltx" / str(level)

    def files(self, *levels: int) -> list[Ltx]:
        """The LTX files of `levels` (all, if none is given), by level and name."""
        found = []
        for level in levels or range(10):
            folder = self.level(level)
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if match := NAME.fullmatch(path.name):
                    found.append(Ltx(level, int(match[1], 16), int(match[2], 16), path))
        return found

    def gaps(self) -> list[tuple[int, int]]:
        """The TXIDs that no file holds although a later one exists."""
        gaps, reached = [], 0
        for file in sorted(self.files(), key=lambda f: (f.min, -f.max)):
            if file.min > reached + 1:
                gaps.append((reached + 1, file.min - 1))
            reached = max(reached, file.max)
        return gaps

    def last_txid(self) -> int:
        """The highest TXID that the replica holds; 0 if it is empty."""
        return max((f.max for f in self.files()), default=0)
