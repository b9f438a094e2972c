"""What a shared library on Linux says of itself, by readelf; and what of that must not be published."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ENTRY_POINTS = {"sqlite3_extension_init", "sqlite3_litestreamdefault_init", "sqlite3_litestreamvfs_init"}
GLIBC_PARTS = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
"""Before version 2.34 glibc was several libraries; later ones have the names still."""


@dataclass(frozen=True)
class Library:
    """The facts."""

    exported: frozenset[str]
    needed: frozenset[str]
    glibc: tuple[int, ...]
    """The latest version of glibc that any symbol asks for."""
    flags: frozenset[str]
    """`now`, `relro`, `nx` and `nodelete`, as far as they are there."""

    @classmethod
    def read(cls, path: Path) -> "Library":
        symbols = _readelf("--dyn-syms", path)
        dynamic, headers = _readelf("--dynamic", path), _readelf("--program-headers", path)
        exported = re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +(?!UND)\w+ +([^@\s]+)", symbols)
        versions = re.findall(r"GLIBC_([\d.]+)", _readelf("--version-info", path))
        stack = re.search(r"GNU_STACK.* (R?W?E?) +0x", headers)
        flags = {
            "now": re.search(r"\bNOW\b|BIND_NOW", dynamic), "relro": "GNU_RELRO" in headers,
            "nx": stack and "E" not in stack[1], "nodelete": "NODELETE" in dynamic,
        }
        return cls(
            exported=frozenset(exported),
            needed=frozenset(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)),
            glibc=max(tuple(map(int, version.split("."))) for version in versions),
            flags=frozenset(name for name, there in flags.items() if there),
        )

    def faults(self) -> list[str]:
        """What is wrong with any build of it: what it exports, and which protections it lacks."""
        wrong = [f"exports {name}" for name in sorted(self.exported - ENTRY_POINTS)]
        wrong += [f"does not export {name}" for name in sorted(ENTRY_POINTS - self.exported)]
        return wrong + [f"is not linked with {flag}" for flag in sorted({"now", "relro", "nx", "nodelete"} - self.flags)]

    def faults_of_published(self, glibc: str) -> list[str]:
        """What is wrong with one that is published: the same, and what ties it to the machine that it was built on."""
        wrong = [f"needs {name}" for name in sorted(self.needed - GLIBC_PARTS)]
        if self.glibc > tuple(map(int, glibc.split("."))):
            wrong.append(f"needs glibc {'.'.join(map(str, self.glibc))}")
        return self.faults() + wrong


def names(library: Path, folders: list[Path]) -> list[str]:
    """The paths below these folders, such as those that it was built in, that are in the file."""
    content = library.read_bytes()
    found = (re.search(re.escape(str(folder).encode()) + rb"[\w.+/-]*", content) for folder in folders)
    return [match[0].decode() for match in found if match]


def _readelf(option: str, path: Path) -> str:
    return subprocess.run(["readelf", "--wide", option, path], check=True, capture_output=True, text=True).stdout
