"""An HTTP proxy before an S3 server: it counts requests, and delays, fails or rewrites them when told."""

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """A request as the client sent it."""

    method: str
    target: str
    headers: dict[str, str]
    body_size: int = 0
    connection: int = 0
    """The number of the connection by which it came, from 1 on."""
    at: float = field(default_factory=time.monotonic)
    body: bytes = b""
    """What came with it, if the proxy keeps that."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def kind(self) -> str:
        """The method, but LIST for a listing."""
        query = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return "LIST" if self.method == "GET" and ("list-type" in query or "prefix" in query) else self.method


@dataclass(frozen=True)
class Status:
    """Answer this instead of asking the server."""

    code: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Hang:
    """Never answer."""


@dataclass(frozen=True)
class LoseAnswer:
    """Ask the server, then close the connection instead of passing on its answer."""


@dataclass(frozen=True)
class CutRequest:
    """Pass on this many bytes of the request's body, then close both connections."""

    after: int


@dataclass(frozen=True)
class LateAnswer:
    """Ask the server at once, and pass on its answer after this many seconds."""

    seconds: float


@dataclass(frozen=True)
class CutBody:
    """Close the connection after this many bytes of the answer's body."""

    after: int


@dataclass(frozen=True)
class Trickle:
    """Pass on this many bytes of the answer's body at once, and of the rest so many a second (0: none)."""

    after: int = 0
    per_second: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer of the server, its body without the framing of HTTP."""

    code: int
    headers: dict[str, str]
    body: bytes
    chunked: bool = False
    """Send the body in chunks, without telling its length before."""


@dataclass(frozen=True)
class Rewrite:
    """Ask the server, and pass on what `change` makes of its answer."""

    change: Callable[[Answer], Answer]


@dataclass(frozen=True)
class WithoutHeader:
    """Pass the request on without this header, as a gateway does that does not know it."""

    name: str


Fault = WithoutHeader | Status | Hang | LoseAnswer | CutRequest | LateAnswer | CutBody | Trickle | Rewrite


def older_listing(known: set[str]) -> Rewrite:
    """A listing of before: it has no object whose key is not in `known`, as that of a mirror that lags."""
    def change(answer: Answer) -> Answer:
        def keep(match: re.Match) -> bytes:
            return match[0] if unquote(match[1].decode()) in known else b""
        contents = rb"<Contents>(?:(?!</Contents>).)*?<Key>([^<]*)</Key>.*?</Contents>"
        return replace(answer, body=re.sub(contents, keep, answer.body, flags=re.DOTALL))
    return Rewrite(change)


class _Stream:
    """One HTTP/1.1 message after another out of a socket."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self.file = sock.makefile("rb")

    def head(self) -> tuple[str, list[tuple[str, str]]] | None:
        start = self.file.readline()
        if not start:
            return None
        headers = []
        while (line := self.file.readline()) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name, value.strip()))
        return start.decode("latin-1").rstrip("\r\n"), headers

    def body(self, headers: dict[str, str], to_end: bool) -> bytes:
        """The body as it is on the wire, chunk headers included."""
        if "chunked" in headers.get("transfer-encoding", ""):
            parts = []
            while True:
                line = self.file.readline()
                size = int(line.split(b";")[0], 16)
                parts += [line, self.file.read(size), self.file.readline()]
                if size == 0:
                    return b"".join(parts)
        if "content-length" in headers:
            return self.file.read(int(headers["content-length"]))
        return self.file.read() if to_end else b""


class Proxy:
    """Listens on a port of its own and passes requests to `upstream` (a port of 127.0.0.1)."""

    def __init__(self, upstream: int):
        self.upstream = upstream
        self.requests: list[Request] = []
        self.answers: list[tuple[Request, int]] = []
        """What the server answered, whether or not the client got to see it."""
        self.connections = 0
        """Connections accepted so far."""
        self.delay = 0.0
        """Seconds before each request is passed on."""
        self.keeps_bodies = False
        """Whether requests have their bodies, which stay in memory."""
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        """Called for each request; what it returns happens instead of an ordinary answer."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listener: socket.socket | None = None
        self.port = 0
        self.accept()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def clients(self) -> int:
        """Connections that are open, those too whose other end is dead while what it sent is on its way still."""
        with self._lock:
            return len(self._open)

    def counts(self) -> Counter:
        """Requests so far, by kind."""
        return Counter(r.kind for r in list(self.requests))

    def stored(self) -> Counter:
        """How often each object was written, by its path."""
        return Counter(request.path for request, status in list(self.answers)
                       if request.method == "PUT" and status == 200)

    def accept(self) -> None:
        """Listens (again), on the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def refuse(self) -> None:
        """Stops to listen and closes every connection: clients see "connection refused"."""
        listener, self._listener = self._listener, None
        if listener:
            # A thread that waits in accept() keeps the port until the socket is shut down.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for sock in self._open:
                _abort(sock)

    def close(self) -> None:
        self._closed.set()
        self.refuse()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client, self.connections), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        server = None
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.create_connection(("127.0.0.1", self.upstream))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            up, down = _Stream(client), _Stream(server)
            while self._exchange(up, down, number):
                pass
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            for sock in (client, server):
                if sock:
                    _abort(sock)

    def _exchange(self, up: _Stream, down: _Stream, number: int) -> bool:
        """One request and its answer; whether the connection lives on."""
        head = up.head()
        if head is None:
            return False
        start, pairs = head
        method, target, _ = start.split(" ", 2)
        request = Request(method, target, {k.lower(): v for k, v in pairs}, connection=number)
        if "100-continue" in request.headers.get("expect", ""):
            up.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            pairs = [p for p in pairs if p[0].lower() != "expect"]
        body = up.body(request.headers, to_end=False)
        request.body_size = len(body)
        if self.keeps_bodies:
            request.body = body
        self.requests.append(request)
        if self.delay:
            time.sleep(self.delay)
        fault = self.fault(request)
        if isinstance(fault, Hang):
            self._closed.wait()
            return False
        if isinstance(fault, Status):
            up.sock.sendall(_head(f"HTTP/1.1 {fault.code} Fault", [("content-length", str(len(fault.body))), *fault.headers])
                            + (b"" if method == "HEAD" else fault.body))
            return True
        if isinstance(fault, CutRequest):
            down.sock.sendall(_head(start, pairs) + body[: fault.after])
            return False
        if isinstance(fault, WithoutHeader):
            pairs = [p for p in pairs if p[0].lower() != fault.name]
        try:
            down.sock.sendall(_head(start, pairs) + body)
        except OSError:
            pass  # A server that refuses answers before it has read all, and closes.
        return self._answer(request, up, down, fault)

    def _rewritten(self, request: Request, up: _Stream, down: _Stream, status: int, headers: dict[str, str],
                   fault: Rewrite) -> bool:
        bare = request.method == "HEAD" or status in (204, 304)
        body = b"" if bare else down.body(headers, to_end=True)
        if headers.pop("transfer-encoding", None):
            body = _dechunked(body)
        length = headers.pop("content-length", None)
        self.answers.append((request, status))
        answer = fault.change(Answer(status, headers, body))
        pairs = list(answer.headers.items())
        body = answer.body
        if answer.chunked:
            pairs += [] if bare else [("transfer-encoding", "chunked")]
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        elif "content-length" not in answer.headers:
            pairs.append(("content-length", length if bare and length else str(len(body))))
        up.sock.sendall(_head(f"HTTP/1.1 {answer.code} Answer", pairs) + (b"" if bare else body))
        return True

    def _answer(self, request: Request, up: _Stream, down: _Stream, fault: Fault | None) -> bool:
        head = down.head()
        if head is None:
            return False
        start, pairs = head
        headers = {k.lower(): v for k, v in pairs}
        status = int(start.split()[1])
        if isinstance(fault, Rewrite):
            return self._rewritten(request, up, down, status, headers, fault)
        bare = request.method == "HEAD" or status in (204, 304)
        body = b"" if bare else down.body(headers, to_end=True)
        self.answers.append((request, status))
        if isinstance(fault, LoseAnswer):
            return False
        if isinstance(fault, LateAnswer):
            self._closed.wait(fault.seconds)
        if isinstance(fault, Trickle):
            up.sock.sendall(_head(start, pairs) + body[: fault.after])
            for at in range(fault.after, len(body)):
                if self._closed.wait(1 / fault.per_second if fault.per_second else None):
                    return False
                up.sock.sendall(body[at : at + 1])
            return True
        if isinstance(fault, CutBody):
            up.sock.sendall(_head(start, pairs) + body[: fault.after])
            return False
        up.sock.sendall(_head(start, pairs) + body)
        return bare or "content-length" in headers or "transfer-encoding" in headers


def _dechunked(body: bytes) -> bytes:
    parts = []
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        parts.append(body[:size])
        body = body[size + 2 :]
    return b"".join(parts)


def _head(start: str, pairs: list[tuple[str, str]]) -> bytes:
    return ("\r\n".join([start, *(f"{k}: {v}" for k, v in pairs)]) + "\r\n\r\n").encode("latin-1")


def _abort(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
