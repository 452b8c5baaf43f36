"""The formats that are read, and how a file's header is opened."""

from __future__ import annotations

import io
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lidcam_rt.errors import ImageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["FORMATS", "MAX_PIXELS", "image_suffixes", "open_header"]

#: Pictures with more pixels are refused by default (Pillow's own limit against decompression bombs).
MAX_PIXELS = 89_478_485
#: Formats that are read, as Pillow names them. None of them runs an external program, as EPS does.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")

_SUFFIXES = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "bmp", "gif", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "avif", "tga"),
)
_HEIF_SUFFIXES = ("heic", "heif", "hif")
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the files that are read from a folder, including those of HEIC where pillow-heif is installed."""
    more = _HEIF_SUFFIXES if find_spec("pillow_heif") else ()
    return frozenset(f".{suffix}" for suffix in (*_SUFFIXES, *more))


def open_header(data: bytes, name: str) -> ImageFile:
    """Read a picture's header, without Pillow's process-wide pixel limit: ours is per call.

    Args:
        data: the file.
        name: of the picture, for messages.

    Raises:
        ImageError: the file is in no supported format.
    """
    from PIL import Image

    if data[:2] == b"\xff\xd8":
        Image.preinit()
    else:
        Image.init()
    if _is_heif(data):
        return _open_heif(data, name)
    reason = ""
    for format_name in FORMATS:
        if format_name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[format_name]
        if accept is not None:
            accepted = accept(data[:16])
            if accepted is not True:
                reason = accepted if isinstance(accepted, str) else reason
                continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, ValueError, KeyError, EOFError, OSError) as error:
            # A header that begins like this format but does not continue like it.
            reason = str(error) if accept is not None else reason
    detail = f" ({reason})" if reason else ""
    raise ImageError(
        f"{name}: not a picture in a supported format, or damaged{detail}. "
        f"Formats: {', '.join(FORMATS)}; check or convert the file"
    )


def _is_heif(data: bytes) -> bool:
    """Whether an ISO media file holds HEVC pictures (ISO/IEC 23008-12); AVIF lists its own brands beside these."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    return not {b"avif", b"avis"} & set(brands) and bool(_HEIF_BRANDS & set(brands))


def _open_heif(data: bytes, name: str) -> ImageFile:
    try:
        heif: Any = import_module("pillow_heif")
    except ImportError:
        raise ImageError(
            f"{name}: a HEIC picture, which needs pillow-heif: pip install 'lidcam-rt[heif]', or convert it to JPEG"
        ) from None
    try:
        image: ImageFile = heif.HeifImageFile(io.BytesIO(data), "")
    except Exception as error:  # libheif's errors have no common type
        raise ImageError(f"{name}: truncated or damaged ({error}). Copy it again, or leave it out") from None
    return image
