"""SQLite's own test programs - mptest, kvtest, speedtest1 - on a primary; afterwards the replica is the database.

Their source is Debian's source package of `sqlite3`, fetched when it is not there. Nothing of it is kept in this repository.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from . import litestream
from .location import Location
from .paths import LIBRARY, ROOT, clean_env
from .sql import sync
from .worker import Worker

PROGRAMS = {"mptest": "mptest/mptest.c", "kvtest": "test/kvtest.c", "speedtest1": "test/speedtest1.c"}
OPEN = ROOT / "scripts" / "torture_open.c"


def fetch(folder: Path) -> Path:
    """SQLite's source below `folder`, by apt if it is not there."""
    found = sorted(folder.glob("sqlite3-*/mptest"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        sources = folder / "sources.list"
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        suite = subprocess.check_output(["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"], text=True).strip()
        sources.write_text(f"deb-src [signed-by={keys}] http://deb.debian.org/debian {suite} main\n")
        for sub in ("lists/partial", "cache/archives/partial"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-",
               "-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache",
               "-o", "APT::Sandbox::User=root"]
        for arguments in (["update"], ["source", "--download-only", "sqlite3"]):
            subprocess.run([*apt, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = (path for path in folder.glob("sqlite3_*.orig.tar.xz"))
        subprocess.run(["tar", "xf", archive, "--wildcards", "*/mptest/*", "*/test/kvtest.c", "*/test/speedtest1.c"],
                       cwd=folder, check=True)
        found = sorted(folder.glob("sqlite3-*/mptest"))
    return found[0].parent


def build(source: Path, folder: Path) -> None:
    """Compiles the programs into `folder`, against the system's SQLite."""
    for name, path in PROGRAMS.items():
        # speedtest1 names its own configuration; it needs nothing of the library's internals.
        subprocess.run(["cc", "-O1", "-w", "-include", "sqlite3.h", "-Dsqlite3_open=torture_open",
                        "-Dsqlite3_open_v2=torture_open_v2", "-c", source / path, "-o", folder / f"{name}.o"], check=True)
        subprocess.run(["cc", "-O1", OPEN, folder / f"{name}.o", "-o", folder / name, "-lsqlite3", "-lpthread", "-lm"],
                       check=True)


def without_other_modes(script: str) -> str:
    """A script of mptest as it can run on a database that stays in WAL mode, where the page size stays too."""
    lines = [line for line in script.splitlines()
             if not re.match(r"\s*(--if vfsname|PRAGMA (journal_mode|page_size)=|--match( (512|1024|2048|8192|16384)){5})", line)]
    return "\n".join(lines) + "\n"


class Torture:
    """Programs on one database each, and their replicas."""

    def __init__(self, source: Path, folder: Path, locations: Callable[[str], Location], say: Callable[[str], None]):
        self.folder, self.locations, self.say = folder, locations, say
        self.programs = folder / "programs"
        self.programs.mkdir()
        build(source, self.programs)
        scripts = folder / "mptest-scripts"
        scripts.mkdir()
        for path in (source / "mptest").glob("*test"):
            (scripts / path.name).write_text(without_other_modes(path.read_text()))

    def run(self) -> None:
        for script in ("crash01", "multiwrite01", "config01", "config02"):
            self._program(script, ["mptest", "{db}", f"mptest-scripts/{script}.test", "--vfs", "litestream",
                                   "--journalmode", "wal", "--timeout", "60000"])
        self._program("speedtest1", ["speedtest1", "{db}", "--vfs", "litestream", "--journal", "wal", "--size", "15"])
        self._program("kvtest", ["kvtest", "init", "{db}", "--count", "500", "--size", "20000", "--variance", "5000"],
                      ["kvtest", "run", "{db}", "--count", "2000", "--update", "--random"])

    def _program(self, name: str, *commands: list[str]) -> None:
        folder = self.folder / name
        folder.mkdir()
        database, location = folder / "test.db", self.locations(name)
        parameters = location.primary("x", sync_interval="50ms", close_timeout="60s").partition("?")[2]
        env = clean_env(**location.env, TORTURE_LIBRARY=str(LIBRARY), TORTURE_PARAMETERS=parameters)
        for command in commands:
            program, *arguments = (part.format(db=database) for part in command)
            done = subprocess.run([self.programs / program, *arguments], env=env, cwd=self.folder, timeout=1800,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-5000:]}"
        summary = [line for line in done.stdout.splitlines() if line.startswith("Summary")]
        self._compare(name, database, location)
        self.say(f"{name}: identical, {len(location.files())} files in the replica. {' '.join(summary)}")

    def _compare(self, name: str, database: Path, location: Location) -> None:
        worker = Worker("python", env=location.env, cwd=self.folder)
        try:
            db = worker.open(location.primary(database))
            sync(db, 60)
            expected = db.content()
            db.close()
            restored = litestream.restore(location, database.with_name("restored.db"))
            assert expected.integrity == "ok" and location.gaps() == []
            assert worker.open(restored, "restored").content() == expected, f"{name}: the replica differs"
        finally:
            worker.kill()


def cached() -> Path:
    """Where the source is kept between runs."""
    return Path(os.environ.get("TORTURE_SOURCE") or ROOT / ".tools" / "sqlite-source")
