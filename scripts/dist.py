#!/usr/bin/env python3
"""Builds what is published into dist/: the library as a tarball, a Python wheel, npm packages, sqlpkg.json, checksums.

    scripts/dist.py                      all, for this machine
    scripts/dist.py --library FILE       the same, of a library that is already built
    scripts/dist.py --target TRIPLE      for another target that cargo knows here
    scripts/dist.py --url URL            where the files will be published, for sqlpkg.json

What cargo-zigbuild links needs no glibc later than the one named below, whatever this machine has. The same sources give the
same bytes in any folder: paths are mapped, times are that of the last commit (or SOURCE_DATE_EPOCH), orders are fixed.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import elf
import notices

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute() / "dist"
"""A folder of cargo's own for what is published: it is built with other flags."""
GLIBC = "2.17"
"""The oldest that Rust itself supports, of 2012."""
NAME = "sqlite-litestream"
DESCRIPTION = "SQLite databases that replicate to object storage, and read replicas that need nothing local"


class Platform(NamedTuple):
    """How the package registries call a target."""

    os: str
    cpu: str
    wheel: str
    suffix: str = "so"
    libc: str = ""

    @property
    def label(self) -> str:
        return f"{self.os}-{self.cpu}"


def _linux(cpu: str, machine: str) -> Platform:
    tag = GLIBC.replace(".", "_")
    return Platform("linux", cpu, f"manylinux_{tag}_{machine}.manylinux2014_{machine}", libc="glibc")


PLATFORMS = {
    "x86_64-unknown-linux-gnu": _linux("x64", "x86_64"),
    "aarch64-unknown-linux-gnu": _linux("arm64", "aarch64"),
    "x86_64-apple-darwin": Platform("darwin", "x64", "macosx_10_12_x86_64", "dylib"),
    "aarch64-apple-darwin": Platform("darwin", "arm64", "macosx_11_0_arm64", "dylib"),
}


def main() -> None:
    host = re.search(r"^host: (.*)", run("rustc", "-vV"), re.M)[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path)
    parser.add_argument("--target", default=host, choices=sorted(PLATFORMS))
    parser.add_argument("--url", help="where the files will be published, for sqlpkg.json")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    # Times in archives: those of the sources, not of the build.
    os.environ.setdefault("SOURCE_DATE_EPOCH", run("git", "log", "-1", "--format=%ct").strip())
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    platform = PLATFORMS[given.target]
    library = given.library.absolute() if given.library else build(given.target)
    with tempfile.TemporaryDirectory() as scratch:
        parts = Path(scratch)
        library = Path(shutil.copy(library, parts / f"litestream_vfs.{platform.suffix}"))
        library.chmod(0o755)
        texts = parts / "THIRD_PARTY_LICENSES.txt"
        texts.write_text(notices.of_dependencies(given.target))
        made = [tarball(out, platform, library, texts), wheel(out, platform, library, texts),
                *npm(out, platform, library, texts), sqlpkg(out, given.url)]
    sums = out / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(made)))
    for path in sorted(made):
        print(f"{path.stat().st_size:>10} bytes  {path.name}")


def folders() -> dict[Path, str]:
    """Folders of this machine that a library may name, and what it names in their place. Of two that fit the later one counts."""
    cargo_home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    sysroot, commit = run("rustc", "--print", "sysroot").strip(), re.search(r"commit-hash: (.*)", run("rustc", "-vV"))[1]
    return {ROOT: ".", TARGET: "target", cargo_home: "cargo",
            **{source: "crates" for source in sorted(cargo_home.glob("registry/src/*"))},
            Path(sysroot): "rust", Path(sysroot, "lib/rustlib/src/rust"): f"/rustc/{commit}"}


def build(target: str) -> Path:
    """The library, built without the paths of this machine and, on Linux, for an old glibc."""
    folder, maps = TARGET, folders().items()
    env = os.environ | {
        "CARGO_TARGET_DIR": str(folder),
        "RUSTC_WRAPPER": str(ROOT / "scripts" / "rustc_without_paths.sh"),
        "DIST_RUSTC_FLAGS": "\n".join(f"--remap-path-prefix={path}={name}" for path, name in maps),
        # The host's SQLite is the only one: nothing of this machine's is linked.
        "SQLITE3_NO_PKG_CONFIG": "1",
        "CFLAGS": " ".join(f"-ffile-prefix-map={path}={name}" for path, name in maps),
    }
    is_linux = "linux" in target
    command = ["cargo-zigbuild" if is_linux else "cargo", "rustc", "--release", "--locked", "--lib", "--crate-type", "cdylib",
               "--target", f"{target}.{GLIBC}" if is_linux else target]
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    library = folder / target / "release" / f"liblitestream_vfs.{PLATFORMS[target].suffix}"
    wrong = [f"names {path}" for path in elf.names(library, list(folders()))]
    if is_linux:
        wrong += elf.Library.read(library).faults_of_published(GLIBC)
    if wrong:
        sys.exit("\n".join(f"the library {fault}" for fault in wrong))
    return library


def tarball(out: Path, platform: Platform, library: Path, texts: Path) -> Path:
    """The library, the licences, and the documents."""
    path = out / f"litestream_vfs-{VERSION}-{platform.label}.tar.gz"
    # The library at the top, where sqlpkg looks for it.
    files = {file.name: file.read_bytes()
             for file in (library, ROOT / "LICENSE", ROOT / "README.md", ROOT / "CHANGELOG.md", texts)}
    files |= {f"docs/{file.name}": file.read_bytes() for file in sorted((ROOT / "docs").iterdir())}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return pack(path, files | {"SHA256SUMS": sums.encode()})


def wheel(out: Path, platform: Platform, library: Path, texts: Path) -> Path:
    """The Python package, for every CPython and PyPy from 3.9 on."""
    env = os.environ | {"DIST_LIBRARY": str(library), "DIST_NOTICES": str(texts), "DIST_WHEEL_PLATFORM": platform.wheel}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
                       cwd=ROOT / "packages" / "python", env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        [made] = Path(folder).iterdir()
        return Path(shutil.copy(made, out / made.name))


def npm(out: Path, platform: Platform, library: Path, texts: Path) -> list[Path]:
    """The main package, which is the same for all platforms, and that of this platform, which holds the library."""
    common = {"version": VERSION, "license": "Apache-2.0", "description": DESCRIPTION,
              "keywords": ["sqlite", "sqlite-extension", "litestream", "replication", "backup"]}
    others = sorted({f"{NAME}-{other.label}" for other in PLATFORMS.values()})
    entry = {"require": {"types": "./index.d.ts", "default": "./index.cjs"},
             "import": {"types": "./index.d.ts", "default": "./index.mjs"}}
    main = {"name": NAME, **common, "main": "./index.cjs", "module": "./index.mjs", "types": "./index.d.ts",
            "exports": {".": entry}, "engines": {"node": ">=18"},
            "optionalDependencies": {name: VERSION for name in others}}
    binary = {"name": f"{NAME}-{platform.label}", **common, "os": [platform.os], "cpu": [platform.cpu],
              **({"libc": [platform.libc]} if platform.libc else {}),
              "exports": {f"./{library.name}": {"default": f"./{library.name}"}}}
    licence, sources = (ROOT / "LICENSE").read_bytes(), ROOT / "packages" / "npm"
    own = {name: (sources / name).read_bytes() for name in ("README.md", "index.cjs", "index.mjs", "index.d.ts")}
    readme = f"The shared library of {NAME} for {platform.label}; install `{NAME}`.\n".encode()
    return [
        pack(out / f"{NAME}-{VERSION}.tgz", {"package.json": dump(main), "LICENSE": licence, **own}, "package/"),
        pack(out / f"{NAME}-{platform.label}-{VERSION}.tgz",
             {"package.json": dump(binary), "LICENSE": licence, "README.md": readme, texts.name: texts.read_bytes(),
              library.name: library.read_bytes()}, "package/"),
    ]


def sqlpkg(out: Path, url: str | None) -> Path:
    """How the package manager of SQLite extensions gets the tarballs, which are published at `url`."""
    files = {platform.label.replace("x64", "amd64"): f"litestream_vfs-{VERSION}-{platform.label}.tar.gz"
             for platform in PLATFORMS.values()}
    path = out / "sqlpkg.json"
    path.write_bytes(dump({
        "owner": "litestream-vfs", "name": "litestream_vfs", "version": VERSION, "license": "Apache-2.0",
        "description": DESCRIPTION + ".",
        "symbols": ["litestream_sync", "litestream_restore", "litestream_status", "litestream_verify", "litestream_version"],
        "assets": {**({"path": url} if url else {}), "files": files},
    }))
    return path


def pack(path: Path, files: dict[str, bytes], folder: str = "") -> Path:
    """A tarball whose bytes depend on its content only."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(folder + name)
            member.size, member.mtime = len(content), int(os.environ["SOURCE_DATE_EPOCH"])
            member.mode = 0o755 if name.endswith((".so", ".dylib")) else 0o644
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(raw.getvalue(), 9, mtime=0))
    return path


def dump(value: dict) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


VERSION = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
"""Of the library and of every package: Cargo.toml alone has it."""

if __name__ == "__main__":
    main()
