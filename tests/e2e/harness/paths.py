"""Where the library under test, the hosts and the peers are."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

LIBRARY = Path(os.environ.get("LITESTREAM_VFS_LIB") or ROOT / "dist" / f"litestream_vfs{SUFFIX}").absolute()
"""The library under test."""

VENV_PYTHON = sys.executable
"""The interpreter that runs the tests; it has apsw and the peers' packages."""

SYSTEM_PYTHON = os.environ.get("SYSTEM_PYTHON", "/usr/bin/python3")
"""The interpreter whose own `sqlite3` module loads extensions."""

OLD_LIBRARY = Path(os.environ["LITESTREAM_VFS_OLD"]) if os.environ.get("LITESTREAM_VFS_OLD") else None
"""Version 0.1.0 of the library, for the tests in which both versions have a database open."""
SQLITE_SHELL = shutil.which("sqlite3") or "sqlite3"
LITESTREAM = Path(sys.executable).parent / "litestream"
LITESTREAM_03 = Path(os.environ.get("LITESTREAM_03") or ROOT / ".tools" / "litestream-0.3" / "bin" / "litestream")
"""Litestream 0.3.13, whose replicas are restored."""
SQLITE3MC = Path(os.environ.get("SQLITE3MC") or ROOT / ".tools" / "sqlite3mc")
"""The folder of an apsw with SQLite3MultipleCiphers, which has the name of the other one."""
RCLONE = Path(os.environ.get("LITESTREAM_TEST_RCLONE") or Path(sys.executable).parent / "rclone")
S3S_FS = Path(os.environ.get("S3S_FS") or ROOT / ".tools" / "bin" / "s3s-fs")


def litestream_vfs() -> Path:
    """The loadable extension of Litestream itself."""
    import litestream_vfs

    return next(Path(litestream_vfs.__file__).parent.glob("litestream-vfs*" + SUFFIX))


STORES = ("AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_", "LITESTREAM_", "OSS_", "SSH_AUTH_", "STORAGE_EMULATOR_")
"""What the variables of stores begin with."""


def clean_env(**extra: str) -> dict[str, str]:
    """This process's environment without anybody's credentials and settings, and with `extra`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(STORES)}
    # Where the official credential chain would look after the environment.
    env["AWS_EC2_METADATA_DISABLED"] = "true"
    env["AWS_SHARED_CREDENTIALS_FILE"] = env["AWS_CONFIG_FILE"] = os.devnull
    return env | extra
NODE_HOSTS = Path(os.environ.get("NODE_HOSTS") or ROOT / ".tools" / "node" / "node_modules")
"""The npm packages that are hosts."""
NEWER_NODE = Path(os.environ.get("NEWER_NODE") or ROOT / ".tools" / "newer-node" / "node_modules" / "node" / "bin" / "node")
"""A Node that has `node:sqlite` with extensions."""
BUN = Path(os.environ.get("BUN") or ROOT / ".tools" / "bun" / "node_modules" / ".bin" / "bun")
PYTHON_HOSTS = Path(os.environ.get("PYTHON_HOSTS") or ROOT / ".tools" / "python-hosts")
"""Frameworks for `SYSTEM_PYTHON`."""
