"""README.md and the documents that it links to, and their fenced blocks, as a reader finds them."""

import re
from dataclasses import dataclass

from .paths import ROOT

DOCUMENTS = ("README.md", *(f"docs/{name}.md" for name in ("settings", "sql", "operating", "how-it-works", "litestream", "hosts")))
"""In the order in which they are read."""

_HEADING = re.compile(r"^##? (.+)$")
_MARK = re.compile(r"^<!-- (.+) -->$")
_FENCE = re.compile(r"^```(\w*)$")


@dataclass(frozen=True)
class Block:
    """A block: its document, its language, the heading it stands under, the mark in the comment above it, its text."""

    document: str

    language: str
    heading: str
    mark: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.document}, {self.heading}, line {self.line}"


def text() -> str:
    """All that the documents say."""
    return "\n".join((ROOT / document).read_text() for document in DOCUMENTS)


def blocks() -> list[Block]:
    """All blocks, in their order."""
    return [block for document in DOCUMENTS for block in blocks_of(document, (ROOT / document).read_text())]


def blocks_of(document: str, text: str) -> list[Block]:
    """Those of one document."""
    found, heading, mark, fence = [], "", "", None
    for number, line in enumerate(text.splitlines(), 1):
        if fence is not None:
            if line == "```":
                language, start, lines = fence
                found.append(Block(document, language, heading, mark, "\n".join(lines) + "\n", start))
                fence, mark = None, ""
            else:
                fence[2].append(line)
        elif match := _FENCE.match(line):
            fence = (match[1], number, [])
        elif match := _HEADING.match(line):
            heading = match[1]
        elif match := _MARK.match(line):
            mark = match[1]
        elif line:
            mark = ""
    if fence is not None:
        raise ValueError(f"the block of {document} that begins in line {fence[1]} has no end")
    return found
