"""What `make dist` makes, of the library under test: built once for a test session."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from .paths import LIBRARY, PYTHON_HOSTS, ROOT, clean_env


@cache
def dist() -> Path:
    """The folder of the packages."""
    out = Path(tempfile.mkdtemp(prefix="litestream-dist-"))
    done = subprocess.run([sys.executable, ROOT / "scripts" / "dist.py", "--library", LIBRARY, "--out", out],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def one(pattern: str) -> Path:
    """The package whose name fits."""
    [found] = dist().glob(pattern)
    return found


@cache
def site() -> Path:
    """A folder with the Python package installed, for `PYTHONPATH` of any interpreter."""
    folder = dist() / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
                    "--target", folder, one("*.whl")], check=True, timeout=300)
    return folder


def python_env(*folders: Path, **extra: str) -> dict[str, str]:
    """The environment of a program that has the Python package, and what is in `folders`."""
    env = clean_env(PYTHONPATH=os.pathsep.join(map(str, [site(), *folders])), **extra)
    env.pop("LITESTREAM_VFS_LIB", None)
    return env


def with_frameworks(*folders: Path, **extra: str) -> dict[str, str]:
    """The same, with the frameworks that the tests use; without them the test is skipped."""
    if not (PYTHON_HOSTS / "django").exists():
        pytest.skip("there are no frameworks for Python here: make tools")
    return python_env(PYTHON_HOSTS, *folders, **extra)


@cache
def node_modules() -> Path:
    """A folder whose `node_modules` has the npm packages."""
    folder = dist() / "node"
    for package in dist().glob("sqlite-litestream*.tgz"):
        name = package.name.rsplit("-", 1)[0]
        target = folder / "node_modules" / name
        target.mkdir(parents=True)
        shutil.unpack_archive(package, folder / "unpacked" / name, filter="data")
        shutil.copytree(folder / "unpacked" / name / "package", target, dirs_exist_ok=True)
    return folder
