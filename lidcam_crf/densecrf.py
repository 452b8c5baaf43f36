"""A drop-in for `pydensecrf.densecrf`: change the import, keep the program.

    from lidcam_crf import densecrf             # was: import pydensecrf.densecrf as densecrf

Same names, argument order and results (Q within 1e-5; docs/crf.md has the measured differences). pydensecrf's
surprises are the same here, because programs depend on them:

- a scalar `compat` w is a Potts weight and adds -w K Q to the energy; an array adds + M K Q, so that the array
  for the same model is `-w * np.eye(labels)`. A matrix is symmetrised: (M + M^T) / 2.
- `NO_NORMALIZATION` leaves K as the lattice returns it (pydensecrf computes a norm and never applies it): messages
  grow with the number of similar pixels.
- `kernel=` has no effect on inference.
- the unary is float32 [labels, pixels], C-contiguous, the negative logarithm of a probability.
- `startInference` without a unary returns zeros, `inference` without a unary starts from equal probabilities.

Unlike pydensecrf: every mistake is an exception (`InputError`, a ValueError) and never a crash; `Q` is a plain
numpy array; read-only arrays and keyword arguments are accepted; `inference` releases the interpreter lock. Sources:
Krahenbuhl and Koltun, NIPS 2011 (model, mean field) and ICML 2013 (symmetric normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lidcam_crf.checks import (
    CONST_KERNEL,
    DIAG_KERNEL,
    FULL_KERNEL,
    NO_NORMALIZATION,
    NORMALIZE_AFTER,
    NORMALIZE_BEFORE,
    NORMALIZE_SYMMETRIC,
    Float32Array,
    KernelType,
    NormalizationType,
    compatibility,
    deviations_of,
    finite_energy,
    float32_matrix,
    normalization_of,
    rgb_image,
    whole_number,
)
from lidcam_rt.errors import InputError

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
]

_MAX_PIXELS, _MAX_LABELS = 2**30, 2**16
_MAX_MARGINAL = np.float32(1.001)  # rounding included


def _lattice(features: Float32Array, normalization: NormalizationType) -> Any:
    from lidcam_rt._kernels import crf

    try:
        return crf.lattice(features, int(normalization))
    except ValueError as error:
        raise InputError(f"the pairwise features do not fit the lattice: {error}") from error


class Unary:
    """A precomputed unary energy, for `setUnary`.

    Attributes:
        energy: float32 [labels, pixels].
    """

    energy: Float32Array


class ConstUnary(Unary):
    """An energy given as an array.

    Args:
        u: float32 [labels, pixels].

    Raises:
        InputError: `u` is not such an array, or holds NaN.
    """

    def __init__(self, u: Any) -> None:
        self.energy = finite_energy("u", float32_matrix("u", u, (None, None)))


class LogisticUnary(Unary):
    """A linear energy L f.

    Args:
        L: float32 [labels, features].
        f: float32 [features, pixels].

    Raises:
        InputError: they are not such arrays, or the energy is not finite.
    """

    def __init__(self, L: Any, f: Any) -> None:
        weights = float32_matrix("L", L, (None, None))
        with np.errstate(over="ignore", invalid="ignore"):  # checked next
            energy = weights @ float32_matrix("f", f, (weights.shape[1], None))
        self.energy = finite_energy("L @ f", energy)


class DenseCRF:
    """A dense CRF over any points.

    Args:
        nvar: number of points.
        nlabels: number of labels, at least 2.

    Raises:
        InputError: a number is out of range.
    """

    def __init__(self, nvar: int, nlabels: int, *_: Any, **__: Any) -> None:
        self._nvar = whole_number("the number of points", nvar, 1, _MAX_PIXELS)
        self._nlabel = whole_number("nlabels", nlabels, 2, _MAX_LABELS)
        self._unary: Float32Array | None = None
        self._terms: list[tuple[Any, Float32Array]] = []

    def setUnary(self, u: Unary) -> None:
        """Use a `ConstUnary` or `LogisticUnary`.

        Raises:
            InputError: it is neither, or has another shape.
        """
        if not isinstance(u, Unary):
            raise InputError(
                f"setUnary takes a ConstUnary or LogisticUnary, got {type(u).__name__}: for arrays use setUnaryEnergy"
            )
        energy = float32_matrix("the unary energy", getattr(u, "energy", None), (self._nlabel, self._nvar))
        self._unary = finite_energy("the unary energy", energy)

    def setUnaryEnergy(self, u: Any, f: Any = None) -> None:
        """Set the unary energy; the array is copied.

        Args:
            u: float32 [labels, points], C-contiguous: -log(probability). +infinity forbids a label.
            f: float32 [points, points]: the energy is then u f (as in pydensecrf; `LogisticUnary` is the useful
                form).

        Raises:
            InputError: wrong type, dtype, shape or order, NaN, or a point where every label is forbidden.
        """
        energy = float32_matrix("u", u, (self._nlabel, self._nvar))
        self._unary = finite_energy("u", energy) if f is None else LogisticUnary(energy, f).energy

    def addPairwiseEnergy(
        self,
        features: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel of any features.

        Args:
            features: float32 [1 to 7, points], C-contiguous, each divided by its standard deviation (see
                `utils.create_pairwise_gaussian` and `create_pairwise_bilateral`).
            compat: Potts weight, or float32 [labels] or [labels, labels] added with the opposite sign.
            kernel: no effect.
            normalization: of `NormalizationType`.

        Raises:
            InputError: wrong type, dtype, shape, order or value.
        """
        array = float32_matrix("features", features, (None, self._nvar))
        self._add(lambda kind: _lattice(np.ascontiguousarray(array.T), kind), compat, kernel, normalization)

    def _add(self, build: Any, compat: Any, kernel: Any, normalization: Any) -> None:
        weights = compatibility(compat, self._nlabel)
        self._terms.append((build(normalization_of(normalization, kernel)), weights))

    def inference(self, niter: int) -> Float32Array:
        """Mean field from the unary's softmax.

        Args:
            niter: steps, >= 0.

        Returns:
            Marginals Q, float32 [labels, points].

        Raises:
            InputError: niter is out of range.
        """
        from lidcam_rt._kernels import crf

        steps = whole_number("niter", niter, 0)
        unary = np.zeros((self._nlabel, self._nvar), np.float32) if self._unary is None else self._unary
        q, _ = crf.mean_field(unary, [(lattice, compat.tolist()) for lattice, compat in self._terms], steps)
        return np.asarray(q, np.float32)

    def startInference(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Q before the first step, and two placeholders for `stepInference`.

        Returns:
            Q float32 [labels, points] (zeros if there is no unary), and two empty arrays.
        """
        shape = (self._nlabel, self._nvar)
        q = np.zeros(shape, np.float32) if self._unary is None else _softmax(-self._unary)
        return q, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: Any, tmp1: Any = None, tmp2: Any = None) -> None:
        """One mean field step, in place.

        Args:
            Q: float32 [labels, points], from `startInference`; overwritten.
            tmp1: not used.
            tmp2: not used.

        Raises:
            InputError: Q is not such an array, or cannot be written.
        """
        q = self._marginals(Q)
        if not q.flags.writeable:
            raise InputError("stepInference overwrites Q, and this one is read-only: use np.array(Q)")
        logits = np.zeros_like(q) if self._unary is None else -self._unary
        for message in self._messages(q):
            logits -= message
        q[...] = _softmax(logits)

    def klDivergence(self, Q: Any) -> float:
        """Sum of Q log Q, unary energy and pairwise terms: the KL divergence to the CRF up to a constant.

        Pairs count twice, as in pydensecrf, so it is not exactly what mean field minimizes.

        Args:
            Q: float32 [labels, points].

        Raises:
            InputError: Q is not such an array.
        """
        q = self._marginals(Q)
        wide = q.astype(np.float64)
        total = float((wide * np.log(np.maximum(q, np.float32(1e-20)))).sum(dtype=np.float64))
        if self._unary is not None:
            total += float((wide * self._unary).sum())
        return total + sum(float((wide * message).sum()) for message in self._messages(q))

    def _marginals(self, value: Any) -> Float32Array:
        if not isinstance(value, np.ndarray) or value.dtype != np.float32:
            raise InputError("Q must be the float32 array that startInference or inference returned")
        if value.shape != (self._nlabel, self._nvar):
            raise InputError(f"Q must have shape {(self._nlabel, self._nvar)}, got {value.shape}")
        if not (np.abs(value) <= _MAX_MARGINAL).all():
            raise InputError("Q holds NaN or numbers that are not probabilities")
        return value

    def _messages(self, q: Float32Array) -> Sequence[Float32Array]:
        """For each term, compatibility times K Q: what is subtracted from the logits."""
        from lidcam_rt._kernels import crf

        flat, messages = np.ascontiguousarray(q), []
        for lattice, compat in self._terms:
            filtered = np.asarray(crf.filter(lattice, flat))
            if compat.size == 1:
                messages.append(-compat[0] * filtered)
            elif compat.size == self._nlabel:
                messages.append(compat[:, None] * filtered)
            else:
                messages.append(compat.reshape(self._nlabel, -1) @ filtered)
        return messages


class DenseCRF2D(DenseCRF):
    """A dense CRF over the pixels of a picture, numbered row by row.

    Args:
        w: columns.
        h: rows.
        nlabels: number of labels, at least 2.

    Raises:
        InputError: a number is out of range.
    """

    def __init__(self, w: int, h: int, nlabels: int, *_: Any, **__: Any) -> None:
        self._w, self._h = whole_number("w", w, 1), whole_number("h", h, 1)
        super().__init__(self._w * self._h, nlabels)

    def addPairwiseGaussian(
        self, sxy: Any, compat: Any, kernel: int = DIAG_KERNEL, normalization: int = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add the smoothness term, a Gaussian of the distance.

        Args:
            sxy: standard deviation in pixels, or (of columns, of rows).
            compat: see `addPairwiseEnergy`.
            kernel: no effect.
            normalization: of `NormalizationType`.

        Raises:
            InputError: wrong type or value.
        """
        sx, sy = deviations_of("sxy", sxy, 2)

        def build(kind: NormalizationType) -> Any:
            return self._grid(None, [sx, sy], kind)

        self._add(build, compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the appearance term, a Gaussian of distance and colour.

        Args:
            sxy: standard deviation in pixels, or (of columns, of rows).
            srgb: standard deviation in grey levels, or one per channel.
            rgbim: uint8 [h, w, 3], C-contiguous.
            compat: see `addPairwiseEnergy`.
            kernel: no effect.
            normalization: of `NormalizationType`.

        Raises:
            InputError: wrong type, dtype, shape, order or value.
        """
        sx, sy = deviations_of("sxy", sxy, 2)
        deviations = deviations_of("srgb", srgb, 3)
        rgb_image(rgbim, self._h, self._w)

        def build(kind: NormalizationType) -> Any:
            return self._grid(rgbim, [sx, sy, *deviations], kind)

        self._add(build, compat, kernel, normalization)

    def _grid(self, image: Any, deviations: list[float], kind: NormalizationType) -> Any:
        from lidcam_rt._kernels import crf

        try:
            return crf.image_lattice(image, self._h, self._w, deviations, int(kind))
        except ValueError as error:
            raise InputError(f"sxy or srgb does not fit the image: {error}") from error


def _softmax(logits: Float32Array) -> Float32Array:
    """Over the first axis."""
    shifted = np.exp(logits - logits.max(0))
    out: Float32Array = (shifted / shifted.sum(0)).astype(np.float32, copy=False)
    return out
