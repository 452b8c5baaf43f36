"""Damage that decoders overlook: wrong checksums, missing ends, data that a broken copy filled with zeros.

docs/runtime.md says what can be detected in each format. JPEG is not here: libjpeg-turbo reports its own guesses.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

__all__ = ["count_scans", "find_damage", "lacks_rows", "mend_png"]

#: No encoder was seen to write more zero bytes in a row; a hole left by a broken copy is at least a page, 4096.
_HOLE = 4095
_MAX_CHUNKS = 1_000_000
#: First column and row, and steps, of the passes of an interlaced PNG (PNG specification, 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
#: JPEG markers that begin a segment, and the one that ends the picture.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
#: Zero bytes in a row per pixel that encoders write for flat areas: lossy WebP (measured 0.026), lossless (0.37).
_WEBP_ZEROS = {b"VP8 ": 0.03, b"VP8L": 0.5}
#: In these modes zero data means black pixels, and a picture is not black throughout the second half of its file.
_DIRECT_MODES = frozenset(("L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I;16B", "I;16L"))


def find_damage(data: bytes, form: str, mode: str, pixels: int, compression: str | None) -> str | None:
    """What is wrong with a file, as far as its structure shows; None: nothing.

    Args:
        data: the file.
        form: its format, as Pillow names it.
        mode: mode of its pixels, as Pillow names it.
        pixels: number of its pixels.
        compression: compression of a TIFF, as Pillow names it.
    """
    if form == "PNG":
        return _png(data)
    if form == "WEBP":
        return _webp(data, pixels)
    if form in ("AVIF", "HEIF"):
        boxes = [payload for kind, payload in _boxes(data) if kind == b"mdat"]
        if boxes and _zeros_at_end(boxes[-1]) > 64:
            return "it ends in zero bytes"
        return "it has a hole of zero bytes" if any(bytes(_HOLE + 1) in box for box in boxes) else None
    raw = form in ("BMP", "PPM", "TGA") or (form == "TIFF" and compression in (None, "raw"))
    if raw:
        half = mode in _DIRECT_MODES and len(data) > 1024 and 2 * _zeros_at_end(data) >= len(data)
        return "its second half is zero bytes" if half else None
    hole = form in ("TIFF", "JPEG2000") and bytes(_HOLE + 1) in data
    return "it has a hole of zero bytes" if hole else None


def _zeros_at_end(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\0"))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin, end) of the chunks; the last may extend beyond the data (PNG specification, 5.3)."""
    at, kind = 8, b""
    while at < len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (0, b"")
        yield kind, at, at + 12 + length
        at += 12 + length


def _png(data: bytes) -> str | None:
    view, kind = memoryview(data), b""
    for count, (kind, begin, end) in enumerate(_png_chunks(data)):
        if end > len(data):
            return "it ends too early"
        if zlib.crc32(view[begin + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return f"the checksum of its chunk {kind.decode('ascii', 'backslashreplace')} is wrong"
        if count > _MAX_CHUNKS:
            return f"it has over {_MAX_CHUNKS:,} chunks"
    return None if kind == b"IEND" else "its end is missing"


def lacks_rows(data: bytes) -> bool:
    """Whether an otherwise sound PNG lacks some of its pixels, which decoders leave black.

    Inflates the file a second time: call it only where the last rows are black.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    wanted = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        wanted += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    inflater, there = zlib.decompressobj(), 0
    for kind, begin, end in _png_chunks(data):
        rest = data[begin + 8 : end - 4] if kind == b"IDAT" else b""
        while rest and there < wanted:
            there += len(inflater.decompress(rest, 1 << 20))
            rest = inflater.unconsumed_tail
    return there < wanted


def mend_png(data: bytes) -> bytes:
    """A damaged PNG reduced to the chunks that its pixels need, with correct checksums and an end."""
    out = bytearray(data[:8])
    for kind, begin, end in _png_chunks(data):
        body = data[begin + 8 : min(end - 4, len(data))]
        if kind not in (b"IHDR", b"PLTE", b"tRNS", b"IDAT") or (end > len(data) and kind != b"IDAT"):
            continue
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return bytes(out + b"\0\0\0\0IEND\xaeB`\x82")


def _webp(data: bytes, pixels: int) -> str | None:
    """The chunks of the first frame (RFC 9649, 2.3 to 2.7)."""
    at, stop = 12, len(data)
    while at + 8 <= stop:
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF":  # a frame: its header, then chunks of its own
            at += 8 + 16
            continue
        if kind in _WEBP_ZEROS:
            zeros = bytes(int(_WEBP_ZEROS[kind] * pixels) + 64)
            return "it has a hole of zero bytes" if zeros in data[at + 8 : at + 8 + length] else None
        at += 8 + length + length % 2
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes at the top of an ISO media file (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if length == 0:
            length = len(data) - at
        if length < head:
            return
        yield kind, data[at + head : at + length]
        at += length


def count_scans(data: bytes) -> int:
    """Scans of a JPEG, each of which goes over all its blocks (ITU-T T.81, B.1.1 and B.2.3)."""
    most = data.count(b"\xff\xda")  # includes those of pictures in the metadata
    if most <= 16:
        return most
    at, scans = 2, 0
    while (found := _MARKER.search(data, at)) and found[0] != b"\xff\xd9":
        scans += found[0] == b"\xff\xda"
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return scans
