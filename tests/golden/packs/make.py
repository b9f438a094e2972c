#!/usr/bin/env python3
"""Makes the golden packs anew, from golden LTX files and the description of the format in `src/replica/pack/` alone.

Each is of a file of level 9 with the transactions 1 to 3 and has all frames of a golden LTX file. Those `-in-blocks` have a
page index too, of a file that has four more pages, far behind the others: two blocks. The sealed ones are of the file in
`one-recipient-4096`, so its content key opens them.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent
sys.path.insert(0, str(GOLDEN.parents[0] / "e2e"))

from harness import ltx4  # noqa: E402

BLOCK = 16384
FAR = [(BLOCK + 1, 60), (BLOCK + 2, 200), (BLOCK + 3, 17), (BLOCK + 9, 3000)]
SALT = b"sixteen of these"
LTX_CHECKSUM = 0x8000_0000_1234_5678


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def plain_frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """Page, offset and frame of each page of a plain LTX file."""
    at, found = 100, []
    while (pgno := struct.unpack_from(">I", data, at)[0]):
        size = 10 + struct.unpack_from(">I", data, at + 6)[0]
        found.append((pgno, at, data[at:at + size]))
        at += size
    return found


def block_of(pages: list[tuple[int, int]], first: int) -> bytes:
    """A block whose first page would be `first`, of page numbers and sizes of frames."""
    runs, begin = bytearray(), first
    numbers = [number for number, _ in pages]
    while numbers:
        length = next((n for n, number in enumerate(numbers) if number != numbers[0] + n), len(numbers))
        runs += varint(numbers[0] - begin) + varint(length)
        begin, numbers = numbers[0] + length, numbers[length:]
    return bytes(runs) + b"".join(varint(size) for _, size in pages)


def blocks_of(frames: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Offset of the first frame, number of pages, and bytes of two blocks."""
    near = [(pgno, len(frame)) for pgno, _, frame in frames]
    end = frames[0][1] + sum(size for _, size in near)
    return [(frames[0][1], len(near), block_of(near, 1)), (end, len(FAR), block_of(FAR, BLOCK + 1))]


def pack(frames: list[tuple[int, int, bytes]], in_blocks: bool, key: bytes | None = None, header: bytes = b"") -> bytes:
    """The pack of the file with these frames; sealed by `key`, if the file with this header is."""
    crc = lambda data: ltx4._crc(data, ltx4._NVME)  # noqa: E731
    blocks = blocks_of(frames) if in_blocks else []
    end = blocks[1][0] + sum(size for _, size in FAR) if in_blocks else 0
    size = (end or frames[-1][1] + len(frames[-1][2])) + 300
    all_frames = b"".join(frame for _, _, frame in frames)
    seal = len(SALT) + 16 if key else 0
    front = 72 + seal + 16 * len(frames) + 24 * len(blocks) + len(all_frames) + 8
    head = ltx4.PACK.pack(b"LSVPACKS" if key else b"LSVPACK1", front, 9, 1, 3, size, LTX_CHECKSUM, end,
                          FAR[-1][0] if in_blocks else 0, len(frames), len(blocks), len(all_frames))
    head += SALT if key else b""

    def sealed(number: int, content: bytes) -> bytes:
        if not key:
            return content
        bound = head + struct.pack(">II", number, len(blocks) + 1) + hashlib.sha256(header).digest()
        by = ltx4._expand(key, b"litestream-vfs-pack" + SALT)
        return ltx4.seal(by, bytes(8) + struct.pack(">I", number), bound, content)

    stored = [(offset, count, sealed(n + 1, content)) for n, (offset, count, content) in enumerate(blocks)]
    listed = b"".join(struct.pack(">IIQ", pgno, len(frame), offset) for pgno, offset, frame in frames)
    listed += b"".join(struct.pack(">QIIQ", offset, count, len(block), crc(block)) for offset, count, block in stored)
    whole = head + sealed(0, listed) + all_frames
    return whole + struct.pack(">Q", crc(whole)) + b"".join(block for _, _, block in stored)


def main() -> None:
    plain = (GOLDEN / "ltx/page-4096/9/0000000000000001-0000000000000003.ltx").read_bytes()
    closed = (GOLDEN / "ltx4/one-recipient-4096/ltx/9/0000000000000001-0000000000000001.ltx").read_bytes()
    secret = bytes.fromhex(json.loads((GOLDEN / "ltx4/keys.json").read_text())[0]["private_hex"])
    key = ltx4.content_key(closed, secret)
    of_closed = [(pgno, offset, closed[offset:offset + size]) for pgno, offset, size in ltx4._index(closed)[0]]
    for end, in_blocks in (("", False), ("-in-blocks", True)):
        (HERE / f"plain{end}.pack").write_bytes(pack(plain_frames(plain), in_blocks))
        (HERE / f"sealed{end}.pack").write_bytes(pack(of_closed, in_blocks, key, closed[:100]))


if __name__ == "__main__":
    main()
