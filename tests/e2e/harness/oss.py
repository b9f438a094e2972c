"""A server that does what the documentation of Alibaba Cloud's Object Storage Service says, in memory.

There is no emulator of that service. It checks the signature of each request, so that what Litestream's own library
signs and what we sign are held to the same rules.
"""

import hashlib
import hmac
import re
import threading
import urllib.parse
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape, unescape

KEY, SECRET, REGION = "test-key", "test-secret-that-must-never-be-printed", "cn-hangzhou"
PAGE = 1000


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")


class OssServer:
    """Buckets of the service on a port of this machine."""

    def __init__(self, _: Path):
        self.buckets: dict[str, dict[str, tuple[bytes, dict[str, str], float]]] = {}
        """By bucket and key: content, metadata, and when it was stored."""
        self.uploads: dict[str, tuple[dict[str, str], dict[int, bytes]]] = {}
        self.lock = threading.Lock()
        self.secret = SECRET
        server = self

        class Handler(_Handler):
            oss = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def names(self, bucket: str) -> list[tuple[str, int]]:
        with self.lock:
            return [(name, len(found[0])) for name, found in self.buckets[bucket].items()]

    def lock_out(self) -> None:
        """From now on the key has another secret."""
        self.secret = "another secret"

    def let_in(self) -> None:
        """It has its own again."""
        self.secret = SECRET

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Requests in the path style: `/bucket/key`."""

    protocol_version = "HTTP/1.1"
    oss: OssServer

    def log_message(self, *_) -> None:
        pass

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionResetError("the request was cut off")
        return body

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _xml(self, text: str, **headers: str) -> None:
        body = b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()
        self._answer(200, body, Content_Type="application/xml", **headers)

    def _refuse(self, status: int, code: str) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>refused</Message></Error>'
        self._answer(status, body.encode(), Content_Type="application/xml")

    def _is_signed(self, path: str, query: dict[str, str]) -> bool:
        """Whether the signature is right, by the rules of version 4."""
        given = self.headers.get("Authorization", "")
        match = re.fullmatch(r"OSS4-HMAC-SHA256 Credential=([^/]*)/(\d{8})/([^/]*)/oss/aliyun_v4_request,"
                             r"(?:AdditionalHeaders=([^,]*),)?Signature=(\w+)", given)
        time = self.headers.get("x-oss-date", "")
        if not match or match[1] != KEY or match[3] != REGION or not time.startswith(match[2]):
            return False
        more = (match[4] or "").split(";") if match[4] else []
        signed = sorted((name.lower(), value.strip()) for name, value in self.headers.items()
                        if name.lower().startswith("x-oss-") or name.lower() in ("content-type", "content-md5", *more))
        fields = sorted((_quoted(name), _quoted(value)) for name, value in query.items())
        canonical = "\n".join([
            self.command, urllib.parse.quote(path, safe="/-_.~"),
            "&".join(name + (f"={value}" if value else "") for name, value in fields),
            "".join(f"{name}:{value}\n" for name, value in signed), ";".join(more), self.headers["x-oss-content-sha256"],
        ])
        scope = f"{match[2]}/{REGION}/oss/aliyun_v4_request"
        text = f"OSS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = b"aliyun_v4" + self.oss.secret.encode()
        for step in scope.split("/"):
            key = hmac.new(key, step.encode(), hashlib.sha256).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == match[5]

    def _serve(self) -> None:
        try:
            body = self._body()
        except ConnectionResetError:
            self.close_connection = True
            return None
        place, _, text = self.path.partition("?")
        path = urllib.parse.unquote(place)
        query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        _, bucket, *rest = path.split("/", 2)
        if not self._is_signed(path if rest else path + "/", query):
            return self._refuse(403, "SignatureDoesNotMatch")
        with self.oss.lock:
            if bucket not in self.oss.buckets:
                return self._refuse(404, "NoSuchBucket")
            objects, key = self.oss.buckets[bucket], rest[0] if rest else ""
            if self.command not in ("GET", "HEAD"):
                return self._do(objects, key, query, body)
            objects = dict(objects)
        # A client that reads slowly, because it writes meanwhile, must not keep that from being served.
        return self._do(objects, key, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _do(self, objects: dict, key: str, query: dict[str, str], body: bytes) -> None:
        match self.command:
            case "GET" if not key:
                self._list(objects, query)
            case "GET" | "HEAD":
                self._get(objects, key)
            case "PUT" if "partNumber" in query:
                if query["uploadId"] not in self.oss.uploads:
                    return self._refuse(404, "NoSuchUpload")
                self.oss.uploads[query["uploadId"]][1][int(query["partNumber"])] = body
                self._answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
            case "PUT":
                self._store(objects, key, body, self._metadata())
            case "POST" if "uploads" in query:
                name = f"{len(self.oss.uploads)}-upload"
                self.oss.uploads[name] = (self._metadata(), {})
                self._xml(f"<InitiateMultipartUploadResult><Key>{escape(key)}</Key><UploadId>{name}</UploadId>"
                          "</InitiateMultipartUploadResult>")
            case "POST" if "uploadId" in query:
                if query["uploadId"] not in self.oss.uploads:
                    return self._refuse(404, "NoSuchUpload")
                metadata, parts = self.oss.uploads[query["uploadId"]]
                numbers = re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())
                if self._store(objects, key, b"".join(parts[int(n)] for n in numbers), metadata):
                    del self.oss.uploads[query["uploadId"]]
            case "POST" if "delete" in query:
                for name in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                    objects.pop(unescape(name), None)
                quiet = b"<Quiet>true</Quiet>" in body
                self._answer(200) if quiet else self._xml("<DeleteResult></DeleteResult>")
            case "DELETE":
                self.oss.uploads.pop(query.get("uploadId"), None)
                if "uploadId" not in query:
                    objects.pop(key, None)
                self._answer(204)

    def _metadata(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower().startswith("x-oss-meta-")}

    def _store(self, objects: dict, key: str, body: bytes, metadata: dict[str, str]) -> bool:
        if self.headers.get("x-oss-forbid-overwrite") == "true" and key in objects:
            self._refuse(409, "FileAlreadyExists")
            return False
        objects[key] = (body, metadata, formatdate(usegmt=True))
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        self._xml(f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>{escape(tag)}</ETag>"
                  "</CompleteMultipartUploadResult>", ETag=tag)
        return True

    def _list(self, objects: dict, query: dict[str, str]) -> None:
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        found = sorted(name for name in objects if name.startswith(query.get("prefix", "")) and name > after)
        page = found[: int(query.get("max-keys", PAGE))]
        name_of = _quoted if query.get("encoding-type") == "url" else escape
        entries = "".join(
            f"<Contents><Key>{name_of(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{len(objects[name][0])}</Size></Contents>" for name in page
        )
        encoding = "<EncodingType>url</EncodingType>" if name_of is _quoted else ""
        more = len(page) < len(found)
        token = f"<NextContinuationToken>{name_of(page[-1])}</NextContinuationToken>" if more else ""
        self._xml(f"<ListBucketResult>{encoding}<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}"
                  f"</IsTruncated>{token}{entries}</ListBucketResult>")

    def _get(self, objects: dict, key: str) -> None:
        if key not in objects:
            return self._refuse(404, "NoSuchKey")
        body, metadata, stored = objects[key]
        described = {name.replace("-", "_"): value for name, value in metadata.items()} | {"Last_Modified": stored}
        if self.command == "HEAD":
            return self._answer(200, Content_Length=str(len(body)), **described)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return self._answer(200, body, **described)
        first = int(match[1]) if match[1] else max(0, len(body) - int(match[2]))
        last = int(match[2]) if match[1] and match[2] else len(body) - 1
        if first >= len(body):
            # Unless it is told to keep to the standard, the service answers with the whole object.
            strict = self.headers.get("x-oss-range-behavior") == "standard"
            return self._refuse(416, "InvalidRange") if strict else self._answer(200, body, **described)
        part = body[first : last + 1]
        self._answer(206, part, Content_Range=f"bytes {first}-{first + len(part) - 1}/{len(body)}", **described)
