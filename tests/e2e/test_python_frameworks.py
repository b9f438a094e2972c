"""SQLAlchemy's pools, Datasette and sqlite-utils, with the recipes of the Python package's README."""

import json
import subprocess

import pytest

from harness import packages
from harness.paths import SYSTEM_PYTHON


@pytest.fixture
def run(tmp_path, in_folder):
    def run(*arguments: object) -> str:
        done = subprocess.run([SYSTEM_PYTHON, *map(str, arguments)], cwd=tmp_path, env=packages.with_frameworks(), text=True,
                              capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == "", done.stderr
        return done.stdout

    return run


@pytest.fixture
def published(run, in_folder):
    run("-c", f"""if True:
        import sqlite_litestream
        db = sqlite_litestream.connect("app.db", "{in_folder.url}")
        db.executescript("CREATE TABLE note(id INTEGER PRIMARY KEY, body); INSERT INTO note(body) VALUES ('one'), ('two')")
        db.execute("SELECT litestream_sync()").fetchall()""")
    return in_folder


def test_a_pool_of_sqlalchemy_in_threads_and_after_a_fork(run, in_folder):
    said = run("-c", f"""if True:
        import os, sqlite_litestream
        from concurrent.futures import ThreadPoolExecutor
        from sqlalchemy import create_engine, text

        engine = create_engine("sqlite:///app.db", creator=lambda: sqlite_litestream.connect(
            "app.db", "{in_folder.url}", timeout=30, check_same_thread=False))
        os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
        with engine.begin() as db:
            db.execute(text("CREATE TABLE t(pid)"))
        def add(_):
            with engine.begin() as db:
                db.execute(text("INSERT INTO t VALUES (:pid)"), {{"pid": os.getpid()}})
        def many():
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(add, range(50)))
        many()
        pooled = engine.raw_connection()
        sqlite_litestream.load(pooled)
        pooled.cursor().execute("SELECT litestream_sync()").fetchall()
        pooled.cursor().execute("SELECT litestream_restore(?, 'early.db')", ("{in_folder.url}",)).fetchall()
        pooled.close()
        child = os.fork()
        many()
        with engine.connect() as db:
            db.execute(text("SELECT litestream_sync()")).all()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            reader = create_engine("sqlite://", creator=lambda: sqlite_litestream.connect("r.db", "{in_folder.url}", role="replica"))
            with reader.connect() as db:
                print(db.execute(text("SELECT count(*), count(DISTINCT pid) FROM t")).one())""")
    assert said.strip().splitlines()[-1] == "(150, 2)"


def test_datasette_serves_a_replica(run, published, tmp_path):
    (tmp_path / "metadata.json").write_text(json.dumps({"plugins": {"sqlite-litestream": {"replicas": {"app": published.url}}}}))
    for page in ("/-/databases.json", "/app.json", "/"):
        run("-m", "datasette", "--metadata", "metadata.json", "--get", page)
    answer = json.loads(run("-m", "datasette", "--metadata", "metadata.json", "--get", "/app/note.json?_shape=array"))
    assert [row["body"] for row in answer] == ["one", "two"]
    assert "litestream" in run("-m", "datasette", "plugins")


def test_sqlite_utils_has_the_functions(run, published):
    said = run("-m", "sqlite_utils", "query", ":memory:", f"SELECT litestream_restore('{published.url}', 'restored.db') AS report")
    assert json.loads(json.loads(said)[0]["report"])["restored"]
    assert json.loads(run("-m", "sqlite_utils", "rows", "restored.db", "note"))[1]["body"] == "two"


def test_the_plugins_stay_small():
    folder = packages.ROOT / "packages" / "python" / "src" / "sqlite_litestream"
    for plugin in folder.glob("*_plugin.py"):
        assert len(plugin.read_text().splitlines()) <= 40
