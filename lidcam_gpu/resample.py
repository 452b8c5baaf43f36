"""Pillow's resampling as tables of integers, with which a device computes the CPU's bits."""

from __future__ import annotations

import functools
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["columns_first", "resample_tables"]

Interpolation: TypeAlias = Literal["bilinear", "bicubic"]

_BITS = 22  # Pillow, src/libImaging/Resample.c: 32 bits, less 8 of a byte, less 2


def _bilinear(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.abs(x) < 1.0, 1.0 - np.abs(x), 0.0)


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def resample_tables(
    before: int, after: int, interpolation: Interpolation
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Weights of one axis: place i of the result is the sum of `weights[i, k] * source[bounds[i, 0] + k]`.

    The filter is widened by the shrinking factor, as `PIL.Image.Image.resize` does; its sums are rounded by adding
    2^21 and dividing by 2^22, then clipped to bytes, for one axis after the other (`columns_first`).

    Args:
        before: pixels of the source.
        after: pixels of the result.
        interpolation: `bilinear` or `bicubic` (a = -0.5).

    Returns:
        bounds int32 [after, 2] (first source, how many) and weights int32 [after, taps], in 1 / 2^22.
    """
    function, reach = (_bicubic, 2.0) if interpolation == "bicubic" else (_bilinear, 1.0)
    scale = before / after
    widened = max(scale, 1.0)
    support = reach * widened
    taps = int(np.ceil(support)) * 2 + 1
    centre = (np.arange(after) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), before) - first
    weights, total = np.zeros((after, taps)), np.zeros(after)
    for k in range(taps):  # one by one, since the order of a sum is part of its value
        weight = function((k + first - centre + 0.5) * (1.0 / widened))
        weights[:, k] = np.where(k < count, weight, 0.0)
        total = total + weights[:, k]
    weights = np.where(total[:, None] != 0.0, weights / np.where(total == 0.0, 1.0, total)[:, None], weights)
    scaled = weights * (1 << _BITS)
    whole = np.where(scaled < 0, scaled - 0.5, scaled + 0.5).astype(np.int32)
    return np.stack([first, count], 1).astype(np.int32), whole


def _sums(weights: npt.NDArray[np.int32], values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sums over the first axis of the values, as bytes."""
    sums = np.asarray(np.tensordot(weights.astype(np.int64), values, 1), np.int64) + (1 << (_BITS - 1))
    clipped: npt.NDArray[np.int64] = np.clip(sums >> _BITS, 0, 255)
    return clipped


@functools.lru_cache(4096)
def columns_first(before: tuple[int, int], after: tuple[int, int], interpolation: Interpolation) -> bool | None:
    """Whether the installed Pillow resamples along x before it does so along y.

    The bits depend on it. Pillow up to 12 always does; Pillow 13 takes y first where that is less work, by a rule that
    may change again. So Pillow itself is tried once for each pair of sizes, on a picture of noise.

    Args:
        before: (height, width) of the source in pixels.
        after: (height, width) of the result.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        Whether x comes first; None if neither order reproduces Pillow's bits.
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    picture = np.frombuffer(rng.bytes(before[0] * before[1]), np.uint8).reshape(before)
    kind = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    result = np.asarray(Image.fromarray(picture).resize(after[::-1], kind))
    (tops, down), (lefts, across) = (resample_tables(before[i], after[i], interpolation) for i in (0, 1))
    fits = {True, False}
    for _ in range(32):
        y, x = (int(rng.integers(side)) for side in after)
        (top, rows), (left, columns) = tops[y], lefts[x]
        part = picture[top : top + rows, left : left + columns].astype(np.int64)
        along_x, along_y = across[x, :columns], down[y, :rows]
        by_order = {True: _sums(along_y, _sums(along_x, part.T)), False: _sums(along_x, _sums(along_y, part))}
        fits -= {order for order, value in by_order.items() if int(value) != result[y, x]}
    return next(iter(sorted(fits, reverse=True)), None)
