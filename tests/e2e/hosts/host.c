#include <sqlite3.h>
#include <stdio.h>

static int print(void *nothing, int count, char **values, char **names) {
    (void)nothing, (void)count, (void)names;
    return puts(values[0]) < 0;
}

int main(int count, char **arguments) {
    sqlite3 *first, *db, *reader;
    if (count < 4 || sqlite3_open(":memory:", &first)) return 1;
    sqlite3_db_config(first, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(first, arguments[1], NULL, NULL)) return 2;

    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    if (sqlite3_open_v2(arguments[2], &db, flags, NULL)) return 3;
    if (sqlite3_exec(db, "CREATE TABLE t(x); INSERT INTO t VALUES (41); SELECT litestream_sync()", NULL, NULL, NULL)) return 4;
    if (sqlite3_open_v2(arguments[3], &reader, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL)) return 5;
    return sqlite3_exec(reader, "SELECT x + 1 FROM t", print, NULL, NULL) || sqlite3_close(reader) || sqlite3_close(db);
}
