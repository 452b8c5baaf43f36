"""The same work in PyTorch and in CuPy: resize, min-max, percentile of the bytes, threshold, mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gpu.report import Cannot

__all__ = ["cupy_pas", "resize_weights", "torch_pas_histc", "torch_pas_kthvalue"]


def _torch_bytes(torch: Any, cam: Any, size: tuple[int, int]) -> Any:
    x = torch.nn.functional.interpolate(cam, size, mode="bicubic", align_corners=False)
    x = x - x.amin(dim=(2, 3), keepdim=True)
    return (x / x.amax(dim=(2, 3), keepdim=True) * 255).floor()


def _finish(torch: Any, levels: Any, standard: Any, theta: float) -> tuple[Any, Any, Any]:
    cut = (theta * standard).floor()
    map8 = levels.to(torch.uint8)
    return map8, levels > cut[..., None, None], cut


def _position(percentile: float, n: int) -> tuple[int, int, float]:
    position = round(percentile * 1000) * (n - 1) / 100_000
    low = int(position)
    return low, min(low + 1, n - 1), position - low


def torch_pas_kthvalue(torch: Any, cam: Any, size: tuple[int, int], percentile: float, theta: float) -> Any:
    """With torch.kthvalue for the two order statistics; no value comes to the host."""
    levels = _torch_bytes(torch, cam, size)
    flat = levels.flatten(2)
    low, high, rest = _position(percentile, flat.shape[2])
    a = flat.kthvalue(low + 1, dim=2).values
    b = flat.kthvalue(high + 1, dim=2).values
    return _finish(torch, levels, a + (b - a) * rest, theta)


def torch_pas_histc(torch: Any, cam: Any, size: tuple[int, int], percentile: float, theta: float) -> Any:
    """With torch.histc, which counts one map at a time, and a search in the running sums."""
    levels = _torch_bytes(torch, cam, size)
    flat = levels.flatten(2)
    n, k, pixels = flat.shape
    low, high, rest = _position(percentile, pixels)
    counts = torch.stack([torch.histc(one, bins=256, min=0, max=256) for one in flat.flatten(0, 1)])
    sums = counts.cumsum(dim=1)
    ranks = torch.arange(2, device=cam.device, dtype=sums.dtype) * (high - low) + low
    found = torch.searchsorted(sums, ranks.expand(n * k, 2).contiguous(), right=True).to(levels.dtype)
    a, b = found[:, 0].reshape(n, k), found[:, 1].reshape(n, k)
    return _finish(torch, levels, a + (b - a) * rest, theta)


def resize_weights(n_in: int, n_out: int) -> np.ndarray:
    """Cubic interpolation (half-pixel, -0.75) of one axis as a matrix float32 [n_out, n_in]."""
    weights = np.zeros((n_out, n_in))
    a = -0.75
    for i in range(n_out):
        centre = (i + 0.5) * n_in / n_out - 0.5
        base = int(np.floor(centre))
        for k in range(-1, 3):
            d = abs(centre - base - k)
            near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
            weights[i, min(max(base + k, 0), n_in - 1)] += near if d < 1 else far
    return weights.astype(np.float32)


def cupy_pas(percentile: float, theta: float, small: tuple[int, int], size: tuple[int, int]) -> Any:
    """The steps in CuPy: two matrix products for the resize, cupy.percentile. Returns a function of a CuPy array.

    Raises:
        Cannot: CuPy is not installed or finds no device.
    """
    try:
        import cupy
    except ImportError as error:
        raise Cannot(f"CuPy cannot be imported ({error})") from None
    try:
        down, across = (cupy.asarray(resize_weights(a, b)) for a, b in zip(small, size, strict=True))
    except Exception as error:
        raise Cannot(f"CuPy finds no device ({error})") from None

    def run(cam: Any) -> Any:
        x = cupy.matmul(cupy.matmul(down, cam), across.T)
        x = x - x.min(axis=(2, 3), keepdims=True)
        levels = cupy.floor(x / x.max(axis=(2, 3), keepdims=True) * 255)
        standard = cupy.percentile(levels, percentile, axis=(2, 3), keepdims=True)
        return levels.astype(cupy.uint8), levels > cupy.floor(theta * standard), standard

    return run
