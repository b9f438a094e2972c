"""A slow network between client and S3 server, and what went through it."""

import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PROXY = Path(__file__).parent / "host" / "target" / "release" / "bench-proxy"


@dataclass
class Request:
    """A request, from its arrival at the proxy to the end of its answer."""

    method: str
    target: str
    range: str
    began: int
    ended: int | None = None
    status: int = 0
    size: int = 0

    @property
    def kind(self) -> str:
        """The method, but LIST for a listing."""
        return "LIST" if self.method == "GET" and "prefix" in parse_qs(urlsplit(self.target).query) else self.method


@dataclass(frozen=True)
class Traffic:
    """What went through the network between two moments."""

    requests: tuple[Request, ...]

    @property
    def counts(self) -> Counter:
        return Counter(r.kind for r in self.requests)

    @property
    def size(self) -> int:
        """Bytes of all answers' bodies."""
        return sum(r.size for r in self.requests)

    @property
    def round_trips(self) -> int:
        """The longest chain of requests of which each began after the one before it had ended."""
        chain, reached = 0, -1
        for request in sorted((r for r in self.requests if r.ended), key=lambda r: r.ended):
            if request.began > reached:
                chain, reached = chain + 1, request.ended
        return chain

    def __str__(self) -> str:
        return " + ".join(f"{n} {kind}" for kind, n in sorted(self.counts.items())) or "0"


class Network:
    """A `bench-proxy` in front of `upstream`, a port of 127.0.0.1. A context manager."""

    def __init__(self, upstream: int, rtt_ms: float):
        self._process = subprocess.Popen([PROXY, str(upstream)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True, bufsize=1)
        self.port = int(self._process.stdout.readline().split()[1])
        self._requests: dict[str, Request] = {}
        self._lock = threading.Lock()
        self._acknowledged = threading.Semaphore(0)
        threading.Thread(target=self._read, daemon=True).start()
        self.tell(f"rtt {rtt_ms}")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tell(self, command: str) -> None:
        """`rtt MS` or `cap MBIT`."""
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self._acknowledged.acquire()

    def mark(self) -> int:
        """A moment, for `since`."""
        with self._lock:
            return len(self._requests)

    def since(self, mark: int, settle: float = 5.0) -> Traffic:
        """What came since `mark`, once all of it was answered."""
        deadline = time.monotonic() + settle
        while True:
            with self._lock:
                requests = list(self._requests.values())[mark:]
            if all(r.ended for r in requests) or time.monotonic() > deadline:
                return Traffic(tuple(requests))
            time.sleep(0.005)

    def _read(self) -> None:
        for line in self._process.stdout:
            words = line.split()
            with self._lock:
                if words[0] == "B":
                    _, id, at, method, target, range = words
                    self._requests[id] = Request(method, target, range, int(at))
                elif words[0] == "E":
                    _, id, at, status, size = words
                    request = self._requests[id]
                    request.ended, request.status, request.size = int(at), int(status), int(size)
                else:
                    self._acknowledged.release()

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
