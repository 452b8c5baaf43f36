"""Decodes a picture given in any form, once and strictly, then turns it upright and converts it to RGB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import ImageError
from lidcam_rt.image.damage import count_scans, find_damage, lacks_rows, mend_png
from lidcam_rt.image.formats import MAX_PIXELS, open_header
from lidcam_rt.image.resize import RgbImage, tiles
from lidcam_rt.image.sources import ImageSource, as_array, as_file, describe

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from PIL.ImageFile import ImageFile

__all__ = ["Picture", "decode", "read_image", "upright_size"]

_ORIENTATION = 0x0112
#: Passes over all pixels that a JPEG may take; encoders write up to 10 scans.
_MAX_PASSES = 16
#: Warnings of libjpeg-turbo about the header that say nothing about the pixels.
_HARMLESS = ("Unknown Adobe color transform", "Warning: unknown JFIF revision", "Corrupt JPEG data: bad ICC marker")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 [H, W, 3], RGB, upright.
        missing: what was missing or damaged in its file, or None. What could not be read is grey or black.
    """

    pixels: RgbImage
    missing: str | None = None


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, strict: bool = True) -> RgbImage:
    """Decode a picture to upright 8-bit RGB.

    Args:
        source: a path, the bytes of a file, a file opened for reading bytes, a uint8 array or CPU tensor [H, W],
            [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA), a uint16 array of the same shapes (scaled to 8 bits), or
            a Pillow image.
        max_pixels: pictures with more pixels are refused before they are decoded.
        strict: refuse a file with missing or damaged data. False: return what can be read of it (`decode` reports
            what was missing).

    Returns:
        uint8 [H, W, 3]; an RGB uint8 array is returned as it is, without a copy.

    Raises:
        ImageError: the file is missing, empty, truncated, damaged, not a picture, too large, or of a kind that is
            refused; the message names it, the reason and the remedy.
    """
    return decode(source, max_pixels=max_pixels, strict=strict).pixels


def decode(source: ImageSource, *, max_pixels: int = MAX_PIXELS, strict: bool = True) -> Picture:
    """As `read_image`; also reports what was missing."""
    from PIL import Image

    name = describe(source)
    if isinstance(source, Image.Image):
        _check_size(source.size, name, max_pixels)
        with _damage_named(name):
            return Picture(_to_rgb(source, name))
    data = as_file(source, name)
    if data is None:
        array = as_array(source, name)
        _check_size((array.shape[1], array.shape[0]), name, max_pixels)
        return Picture(_array_to_rgb(array))
    with _damage_named(name):
        return _decode(data, name, max_pixels, strict)


def upright_size(source: ImageSource) -> tuple[int, int]:
    """(width, height) of a picture's upright pixels, from its file's header alone where that has the orientation.

    Raises:
        ImageError: the file is missing or not a picture.
    """
    name = describe(source)
    data = as_file(source, name)
    if data is None:
        height, width = decode(source).pixels.shape[:2]
        return width, height
    with _damage_named(name), open_header(data, name) as image:
        turned = _orientation(image) >= 5  # read first: some formats are decoded for it, and turned then
        return (image.height, image.width) if turned else (image.width, image.height)


@contextlib.contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """What decoders raise on damaged data (OSError, SyntaxError, struct.error, ...) becomes ImageError."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it. Make it smaller") from None
    except Exception as error:
        raise _damaged(name, str(error) or type(error).__name__) from None


def _damaged(name: str, reason: str) -> ImageError:
    return ImageError(
        f"{name}: truncated or damaged ({reason}). Copy it again, leave it out, or use what can be read of it: "
        "strict=False in Python, --no-strict on the command line"
    )


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width}x{height}). Leave it out")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height:,} pixels, over the limit of {max_pixels:,}. "
            "Make it smaller, or raise the limit: max_pixels=... in Python, --max-pixels on the command line"
        )


def _decode(data: bytes, name: str, max_pixels: int, strict: bool) -> Picture:
    missing = None
    if data[:8] == b"\x89PNG\r\n\x1a\n" and (missing := find_damage(data, "PNG", "", 0, None)):
        if strict:
            raise _damaged(name, missing)
        data = mend_png(data)
    with open_header(data, name) as image:
        form, size = image.format or "", image.size
        _check_size(size, name, max_pixels)
        if form in ("JPEG", "MPO"):
            _check_work(data, size, name, max_pixels)
            if (picture := _decode_jpeg(data, image, name, strict)) is not None:
                return picture
        elif form != "PNG":
            missing = find_damage(data, form, image.mode, size[0] * size[1], image.info.get("compression"))
            if missing and strict:
                raise _damaged(name, missing)
        missing = _load(image, strict) or missing
        if form == "PNG" and missing is None and _ends_black(image) and lacks_rows(data):
            missing = "it lacks rows"
            if strict:
                raise _damaged(name, missing)
        return Picture(_to_rgb(image, name), missing)


def _check_work(data: bytes, size: tuple[int, int], name: str, max_pixels: int) -> None:
    """A progressive JPEG of a few bytes may demand thousands of passes over its pixels."""
    if (scans := count_scans(data)) * size[0] * size[1] > _MAX_PASSES * max_pixels:
        raise ImageError(
            f"{name}: {scans} scans of {size[0]}x{size[1]} pixels take too long to decode. Save it again, or raise the "
            "limit: max_pixels=... in Python, --max-pixels on the command line"
        )


def _decode_jpeg(data: bytes, header: ImageFile, name: str, strict: bool) -> Picture | None:
    """Decode with libjpeg-turbo itself, which reports where it had to guess; None: leave it to Pillow."""
    try:
        import simplejpeg
    except ImportError:  # no wheel for this platform: Pillow then decodes, and notices only a missing end
        return None
    space, missing = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[header.mode], None
    try:
        pixels = simplejpeg.decode_jpeg(data, space)
    except ValueError as error:
        missing = str(error)
        if not missing.startswith(("Premature end", "Corrupt JPEG data", "Inconsistent", "Invalid SOS", *_HARMLESS)):
            return None  # an error rather than a warning: Pillow says what it is
        if missing.startswith(_HARMLESS):
            missing = None
        elif strict:
            raise _damaged(name, missing) from None
        pixels = simplejpeg.decode_jpeg(data, space, strict=False)
    if pixels.shape[:2] != (header.height, header.width) or space == "CMYK":
        return None  # Adobe's CMYK is inverted: Pillow knows when
    return Picture(_upright(_array_to_rgb(pixels), _orientation(header)), missing)


def _load(image: ImageFile, strict: bool) -> str | None:
    """Decode; returns what was missing, where not strict and a part could be decoded."""
    try:
        image.load()
    except Exception as error:
        if strict or not _has_rows(image):
            raise
        image.tile = []  # the rows decoded so far stay; the others are black
        return str(error) or type(error).__name__
    return None


def _ends_black(image: ImageFile) -> bool:
    """Whether one of the last two rows is all zero, as rows are that were not decoded."""
    last = image.crop((0, max(0, image.height - 2), image.width, image.height))
    return not np.asarray(last).reshape(last.height, -1).any(axis=1).all()


def _has_rows(image: ImageFile) -> bool:
    try:
        return image.im is not None
    except Exception:  # Pillow has no pixels at all
        return False


def _orientation(image: PilImage) -> int:
    """Orientation by EXIF or XMP, 1 to 8. Call it after decoding: Pillow turns some formats itself."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: npt.NDArray[np.uint8], orientation: int) -> RgbImage:
    """Undo an EXIF orientation (EXIF 2.32, tag 0x0112)."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(pixels[rows, columns])


def _to_rgb(image: PilImage, name: str) -> RgbImage:
    """The pixels of a decoded image, upright."""
    image.load()
    mode, wide = image.mode, False
    if mode in ("I;16", "I;16L", "I;16B", "I;16N") or (mode == "I" and image.format in ("PNG", "PPM")):
        target, wide = mode, True
    elif mode in ("I", "F"):
        raise ImageError(
            f"{name}: {'32-bit integer' if mode == 'I' else 'floating-point'} pixels have no stated "
            "range. Convert the picture to 8 or 16 bits"
        )
    elif mode in ("RGBA", "LA", "PA", "RGBa", "La") or (mode == "P" and "transparency" in image.info):
        target = "RGBA"
    else:
        target = "RGB"  # a colour declared transparent (tRNS) is left alone, as viewers of photos do
    out = np.empty((image.height, image.width, 3), np.uint8)
    for inside in tiles(image.width, image.height):
        rows, columns = inside
        part = image.crop((columns.start, rows.start, columns.stop, rows.stop))
        try:
            pixels = np.asarray(part if part.mode == target else part.convert(target))
        except ValueError as error:  # "conversion from LAB to RGB not supported"
            raise ImageError(f"{name}: mode {mode} is not supported ({error}). Convert it to RGB") from None
        out[inside] = _tile_to_rgb(pixels.astype(np.uint16) if wide else pixels)
    return _upright(out, _orientation(image))


def _array_to_rgb(array: npt.NDArray[Any]) -> RgbImage:
    """uint8 or uint16 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] as uint8 [H, W, 3]."""
    if array.dtype == np.uint8 and array.shape[2:] == (3,):
        return np.ascontiguousarray(array)
    out = np.empty((*array.shape[:2], 3), np.uint8)
    for inside in tiles(array.shape[1], array.shape[0]):
        out[inside] = _tile_to_rgb(array[inside])
    return out


def _tile_to_rgb(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.ndim == 2 or array.shape[2] == 1:
        return np.broadcast_to(array.reshape(*array.shape[:2], 1), (*array.shape[:2], 3))
    return _over_white(array) if array.shape[2] == 4 else array


def _over_white(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    if int(alpha.min(initial=255)) == 255:
        return rgba[..., :3]
    colour = rgba[..., :3].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
