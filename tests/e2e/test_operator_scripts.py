"""The scripts in `sql/` do in the sqlite3 shell what their first lines say."""

import re

import pytest

from harness.paths import LIBRARY, ROOT

SQL = ROOT / "sql"


@pytest.fixture
def session(shell, location, tmp_path):
    """A shell with a primary that has replicated something."""
    session = shell(location)
    settings = "".join(f"&{k}={v}" for k, v in location.settings.items())
    session.run(f".load {LIBRARY.with_suffix('')}\n"
                f".open 'file:app.db?vfs=litestream&replica={location.url}{settings}'\n"
                "CREATE TABLE t(x); INSERT INTO t VALUES (1), (2), (3);")
    assert session.run("SELECT litestream_sync() = litestream_txid();") == "1"
    session.run(f".parameter set @url '{location.full_url}'")
    return session


def test_status_script(session, location):
    output = session.run(f".read {SQL / 'status.sql'}")
    assert re.search(r"^ *role = primary$", output, re.M)
    assert location.url in output and "Error" not in output
    assert session.run("SELECT 1, 2;") == "1|2", "the shell's mode is as before"


def test_ltx_script(session, location):
    output = session.run(f".read {SQL / 'ltx.sql'}")
    assert "first_txid" in output and "Error" not in output
    for file in location.files():
        assert str(file.size) in output
    assert session.run("SELECT 1, 2;") == "1|2", "the shell's mode is as before"


def test_history_script(session, location):
    output = session.run(f".read {SQL / 'history.sql'}")
    assert "txid" in output and f"{location.last_txid():016x}" in output and "Error" not in output
    assert session.run("SELECT 1, 2;") == "1|2", "the shell's mode is as before"


def test_restore_script(session, tmp_path):
    session.run(".parameter set @path 'restored.db'")
    output = session.run(f".read {SQL / 'restore.sql'}")
    assert re.search(r"^ *pages = \d+$", output, re.M) and "integrity_check = ok" in output
    assert (tmp_path / "restored.db").exists()
    again = session.run(f".read {SQL / 'restore.sql'}")
    assert "restored.db" in again and "force" in again
    session.run(""".parameter set @options '{"force": true}'""")
    assert "integrity_check = ok" in session.run(f".read {SQL / 'restore.sql'}")


def test_each_script_says_how_to_run_it():
    for script in SQL.glob("*.sql"):
        text = script.read_text()
        assert text.startswith("-- ") and f".read sql/{script.name}" in text
