"""What the memory of a process has that a core dump of it would have, and where a secret may be in it."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)")
PIECE = 16
"""A piece of a secret of so many bytes counts as the secret."""


@dataclass(frozen=True)
class Mapping:
    """One of a process's mappings."""

    start: int
    end: int
    access: str
    name: str
    flags: frozenset[str]

    @property
    def is_dumped(self) -> bool:
        """Whether a core dump has it, as the kernel's filter is unless somebody changes it: what is not as a file has it."""
        is_own = "w" in self.access or not self.name.startswith("/")
        return "r" in self.access and is_own and not self.flags & {"dd", "io"} and not self.name.startswith("[v")


def mappings(pid: int) -> list[Mapping]:
    found, range_ = [], None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := RANGE.fullmatch(line):
            range_ = match
        elif line.startswith("VmFlags:"):
            start, end, access, _, name = range_.groups()
            found.append(Mapping(int(start, 16), int(end, 16), access, name, frozenset(line.split()[1:])))
    return found


def content(pid: int, mapping: Mapping) -> bytes:
    """The bytes of a mapping; what cannot be read, such as the rest of a file, is left out."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(mapping.start)
        read = b""
        while len(read) < mapping.end - mapping.start:
            try:
                more = memory.read(mapping.end - mapping.start - len(read))
            except OSError:
                break
            if not more:
                break
            read += more
        return read


def forms(secret: bytes, *texts: str) -> dict[str, bytes]:
    """How a secret may be written: as it is, in hexadecimal digits, in base64 wherever it begins, and as `texts`."""
    found = {"raw": secret, "hex": secret.hex().encode(), "HEX": secret.hex().upper().encode()}
    for at in range(3):
        coded = base64.b64encode(bytes(at) + secret).rstrip(b"=")
        # The first letters and the last belong to what is beside it, too.
        found[f"base64, {at}"] = coded[4 if at else 0:-1]
        found[f"base64url, {at}"] = found[f"base64, {at}"].replace(b"+", b"-").replace(b"/", b"_")
    for text in texts:
        found |= {text[:4].lower(): text.lower().encode(), text[:4].upper(): text.upper().encode()}
    return found


def pieces(secret: bytes) -> Iterator[bytes]:
    """Overlapping pieces, one of which is in whatever has a part of the secret that is half as long again."""
    for at in range(0, max(1, len(secret) - PIECE + 1), PIECE // 2):
        yield secret[at:at + PIECE]
    yield secret[-PIECE:]


def find(data: bytes, wanted: dict[str, bytes]) -> dict[str, int]:
    """Of the forms of a secret those that are there, and where the first piece is."""
    places = {name: [at for piece in pieces(form) if (at := data.find(piece)) >= 0] for name, form in wanted.items()}
    return {name: min(found) for name, found in places.items() if found}
