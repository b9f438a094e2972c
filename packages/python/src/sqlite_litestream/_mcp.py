"""Tools for an assistant, over standard input and output: a message of JSON-RPC in each line, and nothing else."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, BinaryIO

from ._restore import connection

SQL = "SELECT litestream_mcp(?)"


def serve() -> None:
    """Answers until the input ends. Whatever else is printed meanwhile goes to standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)
        server = _Server(output)
        try:
            for line in sys.stdin.buffer:
                server.take(line.decode(errors="replace").strip())
        finally:
            server.end()


class _Server:
    def __init__(self, output: BinaryIO):
        self._output = output
        self._connection = connection()
        # Whatever forbids all of it ends the command, and is no answer to each message.
        self._connection.execute(SQL, ('{"jsonrpc": "2.0", "id": 0, "method": "ping"}',)).fetchall()
        self._lock = threading.Lock()
        self._calls: dict[str, Any] = {}
        """The connection of each call that is under way; those that were cancelled are not there."""
        self._threads: list[threading.Thread] = []

    def take(self, text: str) -> None:
        """Answers a message. Tools take their time, so others are answered beside them."""
        if not text:
            return
        message = _parsed(text)
        method, params = message.get("method"), message.get("params")
        if method == "notifications/cancelled" and isinstance(params, dict):
            self._cancel(json.dumps(params.get("requestId")))
        elif method == "tools/call" and "id" in message:
            self._begin(text, json.dumps(message["id"]))
        else:
            [[answer]] = self._connection.execute(SQL, (text,)).fetchall()
            self._write(answer)

    def _begin(self, text: str, call: str) -> None:
        own = connection()
        with self._lock:
            self._calls[call] = own
        thread = threading.Thread(target=self._call, args=(text, call, own), daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _call(self, text: str, call: str, own: Any) -> None:
        try:
            try:
                [[answer]] = own.execute(SQL, (text,)).fetchall()
            except Exception as error:
                answer = json.dumps({"jsonrpc": "2.0", "id": json.loads(call), "error": {"code": -32603, "message": str(error)}})
            with self._lock:
                is_wanted = self._calls.pop(call, None) is not None
            if is_wanted:
                self._write(answer)
        finally:
            own.close()

    def _cancel(self, call: str) -> None:
        with self._lock:
            if own := self._calls.pop(call, None):
                own.interrupt()

    def _write(self, answer: str | None) -> None:
        if answer is not None:
            with self._lock:
                self._output.write(answer.encode() + b"\n")
                self._output.flush()

    def end(self) -> None:
        """Nobody waits for answers any more."""
        with self._lock:
            calls = list(self._calls.values())
            self._calls.clear()
            for own in calls:
                own.interrupt()
        for thread in self._threads:
            thread.join()
        self._connection.close()


def _parsed(text: str) -> dict[str, Any]:
    """The message, as far as it is one: what is wrong with it, the library says."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
