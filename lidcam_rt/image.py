"""Pictures: decoded, turned upright, brought to RGB, and resized as the artifact's manifest says.

Every form of picture has one stated treatment (docs/runtime.md): grey is repeated over the channels, palette,
CMYK and YCbCr are converted, 16-bit grey is scaled to 8 bits, transparency is laid over white, EXIF
orientation is applied, of an animation the first frame is taken. A picture that cannot be brought to RGB
faithfully is refused.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import InputSpec
from lidcam_rt.errors import ImageError, InputError

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageSource",
    "Placement",
    "RgbImage",
    "describe",
    "network_input",
    "placement",
    "read_image",
    "to_original_size",
]

#: uint8 [height, width, 3], RGB, upright.
RgbImage: TypeAlias = npt.NDArray[np.uint8]
#: What a localizer takes: a path, the bytes of a file, an array, or a Pillow image.
ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | npt.NDArray[Any] | PilImage"
)

#: Pictures of more pixels are refused unless asked for (Pillow's own limit against decompression bombs).
MAX_PIXELS = 89_478_485
#: Formats that are read, by Pillow's names. Nothing that runs an external program (EPS) is among them.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA")
#: Suffixes of the files that are taken from a folder.
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "avif", "tga"),
    )
)

_ORIENTATION = 0x0112
_MAX_FILE_BYTES = 1 << 31


def describe(source: object) -> str:
    """A picture's name for messages and results: its path, or what it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) if isinstance(source, str) else str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{memoryview(source).nbytes} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {source.dtype} {'x'.join(map(str, source.shape))}>"
    mode, size = getattr(source, "mode", None), getattr(source, "size", None)
    if isinstance(mode, str) and isinstance(size, tuple):
        return f"<image {mode} {size[0]}x{size[1]}>"
    return f"<{type(source).__name__}>"


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """Decode a picture to upright 8-bit RGB.

    Args:
        source: a path, the bytes of a file, a uint8 array [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4]
            (RGBA), a uint16 array of the same shapes (scaled to 8 bits), or a Pillow image.
        max_pixels: pictures of more pixels are refused before they are decoded.

    Returns:
        uint8 [H, W, 3]; an RGB uint8 array is returned as it is, without a copy.

    Raises:
        ImageError: the file is missing, empty, truncated, no picture, too large, or of a form that is
            refused; the message names it, the reason and the way out.
    """
    name = describe(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        data = _read_file(Path(source), name)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    else:
        from PIL import Image

        if not isinstance(source, Image.Image):
            raise ImageError(
                f"{name}: not a picture. Give a path, the bytes of a file, a uint8 array or a Pillow image"
            )
        _check_size(source.size, name, max_pixels)
        return _from_pillow(source, name)
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes). Copy it again, or leave it out")
    return _decode(data, name, max_pixels)


def _read_file(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise ImageError(f"{name}: is a folder, a picture is needed")
        if not path.is_file():
            hint = " (addresses are not fetched: download the picture first)" if "://" in name else ""
            reason = "is no regular file" if path.exists() else f"no such file{hint}"
            raise ImageError(f"{name}: {reason}. Check the path")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ImageError(f"{name}: over 2 GiB is not read as a picture. Leave it out")
        return path.read_bytes()
    except ImageError:
        raise
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{name!r}: not a path ({error})") from None
    except OSError as error:
        raise ImageError(
            f"{name}: cannot be read ({error.strerror or error}). Check the path and its permissions"
        ) from None


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width}x{height}). Leave it out")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height:,} pixels, over the limit of {max_pixels:,}. "
            "Make it smaller, or raise the limit: max_pixels=... in Python, --max-pixels on the command line"
        )


def _open(data: bytes, name: str) -> PilImage:
    """Read a picture's header, without Pillow's process-wide pixel limit: ours is per call."""
    from PIL import Image

    if data[:2] == b"\xff\xd8":
        Image.preinit()
    else:
        Image.init()
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
            # A header that begins as this format does and does not go on as one.
            reason = str(error) if accept is not None else reason
    detail = f" ({reason})" if reason else ""
    raise ImageError(
        f"{name}: not a picture in a format that is read, or damaged{detail}. "
        f"Formats: {', '.join(FORMATS)}; check or convert the file"
    )


def _decode(data: bytes, name: str, max_pixels: int) -> RgbImage:
    try:
        with _open(data, name) as image:
            _check_size(image.size, name, max_pixels)
            # Same libjpeg-turbo pixels, in half the time. Only for complete files: OpenCV fills what is
            # missing with grey and says nothing.
            complete = data.rstrip(b"\0\r\n").endswith(b"\xff\xd9")
            plain = complete and image.format == "JPEG" and image.mode == "RGB"
            if plain and (fast := _decode_jpeg(data, image)) is not None:
                return fast
            return _from_pillow(image, name)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it. Make it smaller") from None
    except Exception as error:
        # Pillow's decoders raise many types on damaged data (OSError, SyntaxError, struct.error, ...).
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name}: truncated or damaged ({reason}). Copy it again, or leave it out") from None


def _decode_jpeg(data: bytes, header: PilImage) -> RgbImage | None:
    import cv2

    flags = getattr(cv2, "IMREAD_COLOR_RGB", None)
    if flags is None:  # OpenCV before 4.11
        return None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape != (header.height, header.width, 3):
        return None
    return _upright(np.asarray(pixels, dtype=np.uint8), _orientation(header))


def _orientation(image: PilImage) -> int:
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


def _from_pillow(image: PilImage, name: str) -> RgbImage:
    try:
        orientation = _orientation(image)
        mode = image.mode
        if mode in ("I;16", "I;16L", "I;16B", "I;16N") or (mode == "I" and image.format in ("PNG", "PPM")):
            return _upright(_from_array(np.asarray(image).astype(np.uint16), name, 1 << 62), orientation)
        if mode in ("I", "F"):
            raise ImageError(
                f"{name}: {'32-bit integer' if mode == 'I' else 'floating-point'} pixels have no stated "
                "range. Convert the picture to 8 or 16 bits"
            )
        if mode == "RGB":
            # A colour declared transparent (tRNS) is left alone: that is how every viewer of photos shows it.
            return _upright(np.asarray(image), orientation)
        transparent = mode in ("RGBA", "LA", "PA", "RGBa", "La")
        transparent |= mode == "P" and "transparency" in image.info
        pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"))
        return _upright(_over_white(pixels) if transparent else pixels, orientation)
    except ImageError:
        raise
    except ValueError as error:  # "conversion from LAB to RGB not supported"
        raise ImageError(f"{name}: mode {image.mode} is not supported ({error}). Convert it to RGB") from None
    except OSError as error:
        raise ImageError(f"{name}: truncated or damaged ({error}). Copy it again, or leave it out") from None


def _over_white(rgba: npt.NDArray[np.uint8]) -> RgbImage:
    alpha = rgba[..., 3:].astype(np.uint16)
    if int(alpha.min(initial=255)) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    colour = rgba[..., :3].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _from_array(array: npt.NDArray[Any], name: str, max_pixels: int) -> RgbImage:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 4:
            hint = "; for several pictures use localizer.batch(list_of_arrays)"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; channels come last: array.transpose(1, 2, 0)"
        raise ImageError(f"{name}: must have shape [H, W], [H, W, 3] (RGB) or [H, W, 4] (RGBA){hint}")
    _check_size((array.shape[1], array.shape[0]), name, max_pixels)
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        raise ImageError(
            f"{name}: must be uint8 with values 0 to 255 (for floats of 0 to 1: "
            "(255 * a).round().astype('uint8'))"
        )
    if array.ndim == 2 or array.shape[2] == 1:
        grey = array.reshape(array.shape[0], array.shape[1], 1)
        return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))
    return _over_white(array) if array.shape[2] == 4 else np.ascontiguousarray(array)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in the network's input, in pixels from its upper left corner.

    Attributes:
        width: columns the picture takes.
        height: rows the picture takes.
    """

    width: int
    height: int


def placement(size: tuple[int, int], spec: InputSpec) -> Placement:
    """Where a picture of `size` (width, height) lies in the network's input (all of it for `stretch`)."""
    if spec.resize == "stretch":
        return Placement(spec.width, spec.height)
    scale = min(spec.width / size[0], spec.height / size[1])
    return Placement(
        max(1, min(spec.width, round(size[0] * scale))), max(1, min(spec.height, round(size[1] * scale)))
    )


def network_input(picture: RgbImage, spec: InputSpec) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Resize (and for float32 artifacts normalise) a picture as the manifest says.

    The resampling is Pillow's, which smooths before it shrinks, as torchvision's and timm's evaluation do.

    Args:
        picture: uint8 [H, W, 3] RGB.
        spec: the manifest's input.

    Returns:
        uint8 [height, width, 3], or float32 [3, height, width] normalised.
    """
    from PIL import Image

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"a uint8 picture [H, W, 3] is needed, got {describe(picture)}: use read_image")
    place = placement((picture.shape[1], picture.shape[0]), spec)
    size = (place.width, place.height)
    pixels: npt.NDArray[np.uint8] = picture
    if (picture.shape[1], picture.shape[0]) != size:
        resample = Image.Resampling.BICUBIC if spec.interpolation == "bicubic" else Image.Resampling.BILINEAR
        pixels = np.asarray(Image.fromarray(picture).resize(size, resample))
    if size != (spec.width, spec.height):
        fill = np.clip(np.rint(spec.mean), 0, 255).astype(np.uint8)
        canvas = np.empty((spec.height, spec.width, 3), np.uint8)
        canvas[:] = fill
        canvas[: place.height, : place.width] = pixels
        pixels = canvas
    if spec.dtype == "uint8":
        return pixels
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    scaled: npt.NDArray[np.float32] = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def network_pixels(
    array: npt.NDArray[np.uint8] | npt.NDArray[np.float32], spec: InputSpec
) -> npt.NDArray[np.uint8]:
    """The pixels of a network input, uint8 [height, width, 3]: undoes the normalisation of float32 artifacts."""
    if array.dtype == np.uint8:
        return np.asarray(array, np.uint8)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    pixels: npt.NDArray[np.float32] = np.rint(array.transpose(1, 2, 0) * std + mean)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def to_original_size(
    map8: npt.NDArray[np.uint8], size: tuple[int, int], spec: InputSpec
) -> npt.NDArray[np.uint8]:
    """A map of the network's input brought to the picture's size, bilinearly, as the public evaluators do.

    Args:
        map8: uint8 [height, width] of the artifact's output `map8`.
        size: (width, height) of the picture.
        spec: the manifest's input; a letterboxed map loses its margin first.

    Returns:
        uint8 [H, W].
    """
    import cv2

    place = placement(size, spec)
    part = np.ascontiguousarray(map8[: place.height, : place.width])
    if (part.shape[1], part.shape[0]) == size:
        return part.copy() if part.base is not None else part
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
