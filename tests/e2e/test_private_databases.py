"""A database that only its owner may read, on a machine with other users.

What belongs to a database holds its content: what waits for the store, copies of the WAL, the files of a replica in a folder.
All of it has the owner and the permissions of the database, as SQLite's own files beside it have, whoever opens it first and
whatever the umask is. A restore keeps the owner and the permissions of the file that it replaces, and nobody can read what it
downloads before it is there.
"""

import os
import shutil
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env

APP, OTHER = 4001, 4002
"""Users and groups of the same numbers."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"),
                                reason="only root, with setpriv, can act as several users")

PRELUDE = """
import os, sqlite3, sys
os.umask(int(sys.argv[1], 8))
first = sqlite3.connect(":memory:")
first.enable_load_extension(True)
first.load_extension(sys.argv[2])
def connect(uri):
    return sqlite3.connect(uri, uri=True, isolation_level=None)
args = sys.argv[3:]
"""

WRITE = """
db = connect(args[0])
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
for _ in range(3):
    db.execute("INSERT INTO t VALUES (randomblob(300000))")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""
SYNC = WRITE + 'db.execute("SELECT litestream_sync()").fetchone(); db.close()'
LEAVE = WRITE + "os._exit(0)"
RESTORE = "print(first.execute('SELECT litestream_restore(?, ?, ?)', args).fetchone()[0])"


@pytest.fixture
def folder():
    """A folder of the user APP that others can look into."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(LIBRARY, f"{name}/library{LIBRARY.suffix}")
        os.chmod(name, 0o755)
        folder = Path(name, "data")
        folder.mkdir(mode=0o755)
        os.chown(folder, APP, APP)
        yield folder


def run(user: int, folder: Path, script: str, *args, umask: str = "022") -> subprocess.CompletedProcess:
    """Runs a script as a user."""
    library = next(folder.parent.glob("library*"))
    command = [SYSTEM_PYTHON, "-c", PRELUDE + script, umask, str(library), *map(str, args)]
    as_user = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"] if user else []
    env = clean_env(LITESTREAM_LEVELS="24h", AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="secret")
    return subprocess.run([*as_user, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def ran(*args, **options) -> str:
    done = run(*args, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def database(folder: Path, mode: int, owner: int = APP) -> Path:
    path = folder / "app.db"
    ran(owner, folder, "connect(args[0]).execute('CREATE TABLE t(x)')", path)
    os.chmod(path, mode)
    return path


def uri(path: Path, **parameters) -> str:
    return f"file:{path}?vfs=litestream" + "".join(f"&{key}={value}" for key, value in parameters.items())


def nowhere(path: Path) -> str:
    """A replica in a store that does not answer: what is committed waits on local disk."""
    return uri(path, replica="s3://bucket/app", endpoint="http://127.0.0.1:1", close_timeout="0s")


def below(folder: Path) -> list[Path]:
    return [folder, *sorted(folder.rglob("*"))]


def rights(path: Path) -> tuple[int, int, str]:
    found = path.lstat()
    return found.st_uid, found.st_gid, oct(stat.S_IMODE(found.st_mode))


def assert_like(path: Path, *folders: Path, but: tuple[str, ...] = ()) -> int:
    """All that is in the folders has the rights of the database; how many files that are."""
    uid, gid, mode = rights(path)
    enter = (int(mode, 8) & 0o444) >> 2
    files = 0
    for entry in (entry for folder in folders for entry in below(folder)):
        if not entry.name.startswith(but or ("no such",)):
            expected = oct(int(mode, 8) | enter) if entry.is_dir() else mode
            assert rights(entry) == (uid, gid, expected), entry
            files += entry.is_file()
    return files


class Watch:
    """Looks all the time whether there is anything in a folder that only its owner should read and others may."""

    def __init__(self, folder: Path, names):
        self.found: set[str] = set()
        self._folder, self._names, self._stop = folder, names, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.is_set():
            for where, folders, files in os.walk(self._folder):
                folders[:] = [name for name in folders if where != str(self._folder) or self._names(name)]
                for name in files:
                    try:
                        found = os.lstat(os.path.join(where, name))
                    except FileNotFoundError:
                        continue
                    private = where != str(self._folder) or self._names(name)
                    if private and stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
                        self.found.add(f"{where}/{name}: {oct(found.st_mode)}")

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("umask", ["000", "077"])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660])
def test_what_belongs_to_a_database_is_for_those_who_may_read_it(mode, umask, folder):
    path = database(folder, mode)
    replica = folder / "backups" / "replica"
    where = uri(path, replica=f"file://{replica}", close_timeout="0s")
    ran(APP, folder, SYNC, where, umask=umask)
    assert assert_like(path, folder / ".app.db-litestream", folder / "backups") >= 4
    # While the store is away, what is committed waits on local disk.
    replica.rename(folder / "away")
    replica.write_text("")
    ran(APP, folder, LEAVE, where, umask=umask)
    assert list((folder / ".app.db-litestream" / "generations").iterdir())
    assert_like(path, folder / ".app.db-litestream")


def test_no_file_can_be_read_even_for_a_moment(folder):
    path = database(folder, 0o600)
    ours = ("replica", ".app.db-litestream").__contains__
    with Watch(folder, ours) as watch:
        for _ in range(3):
            ran(APP, folder, LEAVE, nowhere(path), umask="000")
            ran(APP, folder, SYNC, uri(path, replica=f"file://{folder}/replica"), umask="000")
    assert not watch.found


@pytest.mark.parametrize("end", [SYNC, LEAVE])
def test_root_opens_it_first_and_then_the_user_of_the_app(end, folder):
    path = database(folder, 0o600)
    where = uri(path, replica=f"file://{folder}/replica")
    ran(0, folder, end, where)
    assert_like(path, folder / ".app.db-litestream", folder / "replica")
    ran(APP, folder, SYNC, where)
    ran(0, folder, SYNC, where)
    assert_like(path, folder / ".app.db-litestream", folder / "replica")


def test_what_an_earlier_version_left_is_put_right(folder):
    path = database(folder, 0o640)
    where = uri(path, replica=f"file://{folder}/replica")
    ran(APP, folder, SYNC, where)
    for entry in below(folder / ".app.db-litestream") + below(folder / "replica" / "ltx"):
        os.chown(entry, 0, 0)
        os.chmod(entry, 0o755 if entry.is_dir() else 0o644)
    refused = run(APP, folder, SYNC, where).stderr
    assert "chown" in refused and ".app.db-litestream" in refused
    # What is not the database's own is left alone, wherever a link leads.
    (folder / "precious").write_text("")
    (folder / ".app.db-litestream" / "link").symlink_to(folder / "precious")
    ran(0, folder, SYNC, where)
    assert_like(path, folder / ".app.db-litestream", folder / "replica", but=("link",))
    assert rights(folder / "precious")[:2] == (0, 0)
    ran(APP, folder, SYNC, where)


def test_a_member_of_the_group_shares_a_database_of_the_group(folder):
    """Two users of one group, with a umask that takes the group's rights away, and both at the same time."""
    path = database(folder, 0o660)
    os.chown(path, APP, OTHER)
    os.chown(folder, APP, OTHER)
    os.chmod(folder, 0o770)
    where = uri(path, replica=f"file://{folder}/replica")
    ran(0, folder, SYNC, where, umask="077")
    ran(OTHER, folder, SYNC, where, umask="077")
    ran(0, folder, SYNC, where, umask="077")
    assert ran(OTHER, folder, SYNC + "\nprint('synced')", where, umask="077") == "synced\n"


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_a_restore_over_a_file_keeps_its_owner_and_permissions(umask, folder):
    path = database(folder, 0o640)
    replica = f"file://{folder}/replica"
    ran(APP, folder, SYNC, uri(path, replica=replica))
    with Watch(folder, lambda name: name.startswith(".litestream-restore")) as watch:
        ran(0, folder, RESTORE, replica, path, '{"force": true, "integrity_check": "full"}', umask=umask)
    ran(0, folder, RESTORE, replica, folder / "new.db", "{}", umask=umask)
    assert rights(path) == (APP, APP, "0o640")
    assert rights(folder / "new.db") == (0, 0, oct(0o644 & ~int(umask, 8)))
    # Right before it gets its name it has the permissions that go with that.
    assert not {found for found in watch.found if not found.endswith("640")}
    ran(APP, folder, SYNC, uri(path, replica=replica))


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_a_restore_that_cannot_keep_the_owner_is_refused_before_it_begins(mode, folder):
    path = database(folder, mode)
    replica = f"file://{folder}/replica"
    ran(APP, folder, SYNC, uri(path, replica=replica))
    for entry in below(folder / "replica"):
        os.chmod(entry, 0o755 if entry.is_dir() else 0o644)
    os.chmod(folder, 0o777)
    before = path.read_bytes()
    if mode == 0o644:
        refused = run(OTHER, folder, RESTORE, replica, path, '{"force": true}').stderr
        assert "it cannot be told whether" in refused and ".app.db-litestream" in refused
    shutil.rmtree(folder / ".app.db-litestream")
    refused = run(OTHER, folder, RESTORE, replica, path, '{"force": true}').stderr
    assert str(path) in refused and "as root, or to another path" in refused
    assert path.read_bytes() == before and rights(path) == (APP, APP, oct(mode))
    assert not list(folder.glob(".litestream-*"))


def test_what_a_reader_keeps_is_its_own(folder):
    path = database(folder, 0o666)
    where = f"file://{folder}/replica"
    ran(APP, folder, SYNC, uri(path, replica=where), umask="000")
    read = """
db = connect(args[0])
db.execute("SELECT count(*) FROM t").fetchone()
import time
while not os.path.exists(args[1] + "-record"):
    time.sleep(0.02)
db.close()
"""
    hydration = folder / "hydrated" / "file"
    with Watch(folder, ("hydrated", "cache").__contains__) as watch:
        replica = uri(path, replica=where, mode="ro", hydrate=1, hydration_path=hydration, cache_dir=folder / "cache")
        ran(APP, folder, read, replica, hydration, umask="000")
    assert not watch.found
    for entry in below(folder / "hydrated") + below(folder / "cache"):
        assert rights(entry) == (APP, APP, "0o700" if entry.is_dir() else "0o600"), entry
    assert {entry.name for entry in below(folder / "hydrated")} >= {"file", "file-record"}
