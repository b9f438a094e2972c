"""The fenced blocks of README.md, as a reader finds them."""

import re
from dataclasses import dataclass

from .paths import ROOT

_HEADING = re.compile(r"^##? (.+)$")
_MARK = re.compile(r"^<!-- (.+) -->$")
_FENCE = re.compile(r"^```(\w*)$")


@dataclass(frozen=True)
class Block:
    """A block: its language, the heading it stands under, the mark in the comment above it, its text."""

    language: str
    heading: str
    mark: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.heading}, line {self.line}"


def blocks(text: str | None = None) -> list[Block]:
    """All blocks of `text`, README.md if none is given, in their order."""
    found, heading, mark, fence = [], "", "", None
    for number, line in enumerate((text or (ROOT / "README.md").read_text()).splitlines(), 1):
        if fence is not None:
            if line == "```":
                language, start, lines = fence
                found.append(Block(language, heading, mark, "\n".join(lines) + "\n", start))
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
        raise ValueError(f"the block that begins in line {fence[1]} has no end")
    return found
