"""A dense CRF over an image: `DenseCRF` and `refine`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt._kernels import crf as _kernels
from lidcam_rt.backends.base import usable_cores
from lidcam_rt.crf.options import CrfOptions, preset
from lidcam_rt.crf.stop import Stop, current_flag, stoppable
from lidcam_rt.errors import InputError

__all__ = ["DenseCRF", "from_logits", "refine"]

_FLOOR = 1e-5  # of a probability, as psa clips
_ROUNDING = 1e-3  # a softmax in float16 may leave 0..1 by this


def _check_image(image: Any) -> npt.NDArray[np.uint8]:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise InputError(
            f"the CRF's image must be uint8 [H, W, 3] and not empty, got {array.dtype} {array.shape}"
        )
    return np.ascontiguousarray(array)


class DenseCRF:
    """Refines label probabilities with the help of an image (Krahenbuhl and Koltun, NIPS 2011).

    Same result as pydensecrf (max abs difference of a probability <= 1e-5) unless the options say `rounding="fast"`.
    Threads may share one instance; the GIL is released. Ctrl-C stops it within some 20 ms. Spatial lattices of the
    last 8 sizes are kept, in at most 256 MiB.

    Args:
        options: `CrfOptions` or the name of a preset: psa, irn, deeplab, example, or psa-fast and so on.

    Raises:
        InputError: no such preset.
    """

    def __init__(self, options: CrfOptions | str = "psa") -> None:
        self.options = preset(options)

    def infer(self, image: Any, unary: Any) -> npt.NDArray[np.float32]:
        """Marginals from unary energies.

        Args:
            image: uint8 [H, W, 3] RGB.
            unary: float32 [L, H, W], negative log probabilities, L >= 2, each within 3e38.

        Returns:
            float32 [L, H, W].

        Raises:
            InputError: a dtype, shape or value is not as above.
        """
        energy = np.asarray(unary)
        labels = energy.shape[0] if energy.ndim else 0
        return self._infer(image, energy, self.options.kernel_terms(labels) if labels else [])

    def _infer(self, image: Any, energy: npt.NDArray[Any], terms: Any) -> npt.NDArray[np.float32]:
        pixels = _check_image(image)
        height, width = pixels.shape[:2]
        if energy.dtype != np.float32 or energy.ndim != 3 or energy.shape[1:] != (height, width):
            raise InputError(
                f"unary must be float32 [labels, {height}, {width}], got {energy.dtype} {energy.shape}"
            )
        if energy.shape[0] < 2:
            raise InputError("a CRF needs at least 2 labels; give the background one of its own")
        try:
            q, _ = _kernels.infer(
                pixels,
                np.ascontiguousarray(energy),
                terms,
                self.options.iterations,
                self.options.tolerance,
                self.options.rounding == "fast",
                current_flag(),
            )
        except ValueError as error:
            if "unary" in str(error):
                raise InputError(f"{error}: clip probabilities before the logarithm") from error
            if "label" in str(error) or "pixels" in str(error):
                raise InputError(str(error)) from error
            raise InputError(f"the CRF's sxy or srgb does not fit this image: {error}") from error
        return np.asarray(q, np.float32)

    def refine(
        self, image: Any, probabilities: Any, *, labels: Sequence[int] | str | None = None
    ) -> npt.NDArray[Any]:
        """Refined probabilities, or a refined label map.

        Args:
            image: uint8 [H, W, 3] RGB.
            probabilities: float [L, H, W] in 0..1, clipped below at 1e-5 as psa does (`from_logits` makes them from
                logits); or a label map, integers [H, W], in which each pixel's label gets the probability
                `options.gt_prob` and the other labels share the rest (as in psa and irn).
            labels: the labels present in this image; the others take no time and get probability 0. "present": those
                whose probability exceeds the clip somewhere. For probabilities only.

        Returns:
            float32 [L, H, W]; for a label map, the most probable label of each pixel, in its dtype and shape.

        Raises:
            InputError: a dtype, shape or value is not as above.
        """
        p = np.asarray(probabilities)
        if p.dtype.kind in "iu" and p.ndim == 2:
            if labels is not None:
                raise InputError("labels is for probabilities only: a label map already says which are present")
            return self._refine_map(image, p)
        if p.dtype.kind != "f" or p.ndim != 3:
            raise InputError(
                f"probabilities must be float [labels, H, W], or an integer label map [H, W], got {p.dtype} {p.shape}"
            )
        _check_range(p)
        if labels is None:
            return self.infer(image, _unary(p))
        chosen = _present(p) if isinstance(labels, str) and labels == "present" else _chosen(labels, p.shape[0])
        if len(chosen) < 2:
            raise InputError(f"a CRF needs at least 2 labels present, got {chosen}")
        out = np.zeros(p.shape, np.float32)
        out[chosen] = self._infer(image, _unary(p[chosen]), self.options.kernel_terms(chosen))
        return out

    def _refine_map(self, image: Any, given: npt.NDArray[Any]) -> npt.NDArray[Any]:
        present, index = np.unique(given, return_inverse=True)
        if len(present) < 2:
            _check_image(image)
            return given.copy()
        index = index.reshape(given.shape)
        rest = (1 - self.options.gt_prob) / (len(present) - 1)
        unary = np.full((len(present), *given.shape), -np.log(rest), np.float32)
        np.put_along_axis(unary, index[None], np.float32(-np.log(self.options.gt_prob)), 0)
        terms = self.options.kernel_terms([int(k) for k in present])
        refined: npt.NDArray[Any] = present[self._infer(image, unary, terms).argmax(0)]
        return refined

    def refine_batch(
        self,
        images: Sequence[Any],
        probabilities: Sequence[Any],
        *,
        labels: Sequence[Sequence[int] | str | None] | None = None,
        threads: int | None = None,
    ) -> list[npt.NDArray[Any]]:
        """`refine` of several images, one image per thread at a time.

        The result has the same bits whatever the number of threads. Threads wait without spinning.

        Args:
            images: as in `refine`, of any sizes.
            probabilities: one array per image, as in `refine`.
            labels: one entry per image, as in `refine`; None: None for each.
            threads: None: one per usable core.

        Returns:
            One result of `refine` per image.

        Raises:
            InputError: lengths differ, threads < 1, or an image is refused.
        """
        chosen = [None] * len(images) if labels is None else list(labels)
        if not len(images) == len(probabilities) == len(chosen):
            raise InputError(
                f"there are {len(images)} images, {len(probabilities)} probabilities and {len(chosen)} labels: "
                "give one of each per image"
            )
        count = usable_cores() if threads is None else threads
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"threads must be a whole number >= 1, got {threads!r}")

        def one(i: int) -> npt.NDArray[Any]:
            return self.refine(images[i], probabilities[i], labels=chosen[i])

        return _share_out(one, len(images), count)


def _share_out(one: Callable[[int], npt.NDArray[Any]], count: int, threads: int) -> list[npt.NDArray[Any]]:
    """[one(0), one(1), ...]. The caller's thread works too: a new one often has to wait for a processor."""
    out: list[Any] = [None] * count
    left = iter(range(count))
    lock, errors = threading.Lock(), dict[int, BaseException]()
    stop = Stop()

    def work() -> None:
        while not errors:
            with lock:
                i = next(left, None)
            if i is None:
                return
            try:
                out[i] = one(i)
            except Exception as error:
                errors[i] = error
            except BaseException as error:
                errors[-1] = error  # comes first: nobody waits for the other images any more
                stop.set()

    others = min(threads, count) - 1
    if others < 1:
        work()
    else:
        pool = ThreadPoolExecutor(others)
        try:
            running = [pool.submit(stoppable, stop, work) for _ in range(others)]
            work()
            wait(running)  # where Ctrl-C finds the caller's thread when its own images are done
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if errors:
        raise errors[min(errors)]
    return out


def from_logits(logits: Any) -> npt.NDArray[np.float32]:
    """Probabilities from logits, for `DenseCRF.refine`.

    Args:
        logits: float [L, H, W], L >= 2: a softmax over the labels. [1, H, W] or [H, W], the logit of the foreground: a
            sigmoid, and the background is the first of two labels.

    Returns:
        float32 [L, H, W], or [2, H, W].

    Raises:
        InputError: not such an array, or not finite.
    """
    values = np.asarray(logits)
    if values.dtype.kind != "f" or values.ndim not in (2, 3) or values.size == 0:
        raise InputError(f"logits must be float [labels, H, W] or [H, W], got {values.dtype} {values.shape}")
    if not np.isfinite(values).all():
        raise InputError("logits hold NaN or infinity")
    values = values.astype(np.float32, copy=False)
    if values.ndim == 2 or len(values) == 1:
        foreground = values.reshape(values.shape[-2:])
        values = np.stack([np.zeros_like(foreground), foreground])  # its softmax is the sigmoid
    shifted = np.exp(values - values.max(0))
    return np.asarray(shifted / shifted.sum(0), np.float32)


def _check_range(p: npt.NDArray[Any]) -> None:
    if p.size and (p.min() < -_ROUNDING or p.max() > 1 + _ROUNDING):
        raise InputError(
            f"probabilities must be in 0..1, these are in {p.min():.4g}..{p.max():.4g}: if they are logits, use "
            "refine(image, from_logits(logits)) with lidcam_rt.crf.from_logits"
        )


def _unary(p: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    out: npt.NDArray[np.float32] = np.clip(p.astype(np.float32, copy=False), _FLOOR, 1.0)
    np.log(out, out=out)
    return np.negative(out, out=out)


def _present(p: npt.NDArray[Any]) -> list[int]:
    return [k for k in range(p.shape[0]) if not (p[k] <= _FLOOR).all()]


def _chosen(labels: Any, count: int) -> list[int]:
    if isinstance(labels, str):
        raise InputError(f'labels must be a list of labels or "present", got {labels!r}')
    chosen = [int(k) for k in labels]
    if len(set(chosen)) != len(chosen) or not all(0 <= k < count for k in chosen):
        raise InputError(f"labels must be distinct and lie in 0..{count - 1}, got {labels}")
    return chosen


def refine(
    image: Any, probabilities: Any, options: CrfOptions | str = "psa", *, labels: Sequence[int] | str | None = None
) -> npt.NDArray[Any]:
    """`DenseCRF(options).refine(image, probabilities, labels=labels)`."""
    return DenseCRF(options).refine(image, probabilities, labels=labels)
