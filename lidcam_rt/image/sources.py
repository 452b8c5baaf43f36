"""What a picture may be given as: a path, the bytes of a file, an open file, an array, a tensor, a Pillow image."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

__all__ = ["ImageSource", "as_array", "as_file", "describe", "on_disk"]


class _Array(Protocol):
    """An array of another library, such as a tensor of PyTorch on the CPU."""

    @property
    def shape(self) -> Any:
        """Rows, columns, channels."""

    def __array__(self, *args: Any, **kwargs: Any) -> npt.NDArray[Any]: ...


#: What a localizer takes: a path, the bytes of a file, a file opened for reading bytes, a uint8 array or tensor
#: [H, W, 3], or a Pillow image.
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | _Array | PilImage"

_MAX_FILE_BYTES = 1 << 31
_HINT = "Give a path, the bytes of a file, an open file, a uint8 array [H, W, 3] or a Pillow image"


def describe(source: object) -> str:
    """A picture's name for messages and results: its path, or what it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{memoryview(source).nbytes} bytes>"
    if isinstance(source, np.ndarray):
        return f"<array {source.dtype} {'x'.join(map(str, source.shape))}>"
    mode, size = getattr(source, "mode", None), getattr(source, "size", None)
    if isinstance(mode, str) and isinstance(size, tuple):
        return f"<image {mode} {size[0]}x{size[1]}>"
    dtype, shape = getattr(source, "dtype", None), getattr(source, "shape", None)
    if dtype is not None and shape is not None:
        return f"<{type(source).__name__} {str(dtype).removeprefix('torch.')} {'x'.join(map(str, shape))}>"
    if isinstance(name := getattr(source, "name", None), str) and hasattr(source, "read"):
        return name
    return f"<{type(source).__name__}>"


def as_file(source: object, name: str) -> bytes | None:
    """The bytes of a picture's file; None where the source is not a file.

    Raises:
        ImageError: it is missing, empty, too large or cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        data = _read_path(Path(os.fsdecode(source)), name)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif callable(getattr(source, "read", None)):
        data = _read_stream(source, name)
    else:
        return None
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes). Copy it again, or leave it out")
    return data


def _read_path(path: Path, name: str) -> bytes:
    try:
        path = Path(on_disk(os.fspath(path)))
        if path.is_dir():
            raise ImageError(f"{name}: is a folder, a picture is needed")
        if not path.is_file():
            hint = " (URLs are not fetched: download the picture first)" if "://" in name else ""
            reason = "is not a regular file" if path.exists() else f"no such file{hint}"
            raise ImageError(f"{name}: {reason}. Check the path")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ImageError(f"{name}: is over 2 GiB, too large for a picture. Leave it out")
        return path.read_bytes()
    except ImageError:
        raise
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{name!r}: not a path ({error})") from None
    except OSError as error:
        raise ImageError(
            f"{name}: cannot be read ({error.strerror or error}). Check the path and its permissions"
        ) from None


def on_disk(path: str) -> str:
    """A path in the Unicode form in which it exists: macOS writes names in NFD, other systems in NFC."""
    if not path.isascii():
        for other in (path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))):
            if os.path.exists(other):  # noqa: PTH110
                return other
    return path


def _read_stream(file: Any, name: str) -> bytes:
    try:
        data = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # a file that is closed, or not readable
        raise ImageError(f"{name}: cannot be read ({error}). Open it for reading, as open(path, 'rb')") from None
    if isinstance(data, str):
        raise ImageError(f"{name}: opened as text. Open it for reading bytes, as open(path, 'rb')")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"{name}: not a picture. {_HINT}")
    if not data and callable(getattr(file, "tell", None)) and file.tell():
        raise ImageError(f"{name}: already read to its end. Rewind it first: file.seek(0)")
    if len(data) > _MAX_FILE_BYTES:
        raise ImageError(f"{name}: is over 2 GiB, too large for a picture. Leave it out")
    return bytes(data)


def as_array(source: object, name: str) -> npt.NDArray[Any]:
    """An array or tensor as a checked numpy array: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8 or uint16.

    Booleans become 0 and 255.

    Raises:
        ImageError: another type, shape or dtype.
    """
    if not hasattr(source, "__array__") or not hasattr(source, "shape"):
        several = isinstance(source, (list, tuple)) and "; for several pictures use localizer.batch(pictures)"
        raise ImageError(f"{name}: not a picture. {_HINT}{several or ''}")
    try:
        array = np.asarray(source)
    except Exception as error:  # a tensor on a GPU, or one that needs a gradient
        raise ImageError(f"{name}: cannot be read as an array ({error})") from None
    tensor = not isinstance(source, np.ndarray)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 4:
            hint = "; for several pictures use localizer.batch(list_of_pictures)"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = f"; channels come last: {'tensor.permute' if tensor else 'array.transpose'}(1, 2, 0)"
        raise ImageError(f"{name}: must have shape [H, W], [H, W, 3] (RGB) or [H, W, 4] (RGBA){hint}")
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype not in (np.uint8, np.uint16):
        scaled = "(255 * t).round().byte()" if tensor else "(255 * a).round().astype('uint8')"
        raise ImageError(f"{name}: must be uint8 with values 0 to 255 (for floats of 0 to 1: {scaled})")
    return array
