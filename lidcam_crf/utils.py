"""A drop-in for `pydensecrf.utils`: unary energies and pairwise features.

    from lidcam_crf import utils                # was: import pydensecrf.utils as utils

Same names, arguments and values. Unlike in pydensecrf, results are always float32 and C-contiguous, as `setUnaryEnergy`
and `addPairwiseEnergy` require (in pydensecrf a transposed softmax becomes an array that they refuse), uint8
label maps work with `zero_unsure`, and mistakes raise `InputError`, a ValueError.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError

__all__ = [
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]

Float32Array = npt.NDArray[np.float32]


def unary_from_labels(labels: Any, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> Float32Array:
    """Energy of a label map that is right with probability `gt_prob`, the other labels sharing the rest.

    Args:
        labels: whole numbers, any shape.
        n_labels: number of labels, at least 2. With `zero_unsure`, 0 is not counted.
        gt_prob: between 0 and 1, both excluded.
        zero_unsure: 0 means unknown (all labels alike), and value k is label k - 1. Otherwise k is label k.

    Returns:
        float32 [n_labels, pixels].

    Raises:
        InputError: a value is out of its range.
    """
    if not 0 < gt_prob < 1:
        raise InputError(f"gt_prob must lie between 0 and 1, both excluded, got {gt_prob!r}")
    if isinstance(n_labels, bool) or n_labels != int(n_labels) or n_labels < 2:
        raise InputError(f"n_labels must be a whole number of at least 2, got {n_labels!r}")
    flat = np.asarray(labels).reshape(-1)
    if flat.dtype.kind not in "iub":
        raise InputError(f"labels must be whole numbers, got {flat.dtype}: use labels.astype(int)")
    count, first = int(n_labels), 1 if zero_unsure else 0
    index = flat.astype(np.int64) - first
    low, high = (int(flat.min()), int(flat.max())) if flat.size else (0, 0)
    if low < 0 or high >= count + first:
        raise InputError(
            f"labels must lie in 0..{count + first - 1} for {count} labels with zero_unsure={bool(zero_unsure)}, "
            f"got {low}..{high}: number the labels that are present (np.unique(labels, return_inverse=True))"
        )
    out = np.full((count, flat.size), -np.log((1.0 - gt_prob) / (count - 1)), np.float32)
    sure = np.flatnonzero(index >= 0)
    out[index[sure], sure] = -np.log(gt_prob)
    out[:, index < 0] = -np.log(1.0 / count)
    return out


def unary_from_softmax(sm: Any, scale: float | None = None, clip: float | None = 1e-5) -> Float32Array:
    """Energy of class probabilities: -log.

    Args:
        sm: float [labels, ...].
        scale: trust in the probabilities, above 0 to 1: p becomes scale p + (1 - scale) / labels. None is 1.
        clip: probabilities below this are raised to it. None leaves zeros, whose energy is infinite.

    Returns:
        float32 [labels, pixels], C-contiguous.

    Raises:
        InputError: a value is out of its range, or there is a NaN.
    """
    p = np.asarray(sm)
    if p.ndim < 1 or p.dtype.kind not in "fiub":
        raise InputError(f"sm must be numbers [labels, ...], got {p.dtype} {p.shape}")
    if np.isnan(p).any():
        raise InputError("sm holds NaN: check the scores before the softmax")
    if scale is not None:
        if not 0 < scale <= 1:
            raise InputError(f"scale must be above 0 and at most 1, got {scale!r}")
        p = scale * p + (1 - scale) * np.full(p.shape, 1.0 / p.shape[0])
    if clip is not None:
        p = np.clip(p, clip, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = -np.log(p)
    if np.isnan(energy).any():
        raise InputError("sm holds negative probabilities, which clip=None keeps: pass the softmax's output")
    return np.ascontiguousarray(energy.reshape(p.shape[0], -1), np.float32)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> Float32Array:
    """Positions as pairwise features, for any number of axes.

    Args:
        sdims: standard deviation per axis, in steps; rows first (`addPairwiseGaussian` has columns first).
        shape: points per axis.

    Returns:
        float32 [axes, points].

    Raises:
        InputError: the lengths differ, or a value is out of its range.
    """
    sizes = _sizes("shape", shape)
    return _grid(_deviations("sdims", sdims, len(sizes)), sizes).reshape(len(sizes), -1)


def create_pairwise_bilateral(sdims: Sequence[float], schan: Any, img: Any, chdim: int = -1) -> Float32Array:
    """Positions and channels as pairwise features, for any number of axes and channels.

    Args:
        sdims: standard deviation per axis, in steps; rows first.
        schan: standard deviation of the channels, or one per channel.
        img: numbers, the picture.
        chdim: the axis of the channels. -1 means that there is none (not the last axis).

    Returns:
        float32 [axes + channels, points].

    Raises:
        InputError: the lengths differ, or a value is out of its range.
    """
    array = np.asarray(img)
    if array.dtype.kind not in "fiub" or array.size == 0:
        raise InputError(f"img must be numbers and not empty, got {array.dtype} {array.shape}")
    if chdim != -1 and not -array.ndim <= chdim < array.ndim:
        raise InputError(f"chdim must be an axis of img {array.shape}, or -1 where it has no channels, got {chdim}")
    channels = (array[None] if chdim == -1 else np.moveaxis(array, chdim, 0)).astype(np.float32, order="C")
    sizes = channels.shape[1:]
    hint = ""
    if chdim == -1 and not isinstance(sdims, Number) and len(sdims) == array.ndim - 1:
        hint = ": chdim=-1 means a picture without channels, give the axis by its number"
    spatial = _deviations("sdims", sdims, len(sizes), hint)
    spread = _deviations("schan", (schan,) * len(channels) if isinstance(schan, Number) else schan, len(channels))
    channels /= np.array(spread, np.float32).reshape(-1, *[1] * len(sizes))
    return np.concatenate([_grid(spatial, sizes), channels]).reshape(len(sizes) + len(channels), -1)


def compute_unary(labels: Any, M: int, GT_PROB: float = 0.5) -> Float32Array:
    """The old name of `unary_from_labels`, with `zero_unsure`."""
    warnings.warn("compute_unary is the old name of unary_from_labels", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: Any, GT_PROB: float = 1) -> Float32Array:
    """The old name of `unary_from_softmax`, without clipping."""
    warnings.warn("softmax_to_unary is the old name of unary_from_softmax", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(int(n) for n in value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be whole numbers, one per axis, got {value!r}") from None
    if not sizes or min(sizes) < 1:
        raise InputError(f"{name} must be whole numbers >= 1, one per axis, got {value!r}")
    return sizes


def _deviations(name: str, value: Any, count: int, hint: str = "") -> list[float]:
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be {count} numbers > 0, got {value!r:.80}{hint}") from None
    if len(numbers) != count or not all(math.isfinite(v) and v > 0 for v in numbers):
        raise InputError(f"{name} must be {count} numbers > 0, got {value!r}{hint}")
    return numbers


def _grid(deviations: Sequence[float], sizes: Sequence[int]) -> Float32Array:
    """float32 [axes, *sizes]: the index along each axis, divided by its deviation."""
    out = np.empty((len(sizes), *sizes), np.float32)
    for axis, (size, deviation) in enumerate(zip(sizes, deviations, strict=True)):
        steps = np.arange(size, dtype=np.float32) / np.float32(deviation)
        out[axis] = steps.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
    return out
