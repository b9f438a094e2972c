"""The host's signals stay the host's.

A host may have handlers that rely on the thread on which they run (profilers, timers, Go, the JVM), may wait for a signal
itself, or may leave all as it was at its start: then SIGPIPE ends it. So threads of ours take no signal, and a server that
closes a connection in the middle of an upload is an error of the call that failed, and never the end of the process.
"""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

from harness.location import Location
from harness.paths import LIBRARY, SYSTEM_PYTHON, clean_env
from harness.s3 import REGION, credentials

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
ALL = ~(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32) & (1 << 64) - 1
"""All signals but SIGKILL and SIGSTOP, which cannot be blocked, and the two of the C library."""

PRELUDE = f"""
import os, signal, sqlite3, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
first = sqlite3.connect(":memory:")
first.enable_load_extension(True)
first.load_extension({str(LIBRARY)!r})
args = sys.argv[1:]
def connect(uri):
    return sqlite3.connect(uri, uri=True, isolation_level=None)
def fill(db, megabytes):
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for _ in range(megabytes):
        db.execute("INSERT INTO t VALUES (randomblob(1000000))")
def blocked(tid):
    with open(f"/proc/self/task/{{tid}}/status") as status:
        found = dict(line.split(":", 1) for line in status)
    if found["Threads"].strip() == "0":  # the kernel has taken its signal state away already: it is ending
        raise ProcessLookupError(tid)
    return found["Name"].strip(), int(found["SigBlk"], 16)
"""


def host(script: str, *args, keys: dict | None = None) -> subprocess.CompletedProcess:
    """A host in which SIGPIPE does what it does by default."""
    command = [SYSTEM_PYTHON, "-c", PRELUDE + script, *map(str, args)]
    env = clean_env(**(keys or credentials()), LITESTREAM_LEVELS="24h")
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)


class RudeServer:
    """A server that closes each connection in the middle of a request's body."""

    def __init__(self, manner: str):
        self._manner = manner
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uploads = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            data = b""
            while b"\r\n\r\n" not in data:
                data += (more := client.recv(65536))
                if not more:
                    return
            if not data.startswith((b"PUT", b"POST")):
                body = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
                return
            self.uploads += 1
            if self._manner == "503":
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            elif self._manner == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(params=["closed", "reset", "503"])
def rude(request):
    server = RudeServer(request.param)
    yield server
    server.close()


def test_a_server_that_closes_in_the_middle_of_an_upload(rude, tmp_path):
    location = Location("s3://bucket/app", tmp_path, {"endpoint": rude.endpoint, "region": REGION})
    script = """
db = connect(args[0])
fill(db, 6)
for _ in range(3):
    try:
        db.execute("SELECT litestream_sync(0.7)").fetchone()
        print("synced")
    except sqlite3.OperationalError as e:
        print("refused")
db.close()
print("alive")
"""
    ran = host(script, location.primary(tmp_path / "app.db", close_timeout="1s"))
    assert (ran.returncode, ran.stdout.split()) == (0, ["refused"] * 3 + ["alive"]), ran
    assert rude.uploads > 1


@LINUX
def test_threads_of_ours_block_every_signal(in_s3, tmp_path):
    """At work of every kind; and the host's own threads block what they did before."""
    script = """
import threading, time
seen, done = {}, threading.Event()
def look():
    while not done.is_set():
        for tid in os.listdir("/proc/self/task"):
            try:
                name, mask = blocked(tid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name.startswith("litestream"):
                seen.setdefault(mask, set()).add(name)
looking = threading.Thread(target=look)
looking.start()
primary = connect(args[0])
fill(primary, 40)
primary.execute("SELECT litestream_sync()").fetchone()
primary.execute("SELECT litestream_snapshot()").fetchone()
replica = connect(args[1])
replica.execute("SELECT sum(length(x)) FROM t").fetchone()
first.execute("SELECT litestream_restore(?, ?, '{\\"integrity_check\\": \\"full\\"}')", args[2:4]).fetchone()
first.execute("SELECT * FROM litestream_verify(?)", args[2:3]).fetchall()
replica.close()
primary.close()
done.set()
looking.join()
print(*seen)
print(*set.union(*seen.values()))
print({mask for name, mask in map(blocked, os.listdir("/proc/self/task")) if not name.startswith("litestream")})
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL)
"""
    ran = host(script, in_s3.primary(tmp_path / "app.db"), in_s3.replica(hydrate=1, hydration_path=tmp_path / "hydrated"),
               in_s3.full_url, tmp_path / "copy.db")
    assert ran.returncode == 0, ran.stderr
    masks, names, of_the_host, rest = ran.stdout.splitlines()
    assert all(int(mask) & ALL == ALL for mask in masks.split()), masks
    # On one core nobody helps a restore to decode.
    assert set(names.split()) - {"litestream-deco"} == {"litestream", "litestream-pool", "litestream-work", "litestream-sync"}
    assert (of_the_host, rest) == ("{0}", "set() True")


@LINUX
def test_a_signal_that_the_host_waits_for_is_the_hosts(in_folder, tmp_path):
    script = """
db = connect(args[0])
fill(db, 1)
db.execute("SELECT litestream_sync()").fetchone()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for _ in range(20):
    os.kill(os.getpid(), signal.SIGUSR1)
    fill(db, 1)
    assert signal.sigtimedwait([signal.SIGUSR1], 10).si_signo == signal.SIGUSR1
db.close()
print("alive")
"""
    ran = host(script, in_folder.primary(tmp_path / "app.db", sync_interval="10ms"))
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran


@LINUX
def test_a_program_that_is_asked_for_credentials_takes_signals_as_usual(in_s3, tmp_path):
    keys = credentials()
    answer = json.dumps({"Version": 1, "AccessKeyId": keys["AWS_ACCESS_KEY_ID"], "SecretAccessKey": keys["AWS_SECRET_ACCESS_KEY"]})
    program = tmp_path / "keys.sh"
    program.write_text(f"#!/bin/sh\ngrep -E 'Sig(Blk|Ign)' /proc/self/status > {tmp_path}/masks\necho '{answer}'\n")
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    script = """
db = connect(args[0])
fill(db, 1)
db.execute("SELECT litestream_sync()").fetchone()
db.close()
"""
    ran = host(script, in_s3.primary(tmp_path / "app.db"), keys={"AWS_CONFIG_FILE": str(tmp_path / "config")})
    assert ran.returncode == 0, ran.stderr
    masks = dict(line.split(":\t") for line in (tmp_path / "masks").read_text().splitlines())
    assert int(masks["SigBlk"], 16) == 0 and not int(masks["SigIgn"], 16) & 1 << (signal.SIGPIPE - 1)


TIMER = """
#define _GNU_SOURCE
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static volatile int seen[65536], calls;

static void on_timer(int number) {
    int tid = (int)syscall(SYS_gettid);
    if (tid < 65536 * 64) seen[tid % 65536] = tid;
    calls++;
}

void start(int which, int number) {
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    sigaction(number, &action, 0);
    struct itimerval every = {{0, 1000}, {0, 1000}};
    setitimer(which, &every, 0);
}

int ran(void) { return calls; }
int seen_at(int i) { return seen[i]; }
"""


@LINUX
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("timer, number", [(2, signal.SIGPROF), (0, signal.SIGALRM)])
def test_a_timer_of_every_millisecond_interrupts_the_hosts_threads_only(timer, number, in_folder, tmp_path):
    (tmp_path / "timer.c").write_text(TIMER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "timer.so", tmp_path / "timer.c"], check=True)
    script = """
import ctypes
timer = ctypes.CDLL(args[0])
timer.start(int(args[1]), int(args[2]))
db = connect(args[3])
for _ in range(4):
    fill(db, 8)
    db.execute("SELECT litestream_snapshot()").fetchone()
first.execute("SELECT litestream_restore(?, ?)", args[4:]).fetchone()
db.close()
tids = {timer.seen_at(i) for i in range(65536)} - {0}
print(tids == {os.getpid()}, timer.ran() > 20, tids, os.getpid(), timer.ran())
"""
    ran = host(script, tmp_path / "timer.so", timer, int(number), in_folder.primary(tmp_path / "app.db"),
               in_folder.full_url, tmp_path / "copy.db")
    assert ran.returncode == 0 and ran.stdout.startswith("True True"), ran


def test_standard_error_without_a_reader_is_no_reason_to_end(tmp_path):
    """What is logged on a thread of the host's raises no SIGPIPE either; one that the host has pending stays."""
    script = """
for n in range(3):
    try:
        connect(f"file:app-{n}.db?vfs=litestream&replica=s3://")
    except sqlite3.OperationalError:
        print("refused")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
os.kill(os.getpid(), signal.SIGPIPE)
try:
    connect("file:app.db?vfs=litestream&replica=s3://")
except sqlite3.OperationalError:
    print("refused")
print(signal.SIGPIPE in signal.sigpending())
sys.stdout.flush()
os._exit(0)
"""
    reader, writer = os.pipe()
    os.close(reader)
    command = [SYSTEM_PYTHON, "-c", PRELUDE + script]
    ran = subprocess.run(command, env=clean_env(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=writer, text=True, timeout=60)
    os.close(writer)
    assert (ran.returncode, ran.stdout.split()) == (0, ["refused"] * 4 + ["True"])
