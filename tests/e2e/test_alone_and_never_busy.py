"""A connection that is alone, in one thread, without a busy timeout, is never told that its database is locked.

What is in its way could only be a thread of the library. Each read of the database or its WAL by one of those takes long
here, so that it keeps what it has locked at that moment: the locks of a recovery of the WAL index, or a read view.
"""

import shutil
import subprocess

import pytest

from harness.litestream import restore
from harness.script import run

SLOW_READS = r"""
/* Each read of app.db or its WAL takes long, but in the program's own thread. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void hold(int fd) {
    char link[64], path[4096];
    if (syscall(SYS_gettid) == getpid()) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return;
    path[size] = 0;
    const char *name = strrchr(path, '/');
    if (name && (!strcmp(name, "/app.db") || !strcmp(name, "/app.db-wal"))) {
        FILE *note = fopen(getenv("HELD"), "a");
        if (note) { fputs("held\n", note); fclose(note); }
        usleep(30000);
    }
}

#define SLOW(name, type, params, args) \
    type name params { \
        static type (*next) params; \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        type answer = next args; \
        hold(fd); \
        return answer; \
    }
SLOW(read, ssize_t, (int fd, void *to, size_t size), (fd, to, size))
SLOW(pread, ssize_t, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
SLOW(pread64, ssize_t, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
"""

# A program without the library ends as by kill -9, and leaves a WAL without an index.
LEFT = r"""
import os, subprocess
def leave_a_wal():
    subprocess.run([sys.executable, "-c", '''
import os, sqlite3
db = sqlite3.connect("app.db", isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
db.execute("INSERT INTO t VALUES (randomblob(50000))")
os._exit(0)
'''], check=True, env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"})

load()
"""


@pytest.fixture
def slow_reads(tmp_path):
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "slow.c").write_text(SLOW_READS)
    compiler = shutil.which("cc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", folder / "slow.so", folder / "slow.c", "-ldl"], check=True)
    held = folder / "held"
    yield {"LD_PRELOAD": str(folder / "slow.so"), "HELD": str(held)}
    assert held.exists(), "no thread of the library was held"


def test_statements_after_an_open(slow_reads, in_folder, tmp_path):
    run(LEFT + """
for n in range(4):
    leave_a_wal()
    db = connect(uri, timeout=0)
    assert one(db, "SELECT count(*) FROM t") == 2 * n + 1
    db.execute("INSERT INTO t VALUES (1)")
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy, n
    db.close()
""", tmp_path, in_folder.env | slow_reads, uri=in_folder.primary(tmp_path / "app.db"))


def test_checkpoints_while_commits_are_read(slow_reads, in_folder, tmp_path):
    run(LEFT + """
leave_a_wal()
db = connect(uri, timeout=0)
for n in range(8):
    db.execute("INSERT INTO t VALUES (randomblob(20000))")
    mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][n % 4]
    busy, frames, done = db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    assert not busy, (n, mode)
    assert mode == "PASSIVE" or frames == done, (n, mode, frames, done)
db.execute("VACUUM")
# A connection that keeps the database for itself shows its commits only after the first copy.
db.execute("SELECT litestream_sync(60)").fetchall()
db.execute("PRAGMA locking_mode=EXCLUSIVE")
db.execute("INSERT INTO t VALUES (1)")
db.execute("SELECT litestream_sync(60)").fetchall()
db.close()
""", tmp_path, in_folder.env | slow_reads, uri=in_folder.primary(tmp_path / "app.db", sync_interval="10ms"))
    assert restore(in_folder, tmp_path / "restored.db").exists()


def test_two_connections_of_one_thread(slow_reads, in_folder, tmp_path):
    run(LEFT + """
leave_a_wal()
first, second = connect(uri, timeout=0), connect(uri, timeout=0)
for n in range(6):
    first.execute("INSERT INTO t VALUES (randomblob(20000))")
    second.execute("INSERT INTO t VALUES (2)")
    busy, _, _ = second.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy, n
second.close()
first.execute("INSERT INTO t VALUES (3)")
first.close()
""", tmp_path, in_folder.env | slow_reads, uri=in_folder.primary(tmp_path / "app.db", sync_interval="10ms"))
