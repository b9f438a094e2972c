"""A proxy of bytes, before a server of whatever protocol: it counts, delays, and breaks connections when told."""

import queue
import socket
import threading
import time


class Breaker:
    """Passes bytes on, and breaks connections when told."""

    def __init__(self, server: int):
        self._server = server
        self.port = 0
        self._open: set[socket.socket] = set()
        self.connections = 0
        self.sent = 0
        """Bytes that clients sent."""
        self.received = 0
        """Bytes that the server answered."""
        self.turns = 0
        """How often a client sent something after it had an answer: at least so many round trips there were."""
        self.cut_after: int | None = None
        """Each connection breaks after so many bytes that a client sent by it."""
        self.cut_answers_after: int | None = None
        """Each connection breaks after so many bytes that the server answered by it."""
        self.loses_answers = False
        """A connection that breaks has passed on all that the client sent, but nothing of what was answered to the last."""
        self.delay = 0.0
        """Seconds by which an answer is late."""
        self.accept()

    def accept(self) -> None:
        """Lets clients connect."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """As if the server were gone: connections break, and none is accepted."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end(*self._open)
        self._open.clear()

    def close(self) -> None:
        self.refuse()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._server))
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            silent, answered = threading.Event(), threading.Event()
            answered.set()
            threading.Thread(target=self._up, args=(client, server, silent, answered), daemon=True).start()
            late: queue.Queue = queue.Queue()
            threading.Thread(target=self._down, args=(server, late), daemon=True).start()
            threading.Thread(target=self._late, args=(client, server, silent, answered, late), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, silent: threading.Event, answered: threading.Event) -> None:
        passed = 0
        try:
            while data := client.recv(65536):
                self.sent += len(data)
                passed += len(data)
                self.turns += answered.is_set()
                answered.clear()
                if self.cut_after is not None and passed > self.cut_after:
                    if self.loses_answers:
                        silent.set()
                        server.sendall(data)
                        # What was sent is read before the end is.
                        server.shutdown(socket.SHUT_WR)
                        time.sleep(0.05)
                    break
                server.sendall(data)
        except OSError:
            pass
        self._end(client, server)

    def _down(self, server: socket.socket, late: queue.Queue) -> None:
        try:
            while data := server.recv(65536):
                self.received += len(data)
                late.put((time.monotonic() + self.delay, data))
        except OSError:
            pass
        late.put((0, b""))

    def _late(self, client: socket.socket, server: socket.socket, silent: threading.Event, answered: threading.Event,
              late: queue.Queue) -> None:
        passed = 0
        try:
            while True:
                due, data = late.get()
                if not data:
                    break
                time.sleep(max(0, due - time.monotonic()))
                passed += len(data)
                if self.cut_answers_after is not None and passed > self.cut_answers_after:
                    break
                if not silent.is_set():
                    answered.set()
                    client.sendall(data)
        except OSError:
            pass
        self._end(client, server)

    @staticmethod
    def _end(*sockets: socket.socket) -> None:
        for end in sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
