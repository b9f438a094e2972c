"""A reader copies the blocks of README.md and of the documents in `docs/`, from the first to the last, into a shell, a Python, a
script.

They run as they stand, in one folder, in their order: `s3://bucket/app` is a bucket of a real server that only
`AWS_ENDPOINT_URL` and credentials in the environment point to. Replaced is only what no test can have: the
folder that `make install` writes to, a folder for backups at the root of the disk, and times in the past.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from harness import age, packages, readme
from harness.compare import Content
from harness.litestream03 import Replicate as Replicate03
from harness.location import Location
from harness.paths import LIBRARY, ROOT, SUFFIX, SYSTEM_PYTHON, clean_env
from harness.s3 import REGION
from harness.wait import until

INSTALLED = "/usr/local/lib/litestream_vfs"
TIMES = ("yesterday 14:00", "5 minutes ago")


class Reader:
    """Somebody who tries out the README in a folder of his own."""

    def __init__(self, folder: Path, env: dict[str, str], shell):
        self.folder, self.env = folder, env
        (folder / "dist").mkdir()
        self.library = folder / "dist" / f"litestream_vfs{SUFFIX}"
        self.library.symlink_to(LIBRARY)
        (folder / f"litestream_vfs{SUFFIX}").symlink_to(LIBRARY)
        self.shell = shell(env=env)
        self.past = ""

    def adapted(self, block: readme.Block) -> str:
        text = block.text.replace(INSTALLED, str(self.library.with_suffix("")))
        text = text.replace("file:///backups", f"file://{self.folder}/backups")
        for time in TIMES:
            text = text.replace(time, self.past)
        return text

    def sql(self, block: readme.Block) -> str:
        """The shell's output, which must not speak of an error."""
        output = self.shell.run(self.adapted(block))
        assert not re.search(r"^(Parse |Runtime )?[Ee]rror|unknown option|unable to", output, re.M), f"{block}: {output}"
        return output

    def run(self, *command, **options) -> subprocess.CompletedProcess:
        return subprocess.run(list(map(str, command)), cwd=self.folder, env=packages.python_env(**self.env),
                              capture_output=True, text=True, timeout=60, **options)

    def python(self, block: readme.Block) -> str:
        done = self.run(SYSTEM_PYTHON, "-c", self.adapted(block))
        assert done.returncode == 0, f"{block}: {done.stderr}"
        return done.stdout

    def until_sigterm(self, block: readme.Block, is_working) -> None:
        """Runs a program that works until it is asked to end."""
        process = subprocess.Popen([SYSTEM_PYTHON, "-c", self.adapted(block)], cwd=self.folder,
                                   env=clean_env(**self.env), stderr=subprocess.PIPE, text=True)
        try:
            until(is_working, what=f"{block}: its work shows")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0 and not errors, f"{block}: {process.returncode}, {errors}"

    def rows(self, database: str) -> int:
        output = self.run("sqlite3", database, "SELECT count(*) FROM t").stdout
        return int(output or 0)

    def restored(self, name: str) -> int:
        """The rows in a new restore of the replica."""
        done = self.run(SYSTEM_PYTHON, "-c", (
            "import sqlite3; c = sqlite3.connect(':memory:'); c.enable_load_extension(True)\n"
            f"c.load_extension({str(self.library.with_suffix(''))!r})\n"
            f"c.execute(\"SELECT litestream_restore('s3://bucket/app', '{name}')\")"))
        assert done.returncode == 0, done.stderr
        assert self.run("sqlite3", name, "PRAGMA integrity_check").stdout.strip() == "ok"
        return self.rows(name)


@pytest.fixture
def location(s3):
    return Location.s3(s3.bucket("bucket"), "app", s3.endpoint)


@pytest.fixture
def reader(location, shell, tmp_path):
    config = tmp_path / "litestream.yml"
    config.write_text("dbs: []\n")
    env = location.env | {"AWS_ENDPOINT_URL": location.settings["endpoint"], "AWS_REGION": REGION, "LITESTREAM_CONFIG": str(config)}
    return Reader(tmp_path, env, shell)


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


def test_every_block_runs_as_it_stands(reader, location, start, tmp_path):
    seen = set()
    for block in readme.blocks():
        seen.add(block.mark)
        match block.language, block.mark:
            case "sql", "compare":
                _compare(reader, block, location)
            case "sql", "a key":
                assert reader.sql(block) == "" and (tmp_path / "key.txt").read_text().count("AGE-SECRET-KEY-1") == 1
            case "sql", "a sealed replica":
                _sealed(reader, block, location, tmp_path)
            case "sql", "a replica of Litestream 0.3":
                _old(reader, block, location, start, tmp_path)
            case "sql", _:
                reader.sql(block)
            case "python", "ended by SIGTERM":
                _ended(reader, block)
            case "python", _:
                reader.python(block)
                reader.past = now()
            case "sh", "packages":
                _packages(block)
            case "sh", "command line":
                for line in block.text.splitlines():
                    done = reader.run(SYSTEM_PYTHON, *line.split()[1:])
                    assert done.returncode == 0, f"{block}: {line}: {done.stderr}"
            case "sh", "":
                _commands(reader, block)
            case "json", _:
                json.loads(block.text)
            case "yaml", _:
                # What follows asks what is in force by it.
                (tmp_path / "litestream.yml").write_text(block.text)
            case other:
                raise AssertionError(f"{block}: nobody runs a block like {other}")
    assert {"compare", "ended by SIGTERM", "a key", "a sealed replica", "a replica of Litestream 0.3"} <= seen
    first = {name: reader.rows(name) for name in ("restored.db", "again.db")}
    assert first == {"restored.db": 1, "again.db": 2}
    # The second of two replicas.
    assert reader.rows("from-folder.db") > 2


def _packages(block: readme.Block) -> None:
    """Each line names packages that `make dist` makes."""
    for line in block.text.splitlines():
        [pattern] = re.findall(r"\S+\*\S+", line)
        assert list(packages.dist().glob(pattern.removeprefix("./"))), f"{block}: {line}"


def _commands(reader: Reader, block: readme.Block) -> None:
    """Make's targets are looked up, which build for minutes; any other script is run for a new container."""
    targets = re.findall(r"^make (\w+)", block.text, re.M)
    if targets:
        assert len(targets) == len(block.text.splitlines())
        done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{block}: {done.stderr}"
        return
    container = reader.folder / "container"
    for _ in ("with an empty disk", "started again"):
        container.mkdir(exist_ok=True)
        done = subprocess.run(["bash", "-c", reader.adapted(block), "start", "sqlite3", "app.db", "SELECT count(*) FROM t"],
                              cwd=container, env=clean_env(**reader.env), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "2", f"{block}: {done.stdout}{done.stderr}"
    away = clean_env(**reader.env | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    (container / "app.db").unlink()
    done = subprocess.run(["bash", "-c", reader.adapted(block), "start", "true"], cwd=container, env=away,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and not (container / "app.db").exists(), f"{block}: {done.stdout}{done.stderr}"


def _ended(reader: Reader, block: readme.Block) -> None:
    reader.shell.run(".open :memory:")  # so that the program is the only one
    before = reader.rows("app.db")
    reader.until_sigterm(block, lambda: reader.rows("app.db") > before + 2)
    assert reader.restored("after-sigterm.db") == reader.rows("app.db")


def _compare(reader: Reader, block: readme.Block, location: Location) -> None:
    reader.shell.run(".open 'file:app.db?vfs=litestream&replica=s3://bucket/app'\n"
                     "DELETE FROM t WHERE x = 1; SELECT litestream_sync();\n.open :memory:")
    assert reader.sql(block).splitlines() == ["1"]


def _sealed(reader: Reader, block: readme.Block, location: Location, tmp_path: Path) -> None:
    """The same bucket, for the time being: what somebody sealed to a key of his own."""
    golden = ROOT / "tests" / "golden" / "ltx4"
    (tmp_path / "key.txt").write_text(json.loads((golden / "keys.json").read_text())[0]["identity"] + "\n")
    aside, database = location.folder.rename(tmp_path / "aside"), (tmp_path / "app.db").rename(tmp_path / "aside.db")
    for level in (golden / "one-recipient-4096" / "ltx").iterdir():
        shutil.copytree(level, location.level(int(level.name)))
    output = reader.shell.run(".open :memory:\n" + block.text)
    assert '"sealed":3' in output and output.count(".ltx|1") == 6 and "error" not in output.lower(), f"{block}: {output}"
    assert (tmp_path / "app.db").read_bytes() == (golden / "one-recipient-4096" / "at-5.db").read_bytes()
    shutil.rmtree(location.folder)
    aside.rename(location.folder)
    (tmp_path / "app.db").unlink()
    database.rename(tmp_path / "app.db")


def _old(reader: Reader, block: readme.Block, location: Location, start, tmp_path: Path) -> None:
    """The same bucket, years ago: written by Litestream 0.3, encrypted with age."""
    for path in sorted(location.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    keys = age.generate()
    (tmp_path / "key.txt").write_text(keys[0] + "\n")
    source = start("python", load=False).open(tmp_path / "source.db")
    source.run("PRAGMA journal_mode=WAL", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1), (2)")
    (reader.folder / "app.db").unlink()
    with Replicate03(tmp_path / "source.db", location, tmp_path, keys):
        pass
    text = block.text.replace("/etc/litestream/key.txt", str(tmp_path / "key.txt"))
    output = reader.shell.run(".open :memory:\n" + text)
    assert '"restored":true' in output, f"{block}: {output}"
    restored: Content = start("python", load=False).open(reader.folder / "app.db").content()
    assert restored.tables["t"][0] == 2 and restored.integrity == "ok"


def test_a_block_that_fails_is_seen(reader):
    broken = readme.blocks_of("a.md", "## A heading\n\n```sql\n.open 'file:app.db' -- a comment\n```\n")
    with pytest.raises(AssertionError, match="a.md, A heading, line 3"):
        reader.sql(broken[0])


def test_the_library_loads_from_where_make_install_puts_it(tmp_path):
    """`make install` without its build: what it would copy, and where to."""
    done = subprocess.run(["make", "-n", "install", f"PREFIX={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert f"{tmp_path}/lib/" in done.stdout
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"litestream_vfs{SUFFIX}").write_bytes(LIBRARY.read_bytes())
    load = f".load {tmp_path}/lib/litestream_vfs"
    done = subprocess.run(["sqlite3", ":memory:", load, "SELECT litestream_version()"],
                          env=clean_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and re.match(r"\d+\.\d+\.\d+", done.stdout), done.stderr
    assert os.listdir(tmp_path / "lib") == [f"litestream_vfs{SUFFIX}"]


def listed(mark: str) -> list[str]:
    """What stands in the first column of the table below a mark."""
    table = readme.text().split(f"<!-- {mark} -->\n")[1].split("\n\n")[0]
    return [name for line in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_the_columns_and_states_are_those_of_the_library(start):
    db = start("python").open(":memory:")
    columns = [row[1] for row in db.rows("PRAGMA table_info(litestream_status)")]
    assert listed("columns of litestream_status") == columns
    code = {name for source in ("primary/shipper/mod.rs", "functions/database.rs", "functions/status.rs")
            for name in re.findall(r'=> "([a-z ]+)"', (ROOT / "src" / source).read_text())}
    fencing = {"atomic", "look first", "unproven"}
    assert set(listed("states of a primary and a replica")) == {*code, "following", "retrying", "past"} - fencing


def test_the_keys_of_a_restore_are_those_of_the_library(start, in_folder, tmp_path):
    worker = start("python", in_folder)
    worker.open(in_folder.primary(tmp_path / "app.db")).run("CREATE TABLE t(x)", "SELECT litestream_sync()")
    db = worker.open(":memory:", "plain")
    db.load()
    text = readme.text().split("`litestream_restore` answers with")[1].split("\n\n")[0]
    described = set(re.findall(r"`([a-z_]+)`", text))
    for options in ({}, {"if_db_not_exists": True}, {"dry_run": True, "force": True}):
        answer = json.loads(db.rows("SELECT litestream_restore(?, 'out.db', ?)", in_folder.url, json.dumps(options))[0][0])
        assert answer and set(answer) <= described


def test_every_link_leads_somewhere():
    """Links between the documents: the file is there, and has a heading by the anchor's name."""
    def anchors(path: Path) -> set[str]:
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    linked = 0
    for document in (*readme.DOCUMENTS, "ARCHITECTURE.md", "packages/python/README.md", "packages/npm/README.md"):
        path = ROOT / document
        for link in re.findall(r"\]\(((?!https?:|mailto:)[^)\s]+)\)", path.read_text()):
            name, _, anchor = link.partition("#")
            target = (path.parent / name) if name else path
            assert target.exists(), f"{document}: {link}"
            assert not anchor or anchor in anchors(target), f"{document}: {link}"
            linked += 1
    assert linked > 30
