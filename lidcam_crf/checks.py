"""Constants and argument checks of `densecrf`, the same as pydensecrf's."""

from __future__ import annotations

import enum
import math
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "KernelType",
    "NormalizationType",
]

Float32Array = npt.NDArray[np.float32]

#: What +infinity (a probability of 0, unclipped) becomes: e^-1e30 is also 0, and the arithmetic stays finite.
_IMPOSSIBLE = np.float32(1e30)
#: Limits of energies and compatibilities, so that no sum overflows (kernels/crf/mean_field.h).
_MAX_ENERGY, _MAX_COMPAT = 3e38, 1e20
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


class KernelType(enum.IntEnum):
    """Which parameters of a kernel could be learned. Has no effect on inference."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(enum.IntEnum):
    """How a kernel K is normalised by its row sums k = K 1.

    `NO_NORMALIZATION`: K. `NORMALIZE_BEFORE`: K / k by column. `NORMALIZE_AFTER`: K / k by row (NIPS 2011).
    `NORMALIZE_SYMMETRIC`: K / sqrt(k k^T) (ICML 2013, the default).
    """

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType


def whole_number(name: str, value: Any, minimum: int, maximum: int = 2**31 - 1) -> int:
    """An int; whole floats are accepted, as in pydensecrf."""
    if isinstance(value, np.generic):
        value = value.item()
    whole = isinstance(value, int) or (isinstance(value, float) and value == value // 1)
    if isinstance(value, bool) or not whole or not minimum <= value <= maximum:
        raise InputError(f"{name} must be a whole number from {minimum} to {maximum}, got {value!r}")
    return int(value)


def float32_matrix(name: str, value: Any, shape: tuple[int | None, ...]) -> Float32Array:
    """The array, if it is float32, C-contiguous and of that shape (None: any)."""
    wanted = f"float32 [{', '.join('any' if n is None else str(n) for n in shape)}]"
    if not isinstance(value, np.ndarray):
        try:
            value = np.asarray(memoryview(value))
        except TypeError:
            raise InputError(f"{name} must be a numpy array, {wanted}, got {type(value).__name__}") from None
    if value.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, value.shape, strict=True)):
        hint = ": reshape the image's axes into one, u.reshape(labels, -1)" if value.ndim > len(shape) else ""
        raise InputError(f"{name} must be {wanted}, got shape {value.shape}{hint}")
    if value.dtype != np.float32:
        raise InputError(f"{name} must be {wanted}, got {value.dtype}: use {name}.astype(np.float32)")
    if not value.flags.c_contiguous:
        raise InputError(f"{name} must be C-contiguous (a transposed or sliced array is not): use np.ascontiguousarray")
    array: Float32Array = value
    return array


def finite_energy(name: str, values: Float32Array) -> Float32Array:
    """A copy without infinities; a label whose energy was +infinity is still never chosen."""
    if np.isnan(values).any():
        raise InputError(f"{name} holds NaN: check the probabilities before the logarithm")
    infinite = np.isinf(values)
    if (np.abs(values) > _MAX_ENERGY)[~infinite].any():
        raise InputError(f"{name} holds energies beyond 3e38: to forbid a label use +infinity")
    if not infinite.any():
        return values.copy()
    if (values[infinite] < 0).any():
        raise InputError(f"{name} holds -infinity: an energy is -log(probability), with a probability of at most 1")
    if infinite.all(0).any():
        raise InputError(f"{name}: a pixel has probability 0 for every label: clip probabilities before the logarithm")
    return np.where(infinite, _IMPOSSIBLE, values).astype(np.float32)


def compatibility(compat: Any, labels: int) -> Float32Array:
    """[1] Potts weight, [L] diagonal, or [L * L] symmetrised matrix, as the kernel takes it."""
    if isinstance(compat, Number):
        number = _real(compat)
        if not abs(number) <= _MAX_COMPAT:
            raise InputError(f"compat must be a number from -1e20 to 1e20 or a float32 array, got {compat!r}")
        return np.array([number], np.float32)
    if not isinstance(compat, np.ndarray) or compat.ndim not in (1, 2):
        got = f"shape {compat.shape}" if isinstance(compat, np.ndarray) else type(compat).__name__
        raise InputError(
            f"compat must be a number, or float32 [{labels}] or [{labels}, {labels}], got {got}: "
            "use np.array(..., np.float32)"
        )
    array = float32_matrix("compat", compat, (labels,) * compat.ndim)
    if not (np.abs(array) <= _MAX_COMPAT).all():
        raise InputError("compat holds NaN or numbers beyond 1e20")
    return array.copy() if array.ndim == 1 else (np.float32(0.5) * (array + array.T)).ravel()


def _real(value: Any) -> float:
    """As a float; NaN for what is not a real number or too large for a float."""
    if isinstance(value, (str, bytes, complex, np.complexfloating)):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def deviations_of(name: str, value: Any, count: int) -> tuple[float, ...]:
    """`count` standard deviations, given as that many or as one for all."""
    if isinstance(value, Number):
        value = (value,) * count
    try:
        numbers = tuple(_real(v) for v in tuple(value)[:count])
    except TypeError:
        raise InputError(f"{name} must be a number or {count} numbers, got {value!r}") from None
    if len(numbers) != count or not all(0 < v <= _MAX_FLOAT32 for v in numbers):
        raise InputError(f"{name} must be a number > 0, or {count} of them, got {value!r}")
    return numbers


def normalization_of(value: Any, kernel: Any) -> NormalizationType:
    """The normalization; the kernel is only checked."""
    try:
        KernelType(kernel)
        return NormalizationType(value)
    except (ValueError, TypeError):
        raise InputError(
            f"kernel must be one of {', '.join(KernelType.__members__)} and normalization one of "
            f"{', '.join(NormalizationType.__members__)}, got {kernel!r} and {value!r}"
        ) from None


def rgb_image(rgbim: Any, height: int, width: int) -> None:
    """Raise InputError unless it is uint8 [height, width, 3] and C-contiguous."""
    if not isinstance(rgbim, np.ndarray) or rgbim.dtype != np.uint8 or rgbim.ndim != 3:
        got = f"{rgbim.dtype} {rgbim.shape}" if isinstance(rgbim, np.ndarray) else type(rgbim).__name__
        raise InputError(f"rgbim must be uint8 [{height}, {width}, 3], got {got}")
    if rgbim.shape[2] != 3:
        raise InputError(
            f"rgbim must have 3 channels, got {rgbim.shape[2]}: for others use "
            "utils.create_pairwise_bilateral and addPairwiseEnergy"
        )
    if rgbim.shape[:2] != (height, width):
        raise InputError(
            f"rgbim must be [{height}, {width}, 3], got {rgbim.shape}: DenseCRF2D takes the width first"
        )
    if not rgbim.flags.c_contiguous:
        raise InputError("rgbim must be C-contiguous: use np.ascontiguousarray(rgbim)")
