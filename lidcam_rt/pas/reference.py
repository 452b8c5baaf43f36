"""PaS in numpy: clear rather than fast. This file is the definition that every kernel follows.

Source: "Revisiting Class Activation Mapping for Learning from Imperfect Data" (LID 2020), slides 17 to 19,
and Bae, Noh and Kim, "Rethinking Class Activation Mapping for Weakly Supervised Object Localization"
(ECCV 2020), section 3.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError
from lidcam_rt.pas.options import PasOptions

__all__ = ["PaSResult", "check_maps", "pas_reference", "resize_reference"]

_DEFAULTS = PasOptions()
Float32Array = npt.NDArray[np.float32]


class PaSResult(NamedTuple):
    """What PaS returns for a batch of activation maps.

    Attributes:
        map: uint8 [N, K, H, W], the localization map.
        mask: bool [N, K, H, W], True where the map passes the threshold (strictly greater).
        threshold: float32 [N, K], the threshold in units of `map` (0 to 255; below 0 passes every pixel).
    """

    map: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    threshold: Float32Array


def check_maps(cam: npt.ArrayLike, size: tuple[int, int], options: PasOptions) -> Float32Array:
    """The maps as float32 [N, K, h, w].

    Raises:
        InputError: `cam` is not a 4-D array with at least one pixel, `size` is not (H, W), or the options are not
            `PasOptions`.
    """
    if not isinstance(options, PasOptions):
        raise InputError(f"options must be PasOptions, got {type(options).__name__}: pas(cam, size, PasOptions(...))")
    maps = np.asarray(cam, dtype=np.float32)
    if maps.ndim != 4 or maps.shape[2] < 1 or maps.shape[3] < 1:
        raise InputError(f"cam must have shape [N, K, h, w] with h, w >= 1, got {maps.shape}")
    if len(size) != 2 or size[0] < 1 or size[1] < 1:
        raise InputError(f"size must be (H, W) with H, W >= 1, got {size}")
    return maps


def _taps(n_in: int, n_out: int, interpolation: str) -> tuple[npt.NDArray[np.int64], Float32Array]:
    """Source indices [n_out, T] and float32 weights [n_out, T] of one axis (half-pixel centres, edges repeated).

    The position (2 i + 1) n_in - n_out over 2 n_out is kept as an exact fraction; the weights are evaluated in
    float64 from its fractional part and rounded once to float32.
    """
    i = np.arange(n_out, dtype=np.int64)
    numerator, denominator = (2 * i + 1) * n_in - n_out, 2 * n_out
    base = numerator // denominator
    t = (numerator - base * denominator) / denominator
    if interpolation == "linear":
        offsets, weights = np.array([0, 1]), np.stack([1.0 - t, t], axis=1)
    else:
        a = -0.75
        u, v, w = t + 1.0, 1.0 - t, 2.0 - t
        weights = np.stack(
            [
                ((a * u - 5.0 * a) * u + 8.0 * a) * u - 4.0 * a,
                ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
                ((a + 2.0) * v - (a + 3.0)) * v * v + 1.0,
                ((a * w - 5.0 * a) * w + 8.0 * a) * w - 4.0 * a,
            ],
            axis=1,
        )
        offsets = np.array([-1, 0, 1, 2])
    return np.clip(base[:, None] + offsets, 0, n_in - 1), weights.astype(np.float32)


def resize_reference(cam: Float32Array, size: tuple[int, int], interpolation: str = "cubic") -> Float32Array:
    """Resize maps: first along the width, then along the height, taps added from left to right in float32.

    Cubic has coefficient -0.75 and repeats the edge (ONNX Resize `cubic` with `half_pixel`, OpenCV INTER_CUBIC).

    Args:
        cam: float32 [..., h, w].
        size: (H, W) of the output in pixels.
        interpolation: `cubic` or `linear`.

    Returns:
        float32 [..., H, W].
    """
    x = np.asarray(cam, dtype=np.float32)
    for axis, n_out in ((-1, size[1]), (-2, size[0])):
        index, weight = _taps(x.shape[axis], n_out, interpolation)
        shape = [1] * x.ndim
        shape[axis] = n_out
        total: Float32Array | None = None
        for tap in range(index.shape[1]):
            term = np.take(x, index[:, tap], axis=axis) * weight[:, tap].reshape(shape)
            total = term if total is None else total + term
        assert total is not None
        x = total
    return x


def _order_statistics(values: npt.NDArray[np.generic], percentile: float) -> tuple[float, float, int]:
    """The two order statistics around the percentile and the remainder between them, in 1 / 100000.

    With n values sorted ascending, the position is round(1000 percentile) (n - 1) / 100000 (numpy's `linear`
    method), split into a whole part and a remainder by integers.
    """
    position = int(np.rint(percentile * 1000)) * (values.size - 1)
    low, remainder = divmod(position, 100_000)
    ordered = np.sort(values, axis=None)
    return ordered[low], ordered[min(low + 1, values.size - 1)], remainder


def _one_map(
    raw: Float32Array, size: tuple[int, int], options: PasOptions
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], np.float32]:
    f32 = np.float32
    nothing = np.zeros(size, np.uint8), np.zeros(size, np.bool_), f32(0)
    if (
        not np.isfinite(raw).all() or raw.min() == raw.max()
    ):  # a resize may make a constant map uneven by an ulp
        return nothing
    x = resize_reference(raw, size, options.interpolation)
    low = x.min()
    value_range = x.max() - low
    if not (np.isfinite(x).all() and np.isfinite(value_range)) or value_range == 0:
        return nothing

    above = x - low  # d, minimum subtracted
    scaled = (above / value_range) * f32(255)  # v, 0 to 255
    bytes_ = scaled.astype(np.uint8)  # truncated
    theta64 = np.rint(options.theta * 1e6) / 1e6

    # The standard P, in the unit of the map it was taken from.
    if options.where == "raw":
        a, b, remainder = _order_statistics(raw, options.percentile)
        standard = f32(a) + (f32(b) - f32(a)) * f32(remainder / 100_000)
        source, byte_standard = x, None
    elif options.precision == "float":
        a, b, remainder = _order_statistics(above, options.percentile)
        standard = f32(a) + (f32(b) - f32(a)) * f32(remainder / 100_000)
        source, byte_standard = above, None
    else:
        a, b, remainder = _order_statistics(bytes_, options.percentile)
        byte_standard = (int(a) * 100_000 + (int(b) - int(a)) * remainder) / 100_000
        standard, source = f32(byte_standard), scaled

    if not np.isfinite(standard):  # two order statistics further apart than float32 reaches
        return nothing
    if options.mode == "normalize":
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.minimum(np.maximum(source / standard, f32(0)), f32(1))
        share = share if standard > 0 else (source > 0).astype(np.float32)
        map8 = np.rint(share * f32(255)).astype(np.uint8)
        byte_threshold = int(theta64 * 255)
        return map8, map8 > byte_threshold, f32(byte_threshold)

    if byte_standard is not None:
        byte_threshold = int(theta64 * byte_standard)
        return bytes_, bytes_ > byte_threshold, f32(byte_threshold)

    cut = f32(theta64) * standard  # in the unit of `source`
    relative = cut - low if options.where == "raw" else cut
    in_bytes = (relative / value_range) * f32(255)
    if options.precision == "uint8":
        level = int(np.floor(np.clip(in_bytes, f32(-1), f32(255))))
        return bytes_, bytes_ > level, f32(level)
    return bytes_, source > cut, in_bytes


def pas_reference(cam: npt.ArrayLike, size: tuple[int, int], options: PasOptions = _DEFAULTS) -> PaSResult:
    """Percentile as a standard, in numpy.

    Args:
        cam: activation maps, float32 [N, K, h, w].
        size: (H, W) of the output in pixels.
        options: see `PasOptions`.

    Returns:
        PaSResult. A map that holds a NaN or an infinity, whose range overflows float32, or that is constant results in
        map 0, mask False and threshold 0: it localizes nothing.

    Raises:
        InputError: as `check_maps`.
    """
    maps = check_maps(cam, size, options)
    n, k = maps.shape[:2]
    map8 = np.zeros((n, k, *size), np.uint8)
    mask = np.zeros((n, k, *size), np.bool_)
    threshold = np.zeros((n, k), np.float32)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for i in range(n):
            for j in range(k):
                map8[i, j], mask[i, j], threshold[i, j] = _one_map(maps[i, j], size, options)
    return PaSResult(map8, mask, threshold)
