"""Every host of the table in `docs/hosts.md`: it loads the library, writes a primary, and reads the replica.

The programs are in `hosts/`, a dozen lines each. A host that this machine does not have is skipped, with what would bring it.
"""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import packages
from harness.location import Location, sqlite_uri
from harness.paths import BUN, LIBRARY, NEWER_NODE, NODE_HOSTS, ROOT, SYSTEM_PYTHON, VENV_PYTHON, clean_env

HOSTS = Path(__file__).parent / "hosts"
JDBC = Path("/usr/share/java/sqlite-jdbc.jar")
GO = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "-tags=libsqlite3"}


def needs(program: str, package: str, *check: str) -> None:
    """Skips the test without the program, or if it fails with the arguments `check`."""
    found = shutil.which(program)
    if not found or check and subprocess.run([found, *check], capture_output=True, env=clean_env(**GO)).returncode:
        pytest.skip(f"there is no {program} with SQLite here: apt-get install {package}")


class Place:
    """A folder for a host, with what its program is told."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.library = Path(shutil.copy(LIBRARY, folder / f"litestream_vfs{LIBRARY.suffix}"))
        self.location = Location.file(folder / "replica")

    def run(self, *command, told: tuple | None = None, **env) -> str:
        """What a program says that is told of library, primary, replica, and the URL of the replica."""
        url = self.location.url
        uris = (sqlite_uri("app.db", vfs="litestream", replica=url), sqlite_uri("reader.db", vfs="litestream", replica=url, mode="ro"))
        told = (self.library, *uris, url) if told is None else told
        environment = clean_env(**env)
        environment.pop("LITESTREAM_VFS_LIB", None)
        done = subprocess.run(list(map(str, [*command, *told])), cwd=self.folder, env=environment, capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == "", done.stderr
        return done.stdout.strip()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_ruby(place):
    needs("ruby", "ruby-sqlite3", "-e", "require 'sqlite3'")
    assert place.run("ruby", HOSTS / "host.rb") == "42"


@pytest.mark.parametrize("program", ["host_sqlite3.php", "host_pdo.php"])
def test_php(place, program):
    needs("php", "php-cli php-sqlite3", "-r", "exit(class_exists('SQLite3') ? 0 : 1);")
    assert place.run("php", "-d", f"sqlite3.extension_dir={place.folder}", HOSTS / program) == "42"


def test_perl(place):
    needs("perl", "libdbd-sqlite3-perl", "-MDBD::SQLite", "-e", "1")
    assert place.run("perl", HOSTS / "host.pl") == "42"


def test_tcl(place):
    needs("tclsh", "libsqlite3-tcl")
    if not list(Path("/usr/lib").glob("**/libtclsqlite3.so")):
        pytest.skip("there is no SQLite for Tcl here: apt-get install libsqlite3-tcl")
    assert place.run("tclsh", HOSTS / "host.tcl") == "42"


def test_java(place):
    needs("javac", "default-jdk-headless")
    if not JDBC.exists():
        pytest.skip("there is no JDBC driver here: apt-get install libxerial-sqlite-jdbc-java")
    subprocess.run(["javac", "-d", place.folder, "-cp", JDBC, HOSTS / "Host.java"], check=True)
    assert place.run("java", "-cp", f"{place.folder}:{JDBC}", "Host") == "42"


def test_go(place):
    needs("go", "golang-go golang-github-mattn-go-sqlite3-dev libsqlite3-dev", "list", "github.com/mattn/go-sqlite3")
    subprocess.run(["go", "build", "-o", place.folder / "host", HOSTS / "go" / "main.go"], check=True,
                   env=clean_env(**GO, GOCACHE=str(place.folder / "cache")))
    assert place.run("./host") == "42"


def test_c(place):
    if not Path("/usr/include/sqlite3.h").exists():
        pytest.skip("there is no sqlite3.h here: apt-get install libsqlite3-dev")
    subprocess.run(["cc", "-Wall", "-Werror", "-o", place.folder / "host", HOSTS / "host.c", "-lsqlite3"], check=True)
    assert place.run("./host") == "42"


def test_r(place):
    needs("Rscript", "r-cran-rsqlite", "-e", "library(RSQLite)")
    assert place.run("Rscript", HOSTS / "host.R") == "42"


def test_rusqlite(place):
    host = ROOT / "benches" / "host" / "target" / "release" / "bench-host"
    if not host.exists():
        pytest.skip("there is no host with rusqlite here: `make bench` builds it")
    database, url = sqlite_uri("app.db"), place.location.url
    place.run(host, told=("prepare", "app.db", "41"))
    place.run(host, told=("single", f"{database}?vfs=litestream&replica={url}", "1", "1", place.library))
    assert place.run(host, told=("points", f"{database}?vfs=litestream&replica={url}&mode=ro", "0.1", "1", "64", place.library))


@pytest.mark.parametrize("python", [SYSTEM_PYTHON, VENV_PYTHON], ids=["sqlite3", "apsw"])
def test_python(place, python):
    program = HOSTS / ("host_sqlite3.py" if python == SYSTEM_PYTHON else "host_apsw.py")
    assert place.run(python, program) == "42"


@pytest.fixture
def npm(place):
    """The npm packages of this project, and hosts from npm, where a program finds them."""
    if not (NODE_HOSTS / "better-sqlite3").exists():
        pytest.skip("there are no hosts from npm here: make tools")
    modules = place.folder / "node_modules"
    modules.mkdir()
    for module in [*(packages.node_modules() / "node_modules").iterdir(), *NODE_HOSTS.iterdir()]:
        if not module.name.startswith("."):
            (modules / module.name).symlink_to(module)
    return place


def node(place: Place, program: str, node: Path | str = "node") -> str:
    own = shutil.copy(HOSTS / program, place.folder)
    return place.run(node, "--no-warnings", "--preserve-symlinks", own, told=(place.location.url,))


@pytest.mark.parametrize("program", ["better_sqlite3.cjs", "better_sqlite3.mjs", "node_sqlite3.mjs", "knex.mjs", "drizzle.mjs"])
def test_node(npm, program):
    assert node(npm, program) == "42"


@pytest.mark.parametrize("program", ["node_sqlite.cjs", "node_sqlite.mjs"])
def test_a_newer_node_has_a_host_of_its_own(npm, program):
    if not NEWER_NODE.exists():
        pytest.skip("there is no newer Node here: make tools")
    assert node(npm, program, NEWER_NODE) == "42"


def test_bun(npm):
    """Restored at the open too, into an empty folder."""
    if not BUN.exists():
        pytest.skip("there is no Bun here: make tools")
    own = shutil.copy(HOSTS / "bun.mjs", npm.folder)
    assert npm.run(BUN, own, told=(npm.location.url,)) == "42"


def test_the_npm_packages_name_their_platform_and_each_other():
    found = {p.parent.name: json.loads(p.read_text()) for p in (packages.node_modules() / "node_modules").glob("*/package.json")}
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    main, binary = found.pop("sqlite-litestream"), found.popitem()[1]
    assert {main["version"], binary["version"], *main["optionalDependencies"].values()} == {version}
    assert binary["name"] in main["optionalDependencies"] and not found
    machine = subprocess.check_output(["node", "-p", "[process.platform, process.arch]"], text=True)
    assert str([*binary["os"], *binary["cpu"]]) == machine.strip().replace("[ ", "[").replace(" ]", "]")
    assert sys.platform == "darwin" or binary["libc"] == ["glibc"]
