"""What each host shows of a commit that is not confirmed: the table in the documents, row by row.

The program's replica goes away, and it commits. The commit stands, and the host raises an error: none takes it for success,
repeats it, or undoes it. The programs are in `hosts/unconfirmed/`.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import packages, readme
from harness.paths import LIBRARY, NEWER_NODE, NODE_HOSTS, ROOT, SYSTEM_PYTHON, VENV_PYTHON, clean_env

PROGRAMS = Path(__file__).parent / "hosts" / "unconfirmed"
RUSQLITE = ROOT / "benches" / "host" / "target" / "release" / "bench-host"
DOCUMENTS = readme.text()
TABLE = DOCUMENTS[DOCUMENTS.index("| host | error |"):].split("\n\n")[0]
ROWS = dict(re.fullmatch(r"\| (.*?) \| `(.*)` \|", line).groups() for line in TABLE.splitlines()[2:])


def program(name: str, *first) -> list:
    return [*first, PROGRAMS / name]


def needs(*command: str) -> None:
    if not shutil.which(command[0]) or subprocess.run(command, capture_output=True, timeout=60).returncode:
        pytest.skip(f"there is no {command[0]} with SQLite here: make tools")


def python(folder: Path) -> dict:
    return packages.with_frameworks(folder)


def node(folder: Path) -> dict:
    """The modules where a program in `folder` finds them."""
    if not (NODE_HOSTS / "better-sqlite3").exists():
        pytest.skip("there are no hosts from npm here: make tools")
    (folder / "node_modules").mkdir()
    for module in [*(packages.node_modules() / "node_modules").iterdir(), *NODE_HOSTS.iterdir()]:
        if not module.name.startswith("."):
            (folder / "node_modules" / module.name).symlink_to(module)
    for name in PROGRAMS.glob("*.cjs"):
        shutil.copy(name, folder)
    return {}


def command_of(host: str, folder: Path, uri: str) -> tuple[list, dict]:
    """The program of a host, with its environment."""
    library = Path(shutil.copy(LIBRARY, folder / f"litestream_vfs{LIBRARY.suffix}"))
    told = [library, uri]
    match host:
        case "Python `sqlite3`":
            return program("sqlite3_.py", SYSTEM_PYTHON) + told, {}
        case "apsw":
            return program("apsw_.py", VENV_PYTHON) + told, {}
        case "SQLAlchemy":
            return program("sqlalchemy_.py", SYSTEM_PYTHON) + told, python(folder)
        case "Django":
            return program("django_.py", SYSTEM_PYTHON), python(folder)
        case "better-sqlite3":
            env = node(folder)
            return ["node", "--preserve-symlinks", folder / "better_sqlite3.cjs"], env
        case "`node:sqlite`":
            if not NEWER_NODE.exists():
                pytest.skip("there is no newer Node here: make tools")
            env = node(folder)
            return [NEWER_NODE, "--no-warnings", "--preserve-symlinks", folder / "node_sqlite.cjs"], env
        case "PHP PDO":
            needs("php", "-r", "exit(class_exists('SQLite3') && class_exists('PDO') ? 0 : 1);")
            return program("pdo.php", "php", "-d", f"sqlite3.extension_dir={folder}") + told, {}
        case "Ruby `sqlite3` 1.4":
            needs("ruby", "-e", "require 'sqlite3'")
            return program("sqlite3.rb", "ruby") + told, {}
        case "rusqlite, which looks at what `sqlite3_step` returns":
            if not RUSQLITE.exists():
                pytest.skip("there is no host with rusqlite here: `make bench` builds it")
            subprocess.run([RUSQLITE, "prepare", "app.db", "1"], cwd=folder, check=True)
            return [RUSQLITE, "single", uri, "1000", "200", library], {}
    raise AssertionError(f"no program for {host}")


@pytest.mark.parametrize("host", list(ROWS))
def test_the_error_is_as_told_and_the_commit_stands(host, through_proxy, proxy, tmp_path):
    uri = through_proxy.primary("app.db", commit="replicated", commit_timeout="300ms")
    command, env = command_of(host, tmp_path, uri)
    env = (env or clean_env()) | through_proxy.env | {"REPLICA": through_proxy.url, "ENDPOINT": proxy.endpoint}
    process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=env, text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # The host in Rust says when each of its commits returned.
    ready = process.stdout.readline().strip()
    assert ready == "ready" or host.startswith("rusqlite") and ready.isdigit(), ready + process.stdout.read()
    proxy.refuse()
    said = [line for line in process.communicate("go\n", timeout=60)[0].splitlines() if " litestream: " not in line]
    proxy.accept()
    if host.startswith("rusqlite"):
        assert said[-1] == ROWS[host]
    else:
        assert said == [ROWS[host], "1"]
