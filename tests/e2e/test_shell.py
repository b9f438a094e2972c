"""The sqlite3 shell as a host: transcripts of what an operator types and sees."""

from pathlib import Path

import pytest

from harness import compare, transcript
from harness.paths import LIBRARY

TRANSCRIPTS = Path(__file__).parent / "transcripts"
POLL_SECONDS = 1.0
"""The default of `poll_interval`."""


def variables(location):
    settings = "".join(f"&{k}={v}" for k, v in location.settings.items())
    return {
        "LIBRARY": str(LIBRARY.with_suffix("")),
        "REPLICA": f"replica={location.url}{settings}",
        "URL": location.full_url,
    }


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda p: p.stem)
def test_transcript_goes_as_written(path, location, shell):
    transcript.play(path, lambda: shell(location), variables(location), POLL_SECONDS)


def test_a_restored_file_is_identical_to_the_source(location, shell, tmp_path):
    writer = shell(location)
    names = variables(location)
    writer.run(f".load {names['LIBRARY']}\n.open 'file:app.db?vfs=litestream&{names['REPLICA']}'")
    writer.run("CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)"
               " INSERT INTO t SELECT i, randomblob(100) FROM n; DELETE FROM t WHERE a % 3 = 0;")
    # The first copy of the database is a reader: the WAL is not emptied under it.
    assert writer.run("SELECT litestream_sync() > '';") == "1"
    assert writer.run("PRAGMA wal_checkpoint(TRUNCATE);") == "0|0|0"
    restorer = shell(location)
    restorer.run(f".load {names['LIBRARY']}")
    report = restorer.run(f"SELECT litestream_restore('{names['URL']}', 'restored.db');")
    assert '"path"' in report
    assert compare.differing_pages(tmp_path / "app.db", tmp_path / "restored.db", 4096) == []
