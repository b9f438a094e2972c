"""A time of day that a test sets, for a host of its own: the rest of the machine keeps the right one."""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = r"""
/* Adds an offset to the time of day, and to nothing else: what is measured by other clocks is right. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("FAKE_CLOCK"), O_RDONLY);
    void *at = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) offset = at;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *ts) {
    int rc = (int)syscall(SYS_clock_gettime, id, ts);
    if (rc == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) ts->tv_sec += *offset;
    return rc;
}

int gettimeofday(struct timeval *tv, void *tz) {
    struct timespec ts;
    (void)tz;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (to) *to = ts.tv_sec;
    return ts.tv_sec;
}
"""

HOUR = 3600
DAY = 24 * HOUR
YEAR = 365 * DAY


class Clock:
    """The time of day of the hosts that are started with `env`: the right one, and an offset."""

    def __init__(self, folder: Path):
        folder.mkdir(exist_ok=True)
        source, library, self._file = folder / "clock.c", folder / "clock.so", folder / "offset"
        source.write_text(_SOURCE)
        compiler = shutil.which("cc") or "cc"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._file.write_bytes(bytes(mmap.PAGESIZE))
        with self._file.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self.env = {"LD_PRELOAD": str(library), "FAKE_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Somebody sets the clock: it is this many seconds ahead of the right time from now on."""
        self._shared[:8] = struct.pack("@q", seconds)

    def close(self) -> None:
        self._shared.close()
        os.unlink(self._file)
