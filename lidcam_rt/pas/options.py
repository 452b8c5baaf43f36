"""Options of percentile as a standard (PaS): one class for the artifact, the reference and every kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lidcam_rt.errors import InputError

__all__ = ["INTERPOLATIONS", "MODES", "PRECISIONS", "WHERES", "PasOptions"]

Mode = Literal["threshold", "normalize"]
Precision = Literal["uint8", "float"]
Where = Literal["resized", "raw"]
Interpolation = Literal["cubic", "linear"]

MODES: tuple[str, ...] = get_args(Mode)
PRECISIONS: tuple[str, ...] = get_args(Precision)
WHERES: tuple[str, ...] = get_args(Where)
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)


@dataclass(frozen=True, slots=True)
class PasOptions:
    """How an activation map M becomes a localization map and a mask. docs/operator.md has the formulas.

    Sources: "Revisiting Class Activation Mapping for Learning from Imperfect Data" (LID 2020), slides 17 to 19;
    Bae, Noh and Kim (ECCV 2020), section 3.4.

    Attributes:
        percentile: j of the standard Per_j(M), 0 to 100, rounded to 1/1000. 100 is the maximum.
        theta: share of the standard that a pixel must exceed, 0 to 1, rounded to 1/1000000.
        mode: `threshold`: map = the min-max map, mask = M > theta Per_j(M).
            `normalize`: map = round(255 clip(M / Per_j(M), 0, 1)), mask = map > int(255 theta).
        precision: `uint8`: the percentile of the map's bytes, as in the released code. `float`: of the float map.
        where: `resized`: the percentile of the resized map after its minimum is subtracted. `raw`: of the map as it
            leaves the network (always in float).
        interpolation: how the map is resized, `cubic` or `linear`.

    Raises:
        InputError: a value is out of its range.
    """

    percentile: float = 98.0
    theta: float = 0.35
    mode: Mode = "threshold"
    precision: Precision = "uint8"
    where: Where = "resized"
    interpolation: Interpolation = "cubic"

    def __post_init__(self) -> None:
        for name, upper in (("percentile", 100), ("theta", 1)):
            value = getattr(self, name)
            try:
                number = math.nan if isinstance(value, bool | str) else float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not 0 <= number <= upper:
                raise InputError(f"{name} must be between 0 and {upper}, got {value!r}")
            object.__setattr__(self, name, number)
        for name, known in (
            ("mode", MODES),
            ("precision", PRECISIONS),
            ("where", WHERES),
            ("interpolation", INTERPOLATIONS),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")

    def kernel_arguments(self) -> tuple[float, float, str, str, str, str]:
        """What the compiled kernels take: all attributes, in their order (kernels/pas/options.h)."""
        return self.percentile, self.theta, self.mode, self.precision, self.where, self.interpolation

    def kernel_integers(self) -> tuple[int, int, int]:
        """The same as integers, for kernels in engines: percentile * 1000, theta * 1000000 and flags."""
        from lidcam_rt._kernels import pas

        milli, micro, flags = pas.integer_attributes(*self.kernel_arguments())
        return int(milli), int(micro), int(flags)
