"""Servers that stand for clouds' stores, and replicas in them."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from xml.etree import ElementTree

from . import oss
from .location import Location, Ltx, NAME
from .paths import ROOT, clean_env
from .s3 import accepts, free_port
from .wait import until

FAKE_GCS = Path(os.environ.get("LITESTREAM_TEST_FAKE_GCS") or ROOT / ".tools" / "bin" / "fake-gcs-server")
AZURITE = Path(os.environ.get("LITESTREAM_TEST_AZURITE") or ROOT / ".tools" / "bin" / "azurite-blob")

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and the key that every Azurite has."""


class _Server:
    """A server on a port of this machine. A context manager."""

    def __init__(self, folder: Path):
        self.port = free_port()
        self.folder = folder
        self._log = folder / "server.log"
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        command = self.command()
        if not Path(command[0]).exists():
            raise FileNotFoundError(f"{command[0]}: run `make tools`")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=clean_env())
        until(lambda: accepts(self.port), what=f"{command[0]} on {self.endpoint}", timeout=60)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class FakeGcs(_Server):
    """fake-gcs-server, which keeps objects in memory."""

    def command(self) -> list[str]:
        return [str(FAKE_GCS), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port),
                "-public-host", f"127.0.0.1:{self.port}", "-external-url", self.endpoint, "-log-level", "error"]

    def replica(self, name: str) -> "InCloud":
        """An empty replica in a new bucket."""
        request = urllib.request.Request(f"{self.endpoint}/storage/v1/b?project=p", json.dumps({"name": name}).encode(),
                                         {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()
        return InCloud(
            url=f"gs://{name}/app", folder=Path(), listing=lambda: self.names(name), settings={"endpoint": self.endpoint},
            peer={"type": "gs", "bucket": name, "path": "app"}, peer_env={"STORAGE_EMULATOR_HOST": self.endpoint},
        )

    def names(self, bucket: str) -> list[tuple[str, int]]:
        found, token = [], ""
        while True:
            with urllib.request.urlopen(f"{self.endpoint}/storage/v1/b/{bucket}/o?pageToken={token}", timeout=30) as answer:
                page = json.load(answer)
            found += [(item["name"], int(item["size"])) for item in page.get("items", [])]
            token = page.get("nextPageToken", "")
            if not token:
                return found


class Azurite(_Server):
    """Microsoft's emulator of Azure Blob Storage."""

    def command(self) -> list[str]:
        return [str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--silent", "--skipApiVersionCheck",
                "--location", str(self.folder)]

    def replica(self, name: str) -> "InCloud":
        """An empty replica in a new container."""
        self._ask("PUT", f"/{name}?restype=container")
        return InCloud(
            url=f"abs://{ACCOUNT}@{name}/app", folder=Path(), listing=lambda: self.names(name),
            settings={"endpoint": f"{self.endpoint}/{ACCOUNT}"}, env={"LITESTREAM_AZURE_ACCOUNT_KEY": ACCOUNT_KEY},
            peer={"type": "abs", "account-name": ACCOUNT, "account-key": ACCOUNT_KEY, "bucket": name, "path": "app",
                  "endpoint": f"{self.endpoint}/{ACCOUNT}"},
        )

    def _ask(self, method: str, path: str) -> bytes:
        """A request that is signed with the account's key."""
        place, _, query = path.partition("?")
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        fields = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
        text = (method + "\n" * 12 + "".join(f"{k}:{v}\n" for k, v in sorted(headers.items()))
                + f"/{ACCOUNT}/{ACCOUNT}{place}" + "".join(f"\n{k}:{v}" for k, v in fields))
        digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        request = urllib.request.Request(f"{self.endpoint}/{ACCOUNT}{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def names(self, container: str) -> list[tuple[str, int]]:
        found, marker = [], ""
        while True:
            page = ElementTree.fromstring(self._ask("GET", f"/{container}?restype=container&comp=list&marker={marker}"))
            found += [(blob.findtext("Name"), int(blob.findtext("Properties/Content-Length"))) for blob in page.iter("Blob")]
            marker = urllib.parse.quote(page.findtext("NextMarker") or "", safe="")
            if not marker:
                return found


class Oss(oss.OssServer):
    """What stands for Alibaba Cloud's Object Storage Service."""

    def replica(self, name: str) -> "InCloud":
        """An empty replica in a new bucket."""
        self.buckets[name] = {}
        keys = {"access-key-id": oss.KEY, "secret-access-key": oss.SECRET}
        return InCloud(
            url=f"oss://{name}/app", folder=Path(), listing=lambda: self.names(name), settings={"endpoint": self.endpoint},
            env={"OSS_ACCESS_KEY_ID": oss.KEY, "OSS_ACCESS_KEY_SECRET": oss.SECRET}, layout=r"app/000(\d)/(.*)",
            peer={"type": "oss", "bucket": name, "path": "app", "endpoint": self.endpoint, "region": oss.REGION} | keys,
        )


@dataclass(frozen=True)
class InCloud(Location):
    """A replica in a cloud's store; `folder` means nothing."""

    listing: Callable[[], list[tuple[str, int]]] = list
    """Names and sizes of all objects of the bucket."""
    layout: str = r"app/ltx/(\d)/(.*)"
    """The keys of files."""

    def at(self, endpoint: str) -> "InCloud":
        """The same bucket behind another server, such as a proxy."""
        given = urllib.parse.urlsplit(self.settings["endpoint"])
        return replace(self, settings=self.settings | {"endpoint": endpoint + given.path})

    def files(self, *levels: int) -> list[Ltx]:
        found = []
        for name, _ in self.listing():
            if match := re.fullmatch(self.layout, name):
                txids = NAME.fullmatch(match[2])
                assert txids, f"{name} is no file of a replica"
                if not levels or int(match[1]) in levels:
                    found.append(Ltx(int(match[1]), int(txids[1], 16), int(txids[2], 16), Path(name)))
        return sorted(found, key=lambda f: (f.level, f.min, f.max))
