"""A slow link to an S3 server, for one upload after another: it takes some parts and is silent then.

The server of the tests lists parts without their ETags, which real stores list: the link adds those that it saw.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, urlsplit

from .proxy import Answer, Fault, Hang, Proxy, Request, Rewrite, Status

NO_SUCH_UPLOAD = Status(404, b"<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>")


@dataclass
class SlowLink:
    """What `proxy` is to its clients; it takes everything until `take` says how many parts."""

    proxy: Proxy
    etags: dict[tuple[str, int], str] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    """Uploads that the store does not know any more."""
    left: int | None = None
    is_silent: bool = False

    def __post_init__(self) -> None:
        self.proxy.fault = self._fault

    def take(self, parts: int | None) -> None:
        """It takes so many parts and is silent then; with None it takes all."""
        self.left, self.is_silent = parts, False

    def forget_uploads(self) -> None:
        """The store removes what was begun, as a rule of its bucket says."""
        self.forgotten |= {upload for upload, _ in self.etags}

    def stored(self) -> int:
        """Bytes of objects and parts that the store took."""
        return sum(request.body_size for request, status in list(self.proxy.answers)
                   if request.method == "PUT" and status == 200)

    def sent(self) -> int:
        """Bytes of objects and parts that went over the link, those in vain included."""
        return sum(request.body_size for request in list(self.proxy.requests) if request.method == "PUT")

    def _fault(self, request: Request) -> Fault | None:
        query = parse_qs(urlsplit(request.target).query)
        upload = query.get("uploadId", [""])[0]
        if upload in self.forgotten:
            return NO_SUCH_UPLOAD
        if self.is_silent:
            return Hang()
        if request.method == "GET" and upload:
            return Rewrite(self._with_etags(upload))
        if request.method != "PUT" or not upload:
            return None
        if self.left is not None:
            if self.left == 0:
                self.is_silent = True
                return Hang()
            self.left -= 1
        return Rewrite(self._noted(upload, int(query["partNumber"][0])))

    def _noted(self, upload: str, number: int) -> Callable[[Answer], Answer]:
        def note(answer: Answer) -> Answer:
            self.etags[upload, number] = answer.headers["etag"]
            return answer
        return note

    def _with_etags(self, upload: str) -> Callable[[Answer], Answer]:
        def named(match: re.Match) -> bytes:
            etag = self.etags[upload, int(match[1])].replace('"', "&quot;")
            return match[0] + f"<ETag>{etag}</ETag>".encode()
        return lambda answer: replace(answer, body=re.sub(rb"<PartNumber>(\d+)</PartNumber>", named, answer.body))
