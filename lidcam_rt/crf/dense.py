"""A dense CRF over an image: `DenseCRF` and `refine`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt._kernels import crf as _kernels
from lidcam_rt.crf.options import CrfOptions, preset
from lidcam_rt.errors import InputError

__all__ = ["DenseCRF", "refine"]

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
        o = self.options
        terms: list[tuple[list[float], list[float], int]] = []
        if o.gaussian_compat > 0:
            terms.append(([o.gaussian_sxy] * 2, [o.gaussian_compat], 3))
        if o.bilateral_compat > 0:
            terms.append(([o.bilateral_sxy] * 2 + [o.bilateral_srgb] * 3, [o.bilateral_compat], 3))
        try:
            q, _ = _kernels.infer(
                np.ascontiguousarray(pixels), np.ascontiguousarray(energy), terms, o.iterations, o.tolerance
            )
        except ValueError as error:
            if "unary" in str(error):
                raise InputError(f"{error}: clip probabilities before the logarithm") from error
            raise InputError(f"the CRF's sxy or srgb does not fit this image: {error}") from error
        return np.asarray(q, np.float32)

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
