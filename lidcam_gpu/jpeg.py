"""Which JPEG files a decoder on the device reads as `lidcam_rt.image` does, judged by their markers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["plain_jpeg"]

_ORIENTATION = 0x0112
#: Passes over all pixels that a JPEG may take: as many as the reader on the CPU allows.
_MAX_PASSES = 16
#: Zero bytes in a row that no encoder writes.
_HOLE = bytes(4096)
#: Huffman coded: baseline, extended sequential, progressive (ITU-T T.81, table B.1).
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
#: The other kinds of frames, arithmetic coding, and what is not a segment (table B.1).
_REFUSED = frozenset((*range(0xC0), 0xC3, *range(0xC5, 0xDA), 0xFF))
#: Horizontal and vertical samples of luma for one of chroma.
_SAMPLINGS = frozenset(((1, 1), (2, 1), (2, 2), (1, 2), (4, 1)))
#: What follows 0xFF from the first scan on: a stuffed byte, tables, restarts, the end, scans, or another 0xFF (B.1.1).
_AFTER = np.zeros(256, np.bool_)
_AFTER[[0x00, 0xC4, *range(0xD0, 0xD8), 0xD9, 0xDA, 0xDB, 0xDD, 0xFF]] = True
_SCAN, _END = 0xDA, 0xD9


def plain_jpeg(data: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Size of a JPEG that the device decodes with the same meaning as the CPU.

    That is: Huffman coded, 8 bits, three components that are Y, Cb and Cr, upright, one picture in the file, complete
    as far as its markers show, and within the limits. Colour profiles are ignored on both sides.

    Args:
        data: the file.
        max_pixels: as for `lidcam_rt.load`.

    Returns:
        (height, width) in pixels; None: the CPU reads this file, or refuses it.
    """
    scan = _first_scan(data)
    if scan is None:
        return None
    at, height, width = scan
    if not 0 < height * width <= max_pixels or data[-2:] != b"\xff\xd9" or _HOLE in data:
        return None
    markers = _markers(data, at)
    scans, ends = (int(np.count_nonzero(markers == kind)) for kind in (_SCAN, _END))
    few = (scans + 1) * height * width <= _MAX_PASSES * max_pixels
    return (height, width) if few and ends == 1 and _AFTER[markers].all() else None


def _markers(data: bytes, begin: int) -> npt.NDArray[np.uint8]:
    """The bytes that follow 0xFF, from a place on."""
    values = np.frombuffer(data, np.uint8)[begin:]
    return values[np.flatnonzero(values[:-1] == 0xFF) + 1]


def _first_scan(data: bytes) -> tuple[int, int, int] | None:
    """Where the first scan begins, height and width; None: something in the header leaves the file to the CPU."""
    at, size, ycbcr = 2, None, False
    exif: bytes | None = None
    turned_by_xmp = False
    if data[:2] != b"\xff\xd8":
        return None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if end < at + 4 or end > len(data) or marker in _REFUSED:
            return None
        if marker == _SCAN:
            upright = _upright(exif, turned_by_xmp)
            return (end, *size) if size is not None and ycbcr and upright else None
        if marker in _FRAMES:
            if size is not None or not _three_components(body):
                return None
            size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            ycbcr = bytes(body[6::3]) != b"RGB"
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            if exif is not None:
                return None
            exif = body
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            turned_by_xmp = turned_by_xmp or b"Orientation" in body
        elif _of_another_meaning(marker, body):
            return None
        at = end
    return None


def _of_another_meaning(marker: int, body: bytes) -> bool:
    """Whether a segment says that there are several pictures (CIPA DC-007), or that colours are not YCbCr (Adobe)."""
    several = marker == 0xE2 and body[:4] == b"MPF\0"
    return several or (marker == 0xEE and body[:5] == b"Adobe" and body[11:] != b"\1")


def _three_components(frame: bytes) -> bool:
    """Whether a frame has 8 bits and three components, of which only the first may have more samples (B.2.2)."""
    if len(frame) != 15 or frame[0] != 8 or frame[5] != 3:
        return False
    first, second, third = (divmod(frame[at], 16) for at in (7, 10, 13))
    return first in _SAMPLINGS and second == third == (1, 1)


def _upright(exif: bytes | None, turned_by_xmp: bool) -> bool:
    """Whether the reader on the CPU would leave the pixels as they are."""
    value = None
    if exif is not None:
        from PIL import Image

        try:
            tags = Image.Exif()
            tags.load(exif)
            value = tags.get(_ORIENTATION)
        except Exception:  # damaged: left to the reader
            return False
    return value == 1 or (value is None and not turned_by_xmp)
