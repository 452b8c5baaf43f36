"""Arguments of the metrics, validated: never wrapped, truncated or taken for something else."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError

__all__ = [
    "check_array",
    "check_boxes",
    "check_counts",
    "check_map",
    "check_mask",
    "check_number",
    "check_whole",
]

#: Counts up to this are exact in the products of the bootstrap; coordinates up to that have areas within int64.
_LARGEST, _LARGEST_SIDE = 1 << 44, 1 << 30


def check_whole(name: str, value: Any, smallest: int, largest: int) -> int:
    """A whole number of Python or numpy as an int.

    Raises:
        InputError: it is not one, or is out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)) or not smallest <= number <= largest:
        raise InputError(f"{name} must be a whole number from {smallest} to {largest}, got {value!r:.80}")
    return number


def check_number(name: str, value: Any) -> float:
    """A finite number of Python or numpy as a float.

    Raises:
        InputError: it is not one.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and np.isfinite(value):
        return float(value)
    raise InputError(f"{name} must be a number, got {value!r:.80}")


def check_counts(counts: Any, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Counts of `histogram` as int64.

    Raises:
        InputError: another shape, not whole numbers, or negative.
    """
    if not isinstance(counts, np.ndarray) or counts.shape != shape or counts.dtype.kind not in "iu":
        kind = f"{counts.dtype} {counts.shape}" if isinstance(counts, np.ndarray) else type(counts).__name__
        raise InputError(f"counts must be whole numbers of shape {shape}, got {kind}")
    if (counts < 0).any() or (counts > _LARGEST).any():
        raise InputError(f"counts must be pixels, 0 to 2^44, got {counts.min()} to {counts.max()}")
    return counts.astype(np.int64)


def check_map(map8: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A localization map as the kernels take it.

    Raises:
        InputError: it is not a uint8 array [height, width] with pixels.
    """
    if not isinstance(map8, np.ndarray) or map8.dtype != np.uint8 or map8.ndim != 2 or map8.size == 0:
        kind = f"{map8.dtype} {map8.shape}" if isinstance(map8, np.ndarray) else type(map8).__name__
        raise InputError(f"a map is a uint8 array [height, width], got {kind}; make one of a float map with to_map8")
    return np.ascontiguousarray(map8)


def check_mask(mask: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A ground-truth mask as the kernels take it: uint8, 1 foreground, 0 background, 255 ignored.

    Raises:
        InputError: another shape than the map, or another type than bool or uint8.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.bool_, np.uint8):
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(f"a mask is a bool or uint8 array (1 foreground, 0 background, 255 ignored), got {kind}")
    if mask.shape != shape:
        raise InputError(f"map and mask differ in (height, width): {shape} and {mask.shape}. Use the original size")
    return np.ascontiguousarray(mask).view(np.uint8)


def check_boxes(boxes: Any) -> npt.NDArray[np.int64]:
    """Ground-truth boxes as int64 [n, 4] (x0, y0, x1, y1).

    Raises:
        InputError: no box, another shape, not whole, negative, larger than any picture, or x1 < x0 or y1 < y0.
    """
    raw = check_array("boxes", boxes)
    if raw.ndim != 2 or raw.shape[0] < 1 or raw.shape[1] != 4 or raw.dtype.kind not in "iuf":
        raise InputError(f"boxes have shape [n, 4] (x0, y0, x1, y1) with n >= 1, got {raw.dtype} {raw.shape}")
    # In this order: NaN fails the first comparison, and only what int64 can hold is converted.
    sound = bool(((raw >= 0) & (raw < _LARGEST_SIDE)).all())
    whole = raw.astype(np.int64) if sound else np.zeros(raw.shape, np.int64)
    if not sound or (whole != raw).any() or (whole[:, :2] > whole[:, 2:]).any():
        raise InputError(
            f"boxes are whole pixels x0 <= x1, y0 <= y1, none negative or above 2^30; got {raw.tolist()!r:.200}"
        )
    return np.ascontiguousarray(whole)


def check_array(name: str, values: Any) -> npt.NDArray[Any]:
    """Anything that numpy takes as an array of numbers.

    Raises:
        InputError: numpy does not take it as one, such as lists of different lengths.
    """
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name} are not an array of numbers: {error}") from None
