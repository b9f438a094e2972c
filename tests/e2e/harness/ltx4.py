"""Opens a sealed LTX file, version 4, in plain Python: written from the description of the format alone, and slow.

Source: superfly/ltx, pull request 78; RFC 9180 (HPKE), 5869 (HKDF), 8439 (ChaCha20-Poly1305), 7748 (X25519).
"""

import hashlib
import hmac
import struct

from . import age

HEADER = struct.Struct(">4sIIIQQqQqqIIQHHHH12s")
PACK = struct.Struct(">8sIIQQQQQIIII")
_MASK = 0xFFFFFFFF
_SUITE, _KEM = b"HPKE\x00\x20\x00\x01\x00\x03", b"KEM\x00\x20"


class Refused(Exception):
    """The file does not open, or breaks the format."""


def content_key(data: bytes, secret: bytes) -> bytes:
    """The content key of a file, by the private key of one of its recipients."""
    public = age._x25519(secret, (9).to_bytes(32, "little"))
    for entry in entries(data):
        shared = _labeled(_KEM, _extract(_KEM, b"", b"eae_prk", age._x25519(secret, entry[:32])), b"shared_secret", entry[:32] + public, 32)
        context = b"\0" + _extract(_SUITE, b"", b"psk_id_hash", b"") + _extract(_SUITE, b"", b"info_hash", b"ltx-cek-wrap")
        key = _extract(_SUITE, shared, b"secret", b"")
        try:
            return _open(_labeled(_SUITE, key, b"key", context, 32), _labeled(_SUITE, key, b"base_nonce", context, 12), b"", entry[32:])
        except Refused:
            continue
    raise Refused("no entry opens")


def entries(data: bytes) -> list[bytes]:
    """What the file has for each recipient."""
    count = HEADER.unpack_from(data)[13]
    return [data[100 + 80 * n:180 + 80 * n] for n in range(count)]


def nonces(data: bytes) -> list[bytes]:
    """The nonces of all frames."""
    return [data[offset + 10:offset + 22] for _, offset, _ in _index(data)[0]]


def pages(data: bytes, key: bytes, every: int = 1) -> dict[int, bytes]:
    """Each page of a file, or each so many, by its content key; all else is checked."""
    magic, flags, page_size, *_, count, kem, kdf, aead, zeros = HEADER.unpack_from(data)
    if (magic, flags, kem, kdf, aead, zeros) != (b"LTX4", 6, 0x20, 1, 3, bytes(12)) or not count:
        raise Refused("the header")
    index, start, end = _index(data)
    if data[100:100 + 80 * count] != data[end + 16:end + 16 + 80 * count]:
        raise Refused("the recipients")
    _open(_expand(key, b"ltx-index-key"), b"ltx-idx-auth", data[start:end], data[end:end + 16])
    post, checksum = struct.unpack(">QQ", data[-16:])
    if post or (every == 1 and checksum != _crc(data[:-8], _GO_ISO) | 1 << 63):
        raise Refused("the checksum")
    if data[start - 6:start] != bytes(6) or index[0][1] != 100 + 80 * count:
        raise Refused("the ends of the page block")
    page_key, header, found = _expand(key, b"ltx-page-key"), hashlib.sha256(data[:100]).digest(), {}
    for pgno, offset, size in index[::every]:
        head = data[offset:offset + 6]
        if head != struct.pack(">IH", pgno, 1) or struct.unpack_from(">I", data, offset + 6)[0] != size - 10:
            raise Refused(f"the head of page {pgno}")
        bound = header + struct.pack(">I", pgno) + head
        block = _open(page_key, data[offset + 10:offset + 22], bound, data[offset + 22:offset + size])
        found[pgno] = _lz4(block)
        if len(found[pgno]) != page_size:
            raise Refused(f"the size of page {pgno}")
    return found


def pack(data: bytes, file: bytes, key: bytes) -> dict[int, tuple[int, bytes]]:
    """Offset and frame of each page in the pack of a file that is too small for blocks, by the content key of the file.

    Written from the descriptions in `replica/pack/mod.rs` and `seal.rs`, and `ltx/seal/pack_cipher.rs`.
    """
    magic, front, _, first, last, size, checksum, end, last_page, count, blocks, frames = PACK.unpack_from(data)
    if (magic, front, size, checksum, end, last_page, blocks) != (b"LSVPACKS", len(data), len(file), struct.unpack(">Q", file[-8:])[0], 0, 0, 0):
        raise Refused("the head of the pack")
    if (first, last) != HEADER.unpack_from(file)[4:6] or struct.unpack(">Q", data[-8:])[0] != _crc(data[:-8], _NVME):
        raise Refused("the pack is another's, or damaged")
    at = 88 + 16 * count + 16
    bound = data[:88] + struct.pack(">II", 0, 1) + hashlib.sha256(file[:100]).digest()
    listed, found = _open(_expand(key, b"litestream-vfs-pack" + data[72:88]), bytes(12), bound, data[88:at]), {}
    for pgno, length, offset in struct.iter_unpack(">IIQ", listed):
        found[pgno] = (offset, data[at:at + length])
        at += length
    if at != len(data) - 8 or frames != sum(len(frame) for _, frame in found.values()):
        raise Refused("the frames of the pack")
    return found


def _index(data: bytes) -> tuple[list[tuple[int, int, int]], int, int]:
    """Page, offset and size of each frame; where the index begins, and where its tag does."""
    end = len(data) - 16 - 80 * HEADER.unpack_from(data)[13] - 16
    start = end - 8 - struct.unpack_from(">Q", data, end - 8)[0]
    numbers, at = [], start
    while at < end - 8:
        number = shift = 0
        while data[at] & 128:
            number |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
        numbers.append(number | data[at] << shift)
        at += 1
    if numbers.pop() or len(numbers) % 3:
        raise Refused("the page index")
    frames = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    if any(one[1] + one[2] != two[1] or one[0] >= two[0] for one, two in zip(frames, frames[1:], strict=False)):
        raise Refused("the order of the page index")
    return frames, start, end


def _extract(suite: bytes, salt: bytes, label: bytes, data: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + data, "sha256")


def _labeled(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    return _expand(key, struct.pack(">H", size) + b"HPKE-v1" + suite + label + info)[:size]


def _expand(key: bytes, info: bytes) -> bytes:
    return hmac.digest(key, info + b"\1", "sha256")


def seal(key: bytes, nonce: bytes, bound: bytes, content: bytes) -> bytes:
    """ChaCha20-Poly1305: what `_open` opens."""
    text = _with_stream(key, nonce, content)
    return text + _tag(key, nonce, bound, text)


def _open(key: bytes, nonce: bytes, bound: bytes, sealed: bytes) -> bytes:
    """ChaCha20-Poly1305."""
    text, tag = sealed[:-16], sealed[-16:]
    if _tag(key, nonce, bound, text) != tag:
        raise Refused("a tag")
    return _with_stream(key, nonce, text)


def _with_stream(key: bytes, nonce: bytes, text: bytes) -> bytes:
    stream = b"".join(_block(key, 1 + n, nonce) for n in range(-(-len(text) // 64)))
    return (int.from_bytes(text, "little") ^ int.from_bytes(stream[:len(text)], "little")).to_bytes(len(text), "little")


def _tag(key: bytes, nonce: bytes, bound: bytes, text: bytes) -> bytes:
    one_time = _block(key, 0, nonce)[:32]
    r, s = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF, int.from_bytes(one_time[16:], "little")
    message = bound + bytes(-len(bound) % 16) + text + bytes(-len(text) % 16) + struct.pack("<QQ", len(bound), len(text))
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at:at + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return (total + s & (1 << 128) - 1).to_bytes(16, "little")


def _block(key: bytes, counter: int, nonce: bytes) -> bytes:
    before = struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce)
    x = list(before)

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for p, q, r, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[p] = x[p] + x[q] & _MASK
            mixed = x[r] ^ x[p]
            x[r] = (mixed << turn | mixed >> 32 - turn) & _MASK

    for _ in range(10):
        for columns in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                        (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter(*columns)
    return struct.pack("<16I", *(one + two & _MASK for one, two in zip(before, x, strict=True)))


def _lz4(block: bytes) -> bytes:
    """An LZ4 block."""
    out, at = bytearray(), 0

    def more(length: int) -> int:
        nonlocal at
        while length >= 15 and block[at] == 255:
            length, at = length + 255, at + 1
        if length >= 15:
            length, at = length + block[at], at + 1
        return length

    while at < len(block):
        token = block[at]
        at += 1
        literals = more(token >> 4)
        out += block[at:at + literals]
        at += literals
        if at == len(block):
            break
        distance = block[at] | block[at + 1] << 8
        at += 2
        length = more(token & 15) + 4
        for _ in range(length):
            out.append(out[-distance])
    return bytes(out)


def _table(polynomial: int) -> list[int]:
    def row(n: int) -> int:
        for _ in range(8):
            n = n >> 1 ^ (polynomial if n & 1 else 0)
        return n

    return [row(n) for n in range(256)]


_GO_ISO, _NVME = _table(0xD800000000000000), _table(0x9A6C9329AC4BC9B5)


def _crc(data: bytes, table: list[int]) -> int:
    crc = (1 << 64) - 1
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ (1 << 64) - 1
