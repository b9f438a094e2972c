"""What hatchling is told while `make dist` builds the wheel: the version, the shared library, the platform."""

import os
import re
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

CARGO = Path(__file__).resolve().parents[2] / "Cargo.toml"


class Version(MetadataHookInterface):
    """The version is that of the library."""

    def update(self, metadata: dict) -> None:
        metadata["version"] = re.search(r'^version = "(.+)"', CARGO.read_text(), re.M)[1]


class Library(BuildHookInterface):
    """The wheel carries the library, and is for its platform, whatever version of Python."""

    def initialize(self, version: str, build_data: dict) -> None:
        library, notices = os.environ["DIST_LIBRARY"], os.environ["DIST_NOTICES"]
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + os.environ["DIST_WHEEL_PLATFORM"]
        build_data["force_include"][library] = "sqlite_litestream/" + Path(library).name
        build_data["force_include"][notices] = "sqlite_litestream/" + Path(notices).name
