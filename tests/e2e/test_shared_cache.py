"""A program opens replicas with `cache=shared`, or has switched on shared caches for everything.

SQLite then finds what is open by its name, and the name of a replica says nothing: of two replicas with one name the second one
showed the rows of the first, a past state the latest, and a replica that does not exist opened. A replica is refused with the
remedy; a primary may share its cache.
"""

import subprocess

import pytest

from harness.location import Location
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env
from harness.sql import sync
from harness.worker import SqlError


@pytest.fixture
def replicas(start, tmp_path) -> list[Location]:
    """Two replicas with one row each, and a second transaction in the first one."""
    made = []
    for name in "ab":
        location = Location.file(tmp_path / f"replica-{name}")
        db = start("python").open(location.primary(tmp_path / f"{name}.db"))
        db.run("CREATE TABLE t(x)", f"INSERT INTO t VALUES ('{name}')")
        sync(db)
        db.run("INSERT INTO t VALUES ('later')")
        sync(db)
        db.close()
        made.append(location)
    return made


def assert_refused(error) -> None:
    assert "cache=shared" in str(error.value) and "say cache=private in the URI" in str(error.value)


def test_a_replica_is_refused_with_the_remedy(start, replicas):
    worker = start("python")
    for more in ({}, {"asof": "txid:1"}):
        with pytest.raises(SqlError) as error:
            worker.open(replicas[0].replica(cache="shared", **more), "shared")
        assert_refused(error)
    a, b = (worker.open(r.replica(cache="private"), f"private {n}") for n, r in enumerate(replicas))
    past = worker.open(replicas[0].replica(asof="txid:1"), "past")
    assert [db.rows("SELECT x FROM t") for db in (a, b, past)] == [[["a"], ["later"]], [["b"], ["later"]], [["a"]]]


def test_attach_is_refused_too(start, replicas):
    worker = start("python")
    db = worker.open(":memory:").load()
    with pytest.raises(SqlError):
        db.rows("ATTACH ? AS r", replicas[0].replica(cache="shared"))
    with pytest.raises(SqlError):
        db.rows("ATTACH ? AS r", replicas[1].replica(cache="shared"))
    assert "say cache=private in the URI" in str(db.rows("SELECT last_error FROM litestream_status"))
    db.rows("ATTACH ? AS a", replicas[0].replica())
    db.rows("ATTACH ? AS b", replicas[1].replica())
    assert db.rows("SELECT x FROM a.t EXCEPT SELECT x FROM b.t") == [["a"]]


def test_a_library_that_cannot_share_caches_reads_as_ever(start, replicas):
    worker = start("apsw")
    assert worker.open(":memory:", "m").one("SELECT sqlite_compileoption_used('OMIT_SHARED_CACHE')") == 1
    a, b = (worker.open(r.replica(cache="shared"), f"r{n}") for n, r in enumerate(replicas))
    assert [db.rows("SELECT x FROM t") for db in (a, b)] == [[["a"], ["later"]], [["b"], ["later"]]]


def test_primaries_share_a_cache(start, tmp_path):
    worker, location = start("python"), Location.file(tmp_path / "replica")
    one, two = (worker.open(location.primary(tmp_path / "app.db", cache="shared"), f"p{n}") for n in range(2))
    one.run("CREATE TABLE t(x)")
    two.run("INSERT INTO t VALUES (1)")
    # What a connection has not committed is seen only in the cache that it shares.
    one.run("PRAGMA read_uncommitted=1")
    two.run("BEGIN", "INSERT INTO t VALUES (2)")
    assert one.one("SELECT count(*) FROM t") == 2
    two.run("COMMIT")
    sync(one)
    for n in range(5):
        # That it came after opens that found a cache means nothing.
        worker.open(location.primary(tmp_path / "app.db", cache="shared"), "joined").close()
        replica = worker.open(location.replica(tmp_path / "app.db"), f"replica {n}")
        assert replica.one("SELECT count(*) FROM t") == 2
        assert replica.rows("SELECT role FROM litestream_status") == [["replica"]]


SWITCHED_ON = """
import sqlite3, sys
library, url = sys.argv[1:]
sqlite3.enable_shared_cache(True)
def loaded(name):
    connection = sqlite3.connect(name, uri=True)
    connection.enable_load_extension(True)
    connection.load_extension(library)
    return connection
loader = loaded(":memory:")
for more in ("", "&cache=private"):
    uri = f"file:app.db?vfs=litestream&mode=ro&replica={url}{more}"
    try:
        print(sqlite3.connect(uri, uri=True).execute("SELECT x FROM t").fetchall())
    except sqlite3.Error as e:
        print(e)
    try:
        loader.execute("ATTACH ? AS r", (uri,))
        print(loader.execute("SELECT x FROM r.t").fetchall())
    except sqlite3.Error:
        print(loader.execute("SELECT last_error FROM litestream_status WHERE role IS NULL").fetchall())
"""

BY_DEFAULT = """
import sqlite3, sys
library, path = sys.argv[1:]
sqlite3.enable_shared_cache(True)
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
for name in (path, f"file:{path}?cache=private"):
    try:
        print(sqlite3.connect(name, uri=True).execute("SELECT x FROM t").fetchall())
    except sqlite3.Error as e:
        print(e)
"""


def output_of(script: str, *arguments, **env: str) -> list[str]:
    done = subprocess.run([SYSTEM_PYTHON, "-W", "ignore", "-c", script, str(LIBRARY), *map(str, arguments)], env=clean_env(**env),
                          stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_so_it_is_where_the_program_shares_all_caches(replicas):
    *refused, opened, attached = output_of(SWITCHED_ON, replicas[0].url)
    assert len(refused) == 2 and all("say cache=private in the URI" in message for message in refused)
    assert opened == attached == "[('a',), ('later',)]"


def test_so_it_is_for_a_path_that_the_configuration_makes_a_replica(replicas, tmp_path):
    path, configuration = tmp_path / "shown.db", tmp_path / "litestream.yml"
    configuration.write_text(f"dbs:\n- path: {path}\n  role: replica\n  replica: {{url: '{replicas[0].url}'}}\n")
    refused, private = output_of(BY_DEFAULT, path, LITESTREAM_CONFIG=str(configuration), LITESTREAM_DEFAULT_VFS="1")
    assert "say cache=private in the URI" in refused and private == "[('a',), ('later',)]"
