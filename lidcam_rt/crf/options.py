"""Options of the dense CRF, and the settings in use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lidcam_rt.errors import InputError

__all__ = ["PRESETS", "CrfOptions", "preset"]


@dataclass(frozen=True, slots=True)
class CrfOptions:
    """Mean field of a dense CRF with one Gaussian and one bilateral Potts term.

    Source: Krahenbuhl and Koltun, NIPS 2011, equation 3.

    Attributes:
        iterations: mean field steps.
        gaussian_sxy: theta_gamma, pixels.
        gaussian_compat: weight of the smoothness term; 0 leaves it out.
        bilateral_sxy: theta_alpha, pixels.
        bilateral_srgb: theta_beta, grey levels of 0..255.
        bilateral_compat: weight of the appearance term; 0 leaves it out.
        gt_prob: probability given to a label when the input is a label map.
        tolerance: stop when no probability moved by more than this; 0: never.

    Raises:
        InputError: a value is out of its range.
    """

    iterations: int = 10
    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_compat: float = 10.0
    gt_prob: float = 0.7
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise InputError(f"iterations must be a whole number >= 0, got {self.iterations!r}")
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a number > 0, got {value!r}")
        for name in ("gaussian_compat", "bilateral_compat", "tolerance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be a number >= 0, got {value!r}")
        if not 0 < self.gt_prob < 1:
            raise InputError(f"gt_prob must lie between 0 and 1, got {self.gt_prob!r}")


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

    Raises:
        InputError: no preset of that name.
    """
    if isinstance(name, CrfOptions):
        return name
    if name not in PRESETS:
        raise InputError(f"no CRF preset {name!r}: choose one of {', '.join(PRESETS)}, or give CrfOptions")
    return PRESETS[name]
