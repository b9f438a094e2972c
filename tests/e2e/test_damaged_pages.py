"""A schema that SQLite cannot parse, or a damaged page: the program may not get far, but the pages can be copied, and a
copy is never wanted more. Replication stopped with "malformed database schema" after a kill, when it ran a query to have
the WAL index recovered, and each close took five seconds.
"""

import time

import pytest

from harness.sql import fill, sync


def a_broken_schema(db):
    """A column that nothing parses."""
    db.run("CREATE TABLE u(x)", "PRAGMA writable_schema=ON",
           "UPDATE sqlite_schema SET sql = 'CREATE TABLE u(x,,' WHERE name = 'u'", "PRAGMA writable_schema=OFF")


def a_broken_page(db):
    """The schema's own page is no page of a table any more."""
    db.run("PRAGMA writable_schema=ON", "UPDATE sqlite_schema SET rootpage = 1 WHERE name = 't'",
           "PRAGMA writable_schema=OFF")


@pytest.mark.parametrize("damage", [a_broken_schema, a_broken_page])
def test_it_is_replicated_after_a_kill(start, in_folder, tmp_path, damage):
    plain = start("python", load=False).open(tmp_path / "app.db")
    plain.run("PRAGMA journal_mode=WAL")
    fill(plain)
    damage(plain)
    plain.worker.kill()
    assert (tmp_path / "app.db-wal").stat().st_size > 0
    db = start("python", in_folder).open(in_folder.primary(tmp_path / "app.db"))
    sync(db)
    began = time.monotonic()
    db.close()
    assert time.monotonic() - began < 3
    console = start("python", in_folder).open(":memory:")
    console.load()
    console.one("SELECT litestream_restore(?, ?)", in_folder.full_url, str(tmp_path / "restored.db"))
    # The last close of one that opened the WAL brings it into the database.
    reader = start("python", load=False).open(tmp_path / "app.db")
    reader.one("PRAGMA user_version")
    reader.close()
    assert not (tmp_path / "app.db-wal").exists()
    assert (tmp_path / "restored.db").read_bytes()[100:] == (tmp_path / "app.db").read_bytes()[100:]
