"""PaS by the C++ kernel: the same bits as `pas_reference`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError
from lidcam_rt.pas.reference import PaSResult, check_options

__all__ = ["pas"]

_MAX_SIDE = 32768


def pas(
    cam: npt.ArrayLike,
    size: tuple[int, int],
    *,
    percentile: float = 98.0,
    theta: float = 0.35,
    mode: str = "threshold",
    precision: str = "uint8",
    where: str = "resized",
    interpolation: str = "cubic",
    threads: int = 1,
) -> PaSResult:
    """Percentile as a standard, by the C++ kernel (the interpreter lock is released meanwhile).

    Args:
        cam: activation maps, float32 [N, K, h, w].
        size: (H, W) of the output in pixels.
        percentile: see `pas_reference`, as for all that follow.
        theta: share of the standard.
        mode: `threshold` or `normalize`.
        precision: `uint8` or `float`.
        where: `resized` or `raw`.
        interpolation: `cubic` or `linear`.
        threads: at most this many threads share the maps.

    Returns:
        PaSResult: map uint8 [N, K, H, W], mask bool [N, K, H, W], threshold float32 [N, K].

    Raises:
        InputError: an option is unknown, a shape is wrong or a side has more than 32768 pixels.
    """
    from lidcam_rt._kernels import pas as kernel

    check_options(percentile, theta, mode, precision, where, interpolation)
    maps = np.ascontiguousarray(cam, dtype=np.float32)
    if maps.ndim != 4 or maps.shape[2] < 1 or maps.shape[3] < 1:
        raise InputError(f"cam must have shape [N, K, h, w] with h, w >= 1, got {maps.shape}")
    if len(size) != 2 or size[0] < 1 or size[1] < 1:
        raise InputError(f"size must be (H, W) with H, W >= 1, got {size}")
    if max(*maps.shape[2:], *size) > _MAX_SIDE:
        raise InputError(f"a side may have at most {_MAX_SIDE} pixels, got {maps.shape[2:]} to {size}")
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    map8, mask, threshold = kernel.pas(
        maps, int(size[0]), int(size[1]), float(percentile), float(theta), mode == "normalize", precision == "float",
        where == "raw", interpolation == "linear", min(int(threads), 256),
    )
    return PaSResult(map8, mask.view(np.bool_), threshold)
