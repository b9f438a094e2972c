"""Nobody reads the log: a full pipe, a FIFO without a reader, a terminal that was stopped.

What is logged is for people; no statement waits until they read it. What cannot be written at once is left out, and the next
line that can be says so. The mode of standard error, which the host shares with others, stays as it is.
"""

import fcntl
import os
import pty
import socket
import subprocess
import time

import pytest

from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env

HOST = f"""
import sqlite3, sys
first = sqlite3.connect(":memory:", uri=True)
first.enable_load_extension(True)
first.load_extension({str(LIBRARY)!r})
for n, _ in enumerate(sys.stdin):
    # Another name each time: the same failure again is logged once. An ATTACH, since on a terminal a refused connection
    # is not logged: its error says it.
    try:
        first.execute(f"ATTACH 'file:app-{{n}}.db?vfs=litestream&replica=nowhere://' AS other")
    except sqlite3.OperationalError:
        print("refused", flush=True)
"""


class Host:
    """A process whose opens are all refused, and logged."""

    def __init__(self, folder, stderr, **env):
        self.process = subprocess.Popen([SYSTEM_PYTHON, "-c", HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=stderr, cwd=folder, env=clean_env(**env), text=True)

    def opens(self, times: int = 1) -> None:
        for _ in range(times):
            began = time.monotonic()
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            os.set_blocking(self.process.stdout.fileno(), False)
            said = ""
            while not said.endswith("\n"):
                assert time.monotonic() - began < 20, "an open waits for its log line"
                said += self.process.stdout.readline()
                time.sleep(0.001)
            assert said == "refused\n"


@pytest.fixture
def start_host(tmp_path):
    hosts = []

    def start(stderr, **env) -> Host:
        hosts.append(Host(tmp_path, stderr, **env))
        return hosts[-1]

    yield start
    for host in hosts:
        host.process.kill()
        host.process.wait()


def fill(descriptor: int) -> None:
    """Writes until nothing more can be written."""
    os.set_blocking(descriptor, False)
    written = True
    while written:
        written = sum(write_all(descriptor, size) for size in (4096, 1))
        # A terminal passes on what it has a moment later, and takes more then.
        time.sleep(0.05)
    os.set_blocking(descriptor, True)


def write_all(descriptor: int, size: int) -> int:
    """Writes pieces of one size until no more can be written; how many bytes that were."""
    written = 0
    try:
        while True:
            written += os.write(descriptor, b"x" * size)
    except BlockingIOError:
        return written


def ends(kind: str) -> tuple[int, int]:
    """The reader's and the writer's end of something that can be full."""
    if kind == "pipe":
        return os.pipe()
    if kind == "terminal":
        return pty.openpty()
    return tuple(end.detach() for end in socket.socketpair())


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_standard_error_is_full(kind, start_host):
    reader, writer = ends(kind)
    fill(writer)
    host = start_host(writer)
    host.opens(3)
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.set_blocking(reader, False)
    try:
        while os.read(reader, 65536):
            pass
    except BlockingIOError:
        pass
    host.opens()
    os.set_blocking(reader, True)
    said = b""
    while b"nowhere" not in said:
        said += os.read(reader, 65536)
    assert b"3 lines are missing here" in said
    os.close(reader)
    os.close(writer)


def test_a_fifo_that_is_read_late(start_host, tmp_path):
    os.mkfifo(tmp_path / "log")
    host = start_host(subprocess.DEVNULL, LITESTREAM_LOG_FILE=str(tmp_path / "log"))
    host.opens(2)
    with open(tmp_path / "log", "rb") as log:
        assert log.readline().count(b"nowhere") == 1 and log.readline().count(b"nowhere") == 1
        host.opens(800)
    host.opens()
    with open(tmp_path / "log", "rb", buffering=0) as log:
        while b"lines are missing" not in (said := log.read(65536)) and said:
            host.opens()
        assert b"lines are missing" in said


def test_a_file_gets_every_line(start_host, tmp_path):
    """Also as standard error, at its end, beside the lines of others."""
    with open(tmp_path / "errors", "ab") as errors:
        errors.write(b"of another\n")
        errors.flush()
        host = start_host(errors.fileno())
        host.opens(50)
        errors.write(b"of another\n")
        errors.flush()
        host.opens(50)
    lines = (tmp_path / "errors").read_text().splitlines()
    assert len(lines) == 102 and sum("nowhere" in line for line in lines) == 100
    assert [n for n, line in enumerate(lines) if line == "of another"] == [0, 51]
