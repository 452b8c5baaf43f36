"""Options of the dense CRF, and presets in common use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError

__all__ = ["PRESETS", "BilateralTerm", "CrfOptions", "GaussianTerm", "preset"]

Deviation = float | tuple[float, ...]
Compat = float | tuple[float, ...] | tuple[tuple[float, ...], ...]

#: How sums in mean field are rounded: exactly as in pydensecrf, or in the fastest order.
ROUNDINGS = ("pydensecrf", "fast")
NORMALIZATIONS = ("none", "before", "after", "symmetric")
#: Largest compatibility, so that no sum overflows (kernels/crf/mean_field.h).
_MAX_COMPAT = 1e20
_MAX_ITERATIONS = 2**31 - 1
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _deviation(name: str, value: Any, count: int) -> Deviation:
    """`value` as a float, or as a tuple of `count` of them."""
    values = (value,) if _is_number(value) else tuple(value) if isinstance(value, tuple | list | np.ndarray) else ()
    if len(values) not in {1, count} or not all(_is_number(v) and 0 < v <= _MAX_FLOAT32 for v in values):
        raise InputError(f"{name} must be a number > 0, or {count} of them, got {value!r}")
    return float(values[0]) if len(values) == 1 else tuple(float(v) for v in values)


def _each(value: Deviation, count: int) -> list[float]:
    return [value] * count if isinstance(value, float) else list(value)


def _compat(name: str, value: Any) -> Compat:
    """`value` as a float, a tuple or a tuple of tuples."""
    if _is_number(value):
        if not 0 <= value <= _MAX_COMPAT:
            raise InputError(f"{name} must be a number from 0 to 1e20, or one value or row per label, got {value!r}")
        return float(value)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a number, a vector or a square matrix, got {value!r}") from error
    if array.ndim not in {1, 2} or array.size == 0 or len(set(array.shape)) != 1:
        raise InputError(f"{name} must be a number, a vector or a square matrix, got shape {array.shape}")
    if not (np.abs(array) <= _MAX_COMPAT).all():
        raise InputError(f"{name} must hold numbers from -1e20 to 1e20")
    if array.ndim == 1:
        return tuple(float(v) for v in array)
    return tuple(tuple(float(v) for v in row) for row in array)


def _flat_compat(name: str, value: Compat, labels: int) -> list[float]:
    """What the kernels take: 1, labels or labels * labels values; a matrix is made symmetric, as pydensecrf does."""
    if isinstance(value, float):
        return [value]
    array: npt.NDArray[np.float32] = np.asarray(value, np.float32)
    if array.shape[0] != labels:
        raise InputError(f"{name} is for {array.shape[0]} labels, but there are {labels}")
    if array.ndim == 2:
        array = np.float32(0.5) * (array + array.T)
    return [float(v) for v in array.ravel()]


def _normalization(value: Any) -> None:
    if value not in NORMALIZATIONS:
        raise InputError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {value!r}")


@dataclass(frozen=True, slots=True)
class GaussianTerm:
    """A smoothness term: a Gaussian of the distance in pixels.

    Attributes:
        sxy: standard deviation in pixels, or (of x, of y).
        compat: a number is a Potts weight w, which adds -w K Q to the energies. A vector or a matrix M over the labels
            adds +M K Q, the matrix made symmetric: pydensecrf's signs.
        normalization: of the kernel: symmetric (pydensecrf's default), before, after or none.

    Raises:
        InputError: a value is out of its range.
    """

    sxy: Deviation
    compat: Compat
    normalization: str = "symmetric"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sxy", _deviation("sxy", self.sxy, 2))
        object.__setattr__(self, "compat", _compat("compat", self.compat))
        _normalization(self.normalization)

    def deviations(self) -> list[float]:
        """[x, y]."""
        return _each(self.sxy, 2)


@dataclass(frozen=True, slots=True)
class BilateralTerm:
    """An appearance term: a Gaussian of the distance in pixels and of the colours.

    Attributes:
        sxy: standard deviation in pixels, or (of x, of y).
        srgb: standard deviation in grey levels of 0..255, or one per channel.
        compat: as in `GaussianTerm`.
        normalization: as in `GaussianTerm`.

    Raises:
        InputError: a value is out of its range.
    """

    sxy: Deviation
    srgb: Deviation
    compat: Compat
    normalization: str = "symmetric"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sxy", _deviation("sxy", self.sxy, 2))
        object.__setattr__(self, "srgb", _deviation("srgb", self.srgb, 3))
        object.__setattr__(self, "compat", _compat("compat", self.compat))
        _normalization(self.normalization)

    def deviations(self) -> list[float]:
        """[x, y, red, green, blue]."""
        return _each(self.sxy, 2) + _each(self.srgb, 3)


@dataclass(frozen=True, slots=True)
class CrfOptions:
    """Mean field of a dense CRF: a Gaussian term, a bilateral term, and any further terms.

    Source: Krahenbuhl and Koltun, NIPS 2011, equation 3.

    Attributes:
        iterations: mean field steps.
        gaussian_sxy: theta_gamma, pixels, or (x, y).
        gaussian_compat: weight of the smoothness term; 0 leaves it out. Arrays as in `GaussianTerm`.
        bilateral_sxy: theta_alpha, pixels, or (x, y).
        bilateral_srgb: theta_beta, grey levels of 0..255, or one per channel.
        bilateral_compat: weight of the appearance term; 0 leaves it out. Arrays as in `GaussianTerm`.
        gt_prob: probability given to a label when the input is a label map.
        tolerance: stop when no probability moved by more than this; 0: never.
        normalization: of the two terms above: symmetric, before, after or none.
        terms: further `GaussianTerm` and `BilateralTerm`.
        rounding: `pydensecrf`: each sum in its order and precision, so that results agree to about 1e-6 and have the
            same bits on every processor. `fast`: sums in the fastest order. Where two labels are nearly tied,
            probabilities then differ by up to about 1e-4, because mean field amplifies rounding: docs/crf.md.
            Both return the same bits from run to run and for any number of threads.

    Raises:
        InputError: a value is out of its range.
    """

    iterations: int = 10
    gaussian_sxy: Deviation = 3.0
    gaussian_compat: Compat = 3.0
    bilateral_sxy: Deviation = 80.0
    bilateral_srgb: Deviation = 13.0
    bilateral_compat: Compat = 10.0
    gt_prob: float = 0.7
    tolerance: float = 0.0
    normalization: str = "symmetric"
    terms: tuple[GaussianTerm | BilateralTerm, ...] = ()
    rounding: str = "pydensecrf"

    def __post_init__(self) -> None:
        whole = isinstance(self.iterations, int) and not isinstance(self.iterations, bool)
        if not whole or not 0 <= self.iterations <= _MAX_ITERATIONS:
            raise InputError(f"iterations must be a whole number from 0 to 2^31 - 1, got {self.iterations!r}")
        for name, count in (("gaussian_sxy", 2), ("bilateral_sxy", 2), ("bilateral_srgb", 3)):
            object.__setattr__(self, name, _deviation(name, getattr(self, name), count))
        for name in ("gaussian_compat", "bilateral_compat"):
            object.__setattr__(self, name, _compat(name, getattr(self, name)))
        if not (_is_number(self.tolerance) and 0 <= self.tolerance <= _MAX_FLOAT32):
            raise InputError(f"tolerance must be a number >= 0, got {self.tolerance!r}")
        if not (_is_number(self.gt_prob) and 0 < self.gt_prob < 1):
            raise InputError(f"gt_prob must lie between 0 and 1, got {self.gt_prob!r}")
        _normalization(self.normalization)
        object.__setattr__(self, "terms", tuple(self.terms))
        if not all(isinstance(term, GaussianTerm | BilateralTerm) for term in self.terms):
            raise InputError(f"terms may hold only GaussianTerm and BilateralTerm, got {self.terms!r}")
        if self.rounding not in ROUNDINGS:
            raise InputError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}")

    def pairwise(self) -> tuple[GaussianTerm | BilateralTerm, ...]:
        """All terms that have an effect."""
        first = GaussianTerm(self.gaussian_sxy, self.gaussian_compat, self.normalization)
        second = BilateralTerm(self.bilateral_sxy, self.bilateral_srgb, self.bilateral_compat, self.normalization)
        return tuple(term for term in (first, second, *self.terms) if term.compat != 0)

    def kernel_terms(self, labels: list[int] | int) -> list[tuple[list[float], list[float], int]]:
        """The terms as `lidcam_rt._kernels.crf.infer` takes them: (deviations, compat, normalization).

        Args:
            labels: how many labels there are, or the indices of those that are present (arrays are cut down to them).

        Raises:
            InputError: an array is for another number of labels.
        """
        out = []
        for term in self.pairwise():
            compat = term.compat
            if isinstance(labels, list) and not isinstance(compat, float):
                array = np.asarray(compat)
                if labels and not 0 <= min(labels) <= max(labels) < array.shape[0]:
                    raise InputError(f"compat is for labels 0 to {array.shape[0] - 1}, but {labels} are present")
                compat = _compat("compat", array[labels] if array.ndim == 1 else array[np.ix_(labels, labels)])
            count = labels if isinstance(labels, int) else len(labels)
            kind = NORMALIZATIONS.index(term.normalization)
            out.append((term.deviations(), _flat_compat("compat", compat, count), kind))
        return out


_FAST = "-fast"
PRESETS: Mapping[str, CrfOptions] = MappingProxyType(
    {
        "psa": CrfOptions(),
        "irn": CrfOptions(bilateral_sxy=50.0, bilateral_srgb=5.0),
        "deeplab": CrfOptions(
            gaussian_sxy=1.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0
        ),
        "example": CrfOptions(iterations=5),
    }
)


def preset(name: str | CrfOptions) -> CrfOptions:
    """The options of a preset, or the options given.

    Args:
        name: of a preset; `-fast` after it (`psa-fast`) sets `rounding` to `fast`.

    Raises:
        InputError: no preset of that name.
    """
    if isinstance(name, CrfOptions):
        return name
    if not is_preset(name):
        raise InputError(
            f"no CRF preset {name!r}: choose one of {', '.join(PRESETS)}, with {_FAST} after it where speed matters "
            "more than pydensecrf's rounding, or give CrfOptions"
        )
    options = PRESETS[name.removesuffix(_FAST)]
    return replace(options, rounding="fast") if name.endswith(_FAST) else options


def is_preset(name: str) -> bool:
    """Whether `preset` knows the name."""
    return isinstance(name, str) and name.removesuffix(_FAST) in PRESETS
