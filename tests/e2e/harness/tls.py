"""The hosts of a cloud, on this machine: a proxy that clients reach them by, and that speaks TLS in their place."""

import re
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)\r\n")


class Hosts:
    """Every host that a client asks the proxy for is the server on `port`, which speaks no TLS itself."""

    def __init__(self, folder: Path, names: list[str], port: int):
        if not shutil.which("openssl"):
            pytest.skip("there is no openssl here: apt-get install openssl")
        folder.mkdir()
        self._certificate, key = folder / "certificate.pem", folder / "key.pem"
        alternatives = ",".join(f"DNS:{name}" for name in names)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
                        "-addext", f"subjectAltName={alternatives}", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", self._certificate],
                       check=True, capture_output=True)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self._certificate, key)
        self._port = port
        self._sent: list[bytearray] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def env(self) -> dict[str, str]:
        """What makes a client go by the proxy, and trust it."""
        proxy = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        return {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(self._certificate)}

    def requests(self) -> set[tuple[str, str, str]]:
        """Method, host and path, without the query, of all requests until now."""
        found = set()
        for sent in self._sent:
            for method, path, headers in REQUEST.findall(bytes(sent)):
                host = re.search(rb"(?mi)^host: *([^\r]+)", headers)[1]
                found.add((method.decode(), host.decode(), path.split(b"?")[0].decode()))
        return found

    def forget(self) -> None:
        self._sent.clear()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            assert head.startswith(b"CONNECT "), head
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            encrypted = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return
        sent = bytearray()
        self._sent.append(sent)
        threading.Thread(target=_pass_on, args=(server, encrypted, None), daemon=True).start()
        _pass_on(encrypted, server, sent)


def _pass_on(source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
    try:
        while data := source.recv(65536):
            if record is not None:
                record += data
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
