/* Preloaded: the close of a file whose name ends with SLOW_CLOSE takes a while before it begins, as on a machine that is busy. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int close(int fd) {
    char link[32], path[4096];
    const char *slow = getenv("SLOW_CLOSE");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path);
    if (slow && len >= (ssize_t)strlen(slow) && !memcmp(path + len - strlen(slow), slow, strlen(slow))) usleep(30000);
    return (int)syscall(SYS_close, fd);
}
