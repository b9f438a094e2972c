/* Linked into SQLite's own test programs in the place of sqlite3_open and sqlite3_open_v2: the databases that they open are
** primaries. From the environment: TORTURE_LIBRARY, and TORTURE_PARAMETERS, the parameters of the URI. */

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor)) static void load(void) {
  sqlite3 *db = 0;
  char *error = 0;
  const char *library = getenv("TORTURE_LIBRARY");
  if (library == 0) return;
  sqlite3_open(":memory:", &db);
  sqlite3_enable_load_extension(db, 1);
  if (sqlite3_load_extension(db, library, 0, &error) != SQLITE_OK) {
    fprintf(stderr, "cannot load %s: %s\n", library, error);
    exit(1);
  }
  sqlite3_close(db);
}

int torture_open_v2(const char *name, sqlite3 **db, int flags, const char *vfs) {
  const char *parameters = getenv("TORTURE_PARAMETERS");
  char *uri;
  int rc;
  if (parameters == 0 || name == 0 || name[0] == 0 || name[0] == ':') return sqlite3_open_v2(name, db, flags, vfs);
  uri = sqlite3_mprintf("file:%s?%s", name, parameters);
  rc = sqlite3_open_v2(uri, db, flags | SQLITE_OPEN_URI, "litestream");
  if (rc != SQLITE_OK) fprintf(stderr, "cannot open %s: %s\n", uri, sqlite3_errmsg(*db));
  sqlite3_free(uri);
  return rc;
}

int torture_open(const char *name, sqlite3 **db) {
  return torture_open_v2(name, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, 0);
}
