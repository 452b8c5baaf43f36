"""PaS by the C++ kernel, bit-identical to `pas_reference`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError
from lidcam_rt.pas.options import PasOptions
from lidcam_rt.pas.reference import PaSResult, check_maps

__all__ = ["pas"]

_DEFAULTS = PasOptions()
_MAX_SIDE = 32768
_MAX_THREADS = 256


def pas(
    cam: npt.ArrayLike, size: tuple[int, int], options: PasOptions = _DEFAULTS, *, threads: int = 1
) -> PaSResult:
    """Percentile as a standard, by the C++ kernel (the interpreter lock is released meanwhile).

    Args:
        cam: activation maps, float32 [N, K, h, w].
        size: (H, W) of the output in pixels.
        options: `PasOptions`, for example those of an artifact: `manifest.pas`.
        threads: at most this many threads share the maps.

    Returns:
        PaSResult: map uint8 [N, K, H, W], mask bool [N, K, H, W], threshold float32 [N, K]. See `pas_reference` for
        maps that localize nothing.

    Raises:
        InputError: options is not a `PasOptions`, a shape is wrong, or a side has more than 32768 pixels.
    """
    from lidcam_rt._kernels import pas as kernel

    maps = np.ascontiguousarray(check_maps(cam, size, options))
    if max(*maps.shape[2:], *size) > _MAX_SIDE:
        raise InputError(f"a side may have at most {_MAX_SIDE} pixels, got {maps.shape[2:]} to {size}")
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    map8, mask, threshold = kernel.pas(
        maps, int(size[0]), int(size[1]), *options.kernel_arguments(), min(int(threads), _MAX_THREADS)
    )
    return PaSResult(map8, mask.view(np.bool_), threshold)
