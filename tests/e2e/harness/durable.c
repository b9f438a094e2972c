/*
 * What a power failure would leave of a database: whenever a database or a WAL is synced, its content at that moment is put
 * beside it, as <path>.durable. For LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* Syncs, and keeps what is synced: one after the other, so that nothing older takes the place of what is newer. */
static int sync_and_keep(int fd, int (*next)(int)) {
    char link[64], path[PATH_MAX], name[PATH_MAX + 64], durable[PATH_MAX + 16], bytes[65536];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return next(fd);
    path[n] = 0;
    if (!ends_with(path, ".db") && !ends_with(path, ".db-wal")) return next(fd);
    snprintf(name, sizeof name, "%s.syncing", path);
    int lock = open(name, O_RDWR | O_CREAT, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) != 0) abort();
    int rc = next(fd);
    if (rc == 0) {
        snprintf(name, sizeof name, "%s.copying", path);
        snprintf(durable, sizeof durable, "%s.durable", path);
        int out = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (out < 0) abort();
        off_t at = 0;
        /* Closing a descriptor of the database would drop its locks: it is read by the given one. */
        while ((n = pread(fd, bytes, sizeof bytes, at)) > 0) {
            if (write(out, bytes, n) != n) abort();
            at += n;
        }
        if (n < 0) abort();
        close(out);
        if (rename(name, durable) != 0) abort();
    }
    close(lock);
    return rc;
}

int fsync(int fd) {
    return sync_and_keep(fd, (int (*)(int))dlsym(RTLD_NEXT, "fsync"));
}

int fdatasync(int fd) {
    return sync_and_keep(fd, (int (*)(int))dlsym(RTLD_NEXT, "fdatasync"));
}
