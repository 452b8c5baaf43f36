"""Localization maps as counts: float maps to 8 bits, and the histogram of a map at object and background pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.checks import check_array, check_map, check_mask
from lidcam_rt.errors import InputError

__all__ = ["histogram", "to_map8"]


def to_map8(scores: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Quantise a float map as the public Track 3 evaluator does: uint8(255 (m - min) / (max - min + 1e-10)).

    Source: MsterDC/SPA2Net utils/val_mask. The value is truncated, not rounded. A constant map gives zeros.

    Args:
        scores: float [height, width].

    Raises:
        InputError: not two-dimensional, empty, or with NaN or infinity.
    """
    array = check_array("scores", scores)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iufb":
        raise InputError(f"a map holds numbers [height, width], got {array.dtype} {array.shape}")
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("the map holds NaN or infinity: nothing can be said about it. Check the model's output")
    if values.max() / 2 - values.min() / 2 > np.finfo(np.float64).max / 2:  # a range beyond float64
        values = values / 4
    low = values.min()
    map8: npt.NDArray[np.uint8] = (255 * ((values - low) / (values.max() - low + 1e-10))).astype(np.uint8)
    return map8


def histogram(map8: npt.NDArray[np.uint8], mask: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Counts of the map's values, int64 [2, 256]: row 0 at background pixels, row 1 at foreground ones.

    Args:
        map8: uint8 [height, width].
        mask: bool or uint8 [height, width]: 1 foreground, 0 background, 255 ignored.

    Raises:
        InputError: shapes or types differ from that, or the mask holds other values.
    """
    from lidcam_rt import _kernels

    checked = check_map(map8)
    try:
        counts: npt.NDArray[np.int64] = _kernels.metrics.pair_histogram(checked, check_mask(mask, checked.shape))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{error}: 1 is foreground, 0 background, 255 ignored") from None
    return counts
