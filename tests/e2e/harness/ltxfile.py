"""What an LTX file says of itself."""

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct(">4sIIIQQqQqqIIQ")


@dataclass(frozen=True)
class LtxFile:
    """The header of a file, and the numbers of its pages."""

    page_size: int
    commit: int
    wal_offset: int
    wal_size: int
    salts: tuple[int, int]
    node_id: int
    pages: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> "LtxFile":
        data = path.read_bytes()
        (magic, _, page_size, commit, _, _, _, _, offset, size, salt1, salt2, node) = _HEADER.unpack_from(data)
        assert magic == b"LTX1", path
        return cls(page_size, commit, offset, size, (salt1, salt2), node, tuple(_pages(data)))

    @property
    def is_whole(self) -> bool:
        """Whether it holds all pages of the database."""
        return len(self.pages) == self.commit


def _pages(data: bytes):
    """The page index: a page number, an offset and a size each, up to a zero; its size and the trailer come after it."""
    end = len(data) - 16 - 8
    [size] = struct.unpack_from(">Q", data, end)
    numbers = _varints(data[end - size:end])
    while page := next(numbers):
        yield page
        next(numbers)
        next(numbers)


def _varints(data: bytes):
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
