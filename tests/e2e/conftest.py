"""Fixtures: a server, places for replicas, and hosts that are gone when the test is."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import packages
from harness.location import Location
from harness.paths import LIBRARY
from harness.proxy import Proxy
from harness.s3 import S3Server
from harness.shell import Shell
from harness.worker import Worker

_numbers = itertools.count(1)

NO_TICKS = {"LITESTREAM_LEVELS": "24h"}
"""Files are merged only in tests that say so, not whenever a half minute is over."""


def pytest_sessionstart(session: pytest.Session) -> None:
    if not LIBRARY.exists():
        pytest.exit(f"{LIBRARY} is not there: run `make build`, or set LITESTREAM_VFS_LIB", returncode=2)


def pytest_report_header() -> str:
    return f"library under test: {LIBRARY}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "root")
    yield server
    server.wipe()


@pytest.fixture
def bucket(s3: S3Server) -> Path:
    """A bucket of the test's own."""
    return s3.bucket(f"bucket-{next(_numbers)}")


@pytest.fixture
def in_s3(s3: S3Server, bucket: Path) -> Location:
    """An empty replica in a bucket."""
    return Location.s3(bucket, "app", s3.endpoint)


@pytest.fixture
def in_folder(tmp_path: Path) -> Location:
    """An empty replica in a folder."""
    return Location.file(tmp_path / "replica")


@pytest.fixture(params=["file", "s3"])
def location(request: pytest.FixtureRequest) -> Location:
    """An empty replica; the test runs once for each kind of store."""
    return request.getfixturevalue({"file": "in_folder", "s3": "in_s3"}[request.param])


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """A proxy before the S3 server."""
    proxy = Proxy(s3.port)
    yield proxy
    proxy.close()


@pytest.fixture
def through_proxy(in_s3: Location, proxy: Proxy) -> Location:
    """The replica of `in_s3`, reached through `proxy`."""
    return in_s3.at(proxy.endpoint)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts Python hosts in the test's folder: `start("apsw", location)`."""
    started: list[Worker] = []

    def start(host: str = "python", location: Location | None = None, **options) -> Worker:
        env = NO_TICKS | (location.env if location else {}) | options.pop("env", {})
        started.append(Worker(host, env=env, cwd=tmp_path, **options))
        return started[-1]

    yield start
    for worker in started:
        if not worker.ended:
            worker.kill()


@pytest.fixture(params=["python", "apsw"])
def host(request: pytest.FixtureRequest) -> str:
    """A Python host's name; the test runs once for each."""
    return request.param


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[..., Shell]]:
    """Starts sqlite3 shells in the test's folder: `shell(location)`."""
    started: list[Shell] = []

    def start(location: Location | None = None, **options) -> Shell:
        env = NO_TICKS | (location.env if location else {}) | options.pop("env", {})
        started.append(Shell(env=env, cwd=tmp_path, **options))
        return started[-1]

    yield start
    for session in started:
        if not session.ended:
            session.kill()


@pytest.fixture(scope="session", autouse=True)
def _remove_packages() -> Iterator[None]:
    """What `harness.packages` made is removed."""
    yield
    if packages.dist.cache_info().currsize:
        shutil.rmtree(packages.dist())
