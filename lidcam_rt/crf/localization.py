"""The dense CRF on a localization map: from a PaS map and its threshold to a map that follows the picture's edges."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from lidcam_rt.crf.options import CrfOptions, preset
from lidcam_rt.errors import InputError

__all__ = ["Refine", "energy_table", "foreground_probability"]

Size = Literal["network", "original"]

_CLIP = 1e-5


def foreground_probability(level: int) -> npt.NDArray[np.float64]:
    """Probability of the foreground for each value of a localization map whose mask is `map > level`.

    P = m / (m + (1 - m)^alpha), m = map / 255: the foreground scores m, the background (1 - m)^alpha. That is the
    background score of psa (Ahn and Kwak, CVPR 2018; alpha 4 and 32 in its code) and SEAM (CVPR 2020; alpha 24),
    with alpha solved so that both tie (P = 0.5) exactly at the PaS threshold, between `level` and the next value:
    alpha = log t / log(1 - t) at t = (level + 0.5) / 255. A fixed alpha is a fixed threshold (4: 0.28 of the
    maximum, 24: 0.09); here PaS chooses it, picture by picture, so that without pairwise terms the mask is PaS's.
    docs/crf.md compares it with a logistic, a linear and a hard form.

    Args:
        level: 0 to 254.

    Returns:
        float64 [256], rising from 0 to 1.

    Raises:
        InputError: level is out of its range.
    """
    if not 0 <= level <= 254:
        raise InputError(f"level must be 0 to 254, got {level!r}")
    tie = (level + 0.5) / 255
    alpha = math.log(tie) / math.log1p(-tie)
    m = np.arange(256) / 255
    p: npt.NDArray[np.float64] = m / (m + (1 - m) ** alpha)
    return p


def energy_table() -> npt.NDArray[np.float32]:
    """Unary energies of both labels for every level and value of a localization map, float32 [255, 2, 256]."""
    return np.stack([_energies(level) for level in range(255)])


def _energies(level: int) -> npt.NDArray[np.float32]:
    p = foreground_probability(level)
    energies: npt.NDArray[np.float32] = -np.log(np.clip([1 - p, p], _CLIP, 1.0)).astype(np.float32)
    return energies


@dataclass(frozen=True, slots=True)
class Refine:
    """How localization maps are refined with their picture: a dense CRF of two labels, at one of two sizes.

    Wherever `refine=` is accepted, the name of a preset (`"psa"`, `"psa@original"`) or `CrfOptions` will do too.

    Attributes:
        crf: preset (psa, irn, deeplab, example; psa-fast and so on) or options of the CRF. Its sxy is in pixels of the
            size it works at.
        size: `network`: on the network's input and the map as it leaves the network; the refined map is then resized
            to the picture like any map. `original`: on the picture; the cost grows with the picture.

    Raises:
        InputError: no such preset or size.
    """

    #: A refined map is 255 times the foreground's probability; its mask is where it is above this: 0.5 or more.
    level: ClassVar[int] = 127

    crf: CrfOptions | str = "psa"
    size: Size = "network"

    def __post_init__(self) -> None:
        if not isinstance(self.crf, (str, CrfOptions)):
            raise InputError(f"crf must be the name of a preset or CrfOptions, got {type(self.crf).__name__}")
        preset(self.crf)
        if self.size not in get_args(Size):
            raise InputError(f"size must be one of {', '.join(get_args(Size))}, got {self.size!r}")

    @classmethod
    def of(cls, value: Refine | CrfOptions | str | None) -> Refine | None:
        """From a user's `refine=`: None or `none`, a preset with or without `@SIZE`, `CrfOptions` or `Refine`.

        Raises:
            InputError: no such preset or size, or it is none of these.
        """
        if value is None or isinstance(value, Refine):
            return value
        if isinstance(value, CrfOptions):
            return cls(value)
        if value == "none":
            return None
        if not isinstance(value, str):
            raise InputError(
                f"refine must be a preset such as psa or psa@original, none, CrfOptions, Refine or None, got "
                f"{type(value).__name__}"
            )
        name, at, size = value.partition("@")
        return cls(name, size) if at else cls(name)  # type: ignore[arg-type]  # checked by the class

    @property
    def preset(self) -> str | None:
        """Name of the preset, or None where options were given."""
        return self.crf if isinstance(self.crf, str) else None

    @property
    def options(self) -> CrfOptions:
        """The CRF's options."""
        return preset(self.crf)

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON takes and gives back unchanged."""
        options = json.loads(json.dumps(asdict(self.options)))
        return {"preset": self.preset, "size": self.size, **options}

    def apply(self, picture: npt.NDArray[np.uint8], map8: npt.NDArray[np.uint8], level: int) -> npt.NDArray[np.uint8]:
        """Refine one map.

        Args:
            picture: uint8 [H, W, 3] RGB.
            map8: uint8 [H, W].
            level: the map's mask is `map8 > level`. A mask that is empty or full stays so.

        Returns:
            uint8 [H, W], round(255 P(foreground)): the mask is where it is above `Refine.level`.

        Raises:
            InputError: a dtype or shape is not as above.
        """
        from lidcam_rt.crf.dense import DenseCRF

        if map8.dtype != np.uint8 or map8.ndim != 2 or map8.size == 0:
            raise InputError(f"map8 must be uint8 [H, W] and not empty, got {map8.dtype} {map8.shape}")
        if not map8.max() > level or map8.min() > level:
            return np.full(map8.shape, 255 if map8.min() > level else 0, np.uint8)
        q = DenseCRF(self.options).infer(np.ascontiguousarray(picture), np.take(_energies(level), map8, axis=1))
        refined: npt.NDArray[np.uint8] = np.rint(np.float32(255) * q[1]).astype(np.uint8)
        return refined
