"""What the walk over the generations of a WAL relies on in SQLite itself (src/primary/dirty/walk.rs), without the library.

SQLite 3.40 leaves frames without salts and checksum after a ROLLBACK TO of pages that had spilled into the WAL twice. Then the
index may name a last frame whose checksum is not the one in the index. That one is 0, or it is of a frame that was rolled
back: never of a commit before, whose end record would else be taken for the end of the longer generation.
"""

import itertools
import sqlite3
import struct

NUMBERS = "with recursive n(v) as (values(1) union all select v + 1 from n where v < {}) select v from n"


def last_commit(path):
    """The number of its frame, and its checksum, as the index has them."""
    header = path.with_name(path.name + "-shm").read_bytes()[:48]
    frame = struct.unpack_from("=I", header, 16)[0]
    return frame, struct.unpack_from("=II", header, 24)


def frames(path):
    """For each frame, whether it is sealed, and its checksum."""
    wal = path.with_name(path.name + "-wal").read_bytes()
    size = struct.unpack_from(">I", wal, 8)[0] + 24
    words = [struct.unpack_from(">6I", wal, at) for at in range(32, len(wal) - size + 1, size)]
    return [(any(word[2:]), word[4:6]) for word in words]


def insert(db, rows, width):
    db.execute(f"insert into t(name) select hex(randomblob({width})) from ({NUMBERS.format(rows)})")


def roll_back_to(path, cache, before, rows, update):
    """Ends a transaction after a ROLLBACK TO. Returns the checksums in the index of each commit, and whether the last frame
    is sealed."""
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=wal", "synchronous=off", "wal_autocheckpoint=0", f"cache_size={cache}"):
        db.execute(f"pragma {pragma}")
    db.execute("create table t(i integer primary key, name)")
    db.execute("create index ti on t(name)")
    commits = [last_commit(path)[1]]
    insert(db, before, 10)
    commits.append(last_commit(path)[1])
    db.execute("begin")
    db.execute("savepoint s")
    insert(db, rows, 3)
    if update:
        db.execute("update t set name = hex(randomblob(8)) where i % 7 = 1")
    db.execute("rollback to s")
    insert(db, 1, 3)
    db.execute("commit")
    frame, checksum = last_commit(path)
    is_sealed = frames(path)[frame - 1][0]
    db.close()
    return [*commits, checksum], is_sealed


def test_a_commit_that_is_not_sealed_has_no_checksum_of_another(tmp_path):
    unsealed = 0
    cases = itertools.product((3, 10), (1, 100), (300, 3000), (False, True))
    for number, case in enumerate(cases):
        checksums, is_sealed = roll_back_to(tmp_path / f"{number}.db", *case)
        assert len(set(checksums)) == len(checksums), case
        unsealed += not is_sealed
    if sqlite3.sqlite_version_info[:2] == (3, 40):
        assert unsealed > 0
