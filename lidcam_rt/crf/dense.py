"""A dense CRF over an image: `DenseCRF` and `refine`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt._kernels import crf as _kernels
from lidcam_rt.crf.options import CrfOptions, preset
from lidcam_rt.errors import InputError

__all__ = ["DenseCRF", "refine"]

_CACHE_SIZE = 8
_cache: OrderedDict[tuple[int, int, float], Any] = OrderedDict()
_lock = threading.Lock()


def _positions(height: int, width: int, sxy: float) -> npt.NDArray[np.float32]:
    out = np.empty((height, width, 2), np.float32)
    out[..., 0] = np.arange(width, dtype=np.float32) / np.float32(sxy)
    out[..., 1] = (np.arange(height, dtype=np.float32) / np.float32(sxy))[:, None]
    return out


def _build(features: npt.NDArray[np.float32]) -> Any:
    try:
        return _kernels.lattice(features, 3)
    except ValueError as error:
        raise InputError(f"the CRF's sxy or srgb does not fit this image: {error}") from error


def _spatial(height: int, width: int, sxy: float) -> Any:
    key = (height, width, sxy)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    found = _build(_positions(height, width, sxy).reshape(-1, 2))
    with _lock:
        _cache[key] = found
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return found


def _check_image(image: Any) -> npt.NDArray[np.uint8]:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise InputError(
            f"the CRF's image must be uint8 [H, W, 3] and not empty, got {array.dtype} {array.shape}"
        )
    return array


class DenseCRF:
    """Refines label probabilities by an image (Krahenbuhl and Koltun, NIPS 2011).

    Same result as pydensecrf (max abs difference of a probability <= 1e-5). Threads may share one instance;
    the GIL is released. Spatial lattices of the last 8 sizes are kept.

    Args:
        options: `CrfOptions` or the name of a preset: psa, irn, deeplab, example.

    Raises:
        InputError: no such preset.
    """

    def __init__(self, options: CrfOptions | str = "psa") -> None:
        self.options = preset(options)

    def infer(self, image: Any, unary: Any) -> npt.NDArray[np.float32]:
        """Marginals from unary energies.

        Args:
            image: uint8 [H, W, 3] RGB.
            unary: float32 [L, H, W], negative log probabilities, L >= 2.

        Returns:
            float32 [L, H, W].

        Raises:
            InputError: a dtype, shape or value is not as above.
        """
        pixels = _check_image(image)
        height, width = pixels.shape[:2]
        energy = np.asarray(unary)
        if energy.dtype != np.float32 or energy.ndim != 3 or energy.shape[1:] != (height, width):
            raise InputError(
                f"unary must be float32 [labels, {height}, {width}], got {energy.dtype} {energy.shape}"
            )
        if energy.shape[0] < 2:
            raise InputError("a CRF needs at least 2 labels; give the background one of its own")
        if not np.isfinite(energy).all():
            raise InputError("unary holds NaN or infinity: clip probabilities before the logarithm")
        o = self.options
        terms = []
        if o.gaussian_compat > 0:
            terms.append((_spatial(height, width, o.gaussian_sxy), [o.gaussian_compat]))
        if o.bilateral_compat > 0:
            features = np.empty((height, width, 5), np.float32)
            features[..., :2] = _positions(height, width, o.bilateral_sxy)
            features[..., 2:] = pixels.astype(np.float32) / np.float32(o.bilateral_srgb)
            terms.append((_build(features.reshape(-1, 5)), [o.bilateral_compat]))
        flat = np.ascontiguousarray(energy.reshape(energy.shape[0], -1))
        q, _ = _kernels.mean_field(flat, terms, o.iterations, o.tolerance)
        return np.asarray(q, np.float32).reshape(energy.shape)

    def refine(
        self, image: Any, probabilities: Any, *, labels: list[int] | None = None
    ) -> npt.NDArray[np.float32]:
        """Refined probabilities.

        Args:
            image: uint8 [H, W, 3] RGB.
            probabilities: float [L, H, W], clipped below at 1e-5 as psa does.
            labels: the labels present in this image; the others take no time and get probability 0.

        Returns:
            float32 [L, H, W].

        Raises:
            InputError: a dtype, shape or value is not as above.
        """
        p = np.asarray(probabilities)
        if p.dtype.kind != "f" or p.ndim != 3:
            raise InputError(f"probabilities must be float [labels, H, W], got {p.dtype} {p.shape}")
        if labels is not None:
            if len(set(labels)) != len(labels) or not all(0 <= k < p.shape[0] for k in labels):
                raise InputError(f"labels must be distinct and lie in 0..{p.shape[0] - 1}, got {labels}")
            out = np.zeros(p.shape, np.float32)
            out[labels] = self.refine(image, p[labels])
            return out
        unary = -np.log(np.clip(p.astype(np.float32, copy=False), 1e-5, 1.0))
        return self.infer(image, unary)


def refine(
    image: Any, probabilities: Any, options: CrfOptions | str = "psa", *, labels: list[int] | None = None
) -> npt.NDArray[np.float32]:
    """`DenseCRF(options).refine(image, probabilities, labels=labels)`."""
    return DenseCRF(options).refine(image, probabilities, labels=labels)
