#!/usr/bin/env python3
"""Writes what the target `pack` begins with into a folder: each golden pack behind the file that it is of, and what the target
makes a golden one of by itself."""

import struct
import sys
from pathlib import Path

PACKS = Path(__file__).resolve().parent.parent / "golden" / "packs"


def main() -> None:
    corpus = Path(sys.argv[1])
    for path in sorted(PACKS.glob("*.pack")):
        pack = path.read_bytes()
        front, _, _, last, size, _, end, last_page, pages, blocks, _ = struct.unpack_from(">IIQQQQQIIII", pack, 8)
        ask = struct.pack(">IIII", 1, last - 1, size, 100)
        (corpus / path.name).write_bytes(ask + pack)
        if path.name.startswith("plain"):
            said = bytes([pages, blocks]) + last_page.to_bytes(3) + end.to_bytes(3)
            said += bytes([len(pack) - front, 0, 0, 0])
            (corpus / f"{path.stem}.named").write_bytes(ask + said + pack[72:front - 8] + pack[front:])


if __name__ == "__main__":
    main()
