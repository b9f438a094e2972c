"""SQLite has no mutexes: it was compiled with SQLITE_THREADSAFE=0, or the process put it into single-thread mode. Our
threads would corrupt its memory, so the load and the open are refused with the reason, and plain SQLite works on.

The mode may change after the load, between sqlite3_shutdown and sqlite3_initialize.
"""

import subprocess
from pathlib import Path

import pytest

from harness import c_host
from harness.litestream import restore
from harness.paths import LIBRARY, clean_env

HOST = r"""
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int nothing(void) { return SQLITE_OK; }
static void leave(sqlite3_mutex *mutex) { (void)mutex; }
static int enter(sqlite3_mutex *mutex) { (void)mutex; return SQLITE_OK; }
static int held(sqlite3_mutex *mutex) { (void)mutex; return 1; }
static sqlite3_mutex *allocate(int kind) { (void)kind; return (sqlite3_mutex *)8; }
static sqlite3_mutex_methods stand_ins = {nothing, nothing, allocate, leave, leave, enter, leave, held, held};

static void configure(const char *mode) {
  if (!strcmp(mode, "stand-ins")) sqlite3_config(SQLITE_CONFIG_MUTEX, &stand_ins);
  if (!strcmp(mode, "single")) sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
  if (!strcmp(mode, "multi")) sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
  if (!strcmp(mode, "serialized")) sqlite3_config(SQLITE_CONFIG_SERIALIZED);
}

static sqlite3 *try_open(const char *uri) {
  sqlite3 *db = 0;
  int rc = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, 0);
  printf("open: %d %s\n", rc, sqlite3_errmsg(db));
  return db;
}

static void run(sqlite3 *db, const char *sql) {
  char *error = 0;
  if (sqlite3_exec(db, sql, 0, 0, &error)) printf("%s: %s\n", sql, error);
}

/* host LIBRARY MODE-BEFORE-THE-LOAD MODE-AFTER-IT URI */
int main(int count, char **args) {
  sqlite3 *db;
  char *error = 0;
  int rc;
  configure(args[2]);
  db = try_open(":memory:");
  sqlite3_enable_load_extension(db, 1);
  rc = sqlite3_load_extension(db, args[1], 0, &error);
  printf("load: %d %s\n", rc, error ? error : "");
  sqlite3_free(error);
  run(db, "CREATE TABLE t(x)");
  sqlite3_close(db);
  if (rc) return 0;
  if (strcmp(args[3], "same")) {
    sqlite3_shutdown();
    configure(args[3]);
  }
  db = try_open(args[4]);
  if (sqlite3_errcode(db) == 0) {
    run(db, "CREATE TABLE t(x)");
    run(db, "INSERT INTO t VALUES (1)");
    run(db, "SELECT litestream_sync(30)");
  }
  sqlite3_close(db);
  db = try_open("plain.db");
  run(db, "CREATE TABLE t(x)");
  sqlite3_close(db);
  return 0;
}
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Path:
    """The host on the system's SQLite."""
    return c_host.build(tmp_path_factory.mktemp("system"), HOST)


@pytest.fixture(scope="module")
def debug(tmp_path_factory) -> Path:
    """The host on SQLite's debug build, whose mutexes are not all one in single-thread mode."""
    folder = tmp_path_factory.mktemp("debug")
    return c_host.build(folder, HOST, sqlite=c_host.compile_sqlite(folder, "-DSQLITE_DEBUG", "-DSQLITE_THREADSAFE=1"))


def play(host: Path, folder: Path, before: str, after: str = "same", uri: str = "unused") -> list[str]:
    """What the host prints."""
    done = subprocess.run([host, LIBRARY, before, after, uri], cwd=folder, env=clean_env(), capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_sqlite_compiled_without_mutexes_is_refused(tmp_path):
    sqlite = c_host.compile_sqlite(tmp_path, "-DSQLITE_THREADSAFE=0")
    opened, loaded = play(c_host.build(tmp_path, HOST, sqlite=sqlite), tmp_path, "as compiled")
    assert opened.startswith("open: 0 ")
    assert loaded.startswith("load: 1 ") and "compiled with SQLITE_THREADSAFE=0" in loaded


@pytest.mark.parametrize("build, mode", [("system", "single"), ("debug", "single"), ("system", "stand-ins")])
def test_a_load_in_single_thread_mode_is_refused(build, mode, request, tmp_path):
    """Also where the program brings mutexes of its own that do nothing."""
    opened, loaded = play(request.getfixturevalue(build), tmp_path, mode)
    assert opened.startswith("open: 0 ")
    assert loaded.startswith("load: 1 ") and "SQLITE_CONFIG_SINGLETHREAD" in loaded


@pytest.mark.parametrize("role", ["primary", "replica"])
@pytest.mark.parametrize("build", ["system", "debug"])
def test_an_open_is_refused_when_the_mode_changed_after_the_load(build, role, request, tmp_path, in_folder):
    uri = getattr(in_folder, role)(tmp_path / "app.db")
    _, loaded, opened, plain = play(request.getfixturevalue(build), tmp_path, "serialized", "single", uri)
    assert loaded == "load: 0 "
    assert opened.startswith("open: 14 ") and "SQLITE_CONFIG_SINGLETHREAD" in opened
    assert plain.startswith("open: 0 ")
    assert not (tmp_path / "app.db").exists() and in_folder.files() == []


@pytest.mark.parametrize("before, after", [("multi", "same"), ("serialized", "multi"), ("multi", "serialized")])
def test_modes_with_mutexes_work_also_when_they_change(before, after, system, tmp_path, in_folder):
    """SQLite forgets in sqlite3_shutdown what gives connections the functions; an open of ours brings it back."""
    _, loaded, opened, plain = play(system, tmp_path, before, after, in_folder.primary(tmp_path / "app.db"))
    assert (loaded, opened[:8], plain[:8]) == ("load: 0 ", "open: 0 ", "open: 0 ")
    assert restore(in_folder, tmp_path / "restored.db").stat().st_size == 8192
