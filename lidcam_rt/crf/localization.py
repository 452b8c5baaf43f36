"""The dense CRF on a localization map: from a PaS map and its threshold to a mask with the picture's edges."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.crf.options import CrfOptions, preset
from lidcam_rt.errors import InputError

if TYPE_CHECKING:
    from lidcam_rt.artifact import InputSpec
    from lidcam_rt.pipeline import Prepared
    from lidcam_rt.results import Localization

__all__ = ["SIZES", "MapRefiner", "foreground_probability"]

#: Where the CRF works: on the network's input, or on the picture itself.
SIZES = ("network", "original")
#: A refined map is 255 times the foreground's probability: above 127 it is 0.5 or more.
_HALF = 127
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


@dataclass(frozen=True, slots=True)
class MapRefiner:
    """Refines localization maps by their picture with a dense CRF of two labels. Made by `of`.

    Attributes:
        options: of the CRF. Its sxy are pixels of the size it works at.
        size: `network`: on the network's input and the map as it leaves the network; the refined map is then brought
            to the picture's size as any map is. `original`: on the picture; its cost grows with the picture.
        preset: name of the preset, or None where options were given.
    """

    options: CrfOptions
    size: str = "network"
    preset: str | None = None

    @classmethod
    def of(cls, crf: CrfOptions | str | None, size: str = "network") -> MapRefiner | None:
        """The refiner that a user asked for, or None for None.

        Raises:
            InputError: no such preset or size.
        """
        if size not in SIZES:
            raise InputError(f"crf_size must be one of {', '.join(SIZES)}, got {size!r}")
        if crf is None:
            return None
        if not isinstance(crf, (str, CrfOptions)):
            raise InputError(f"crf must be the name of a preset, CrfOptions or None, got {type(crf).__name__}")
        return cls(preset(crf), size, crf if isinstance(crf, str) else None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON takes and gives back unchanged."""
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.options).items()}
        return {"preset": self.preset, "size": self.size, **options}

    def refine(
        self, picture: npt.NDArray[np.uint8], map8: npt.NDArray[np.uint8], level: int
    ) -> npt.NDArray[np.uint8]:
        """Refine one map.

        Args:
            picture: uint8 [H, W, 3] RGB.
            map8: uint8 [H, W].
            level: the map's mask is `map8 > level`. A mask that is empty or full stays so.

        Returns:
            uint8 [H, W], round(255 P(foreground)): the mask is above 127.

        Raises:
            InputError: a dtype or shape is not as above.
        """
        from lidcam_rt.crf.dense import DenseCRF

        if map8.dtype != np.uint8 or map8.ndim != 2 or map8.size == 0:
            raise InputError(f"map8 must be uint8 [H, W] and not empty, got {map8.dtype} {map8.shape}")
        if not map8.max() > level or map8.min() > level:
            return np.full(map8.shape, 255 if map8.min() > level else 0, np.uint8)
        p = foreground_probability(level)
        energies = -np.log(np.clip([1 - p, p], _CLIP, 1.0)).astype(np.float32)
        q = DenseCRF(self.options).infer(np.ascontiguousarray(picture), np.take(energies, map8, axis=1))
        refined: npt.NDArray[np.uint8] = np.rint(np.float32(255) * q[1]).astype(np.uint8)
        return refined

    def localization(
        self, found: Localization, map8: npt.NDArray[np.uint8], entry: Prepared, spec: InputSpec
    ) -> Localization:
        """The refined form of a localization, which it keeps as `unrefined`.

        Args:
            found: without a CRF.
            map8: uint8 [height, width], its map as the network gave it.
            entry: its picture.
            spec: the manifest's input.

        Raises:
            InputError: the size is `original` and the picture was not kept.
        """
        from lidcam_rt.boxes import largest_box
        from lidcam_rt.image import network_pixels, placement, to_original_size

        level = int(np.floor(found.threshold))
        if self.size == "original":
            if entry.picture is None:
                raise InputError("a CRF at the original size needs the picture: pass the refiner to `prepare` too")
            full = self.refine(entry.picture, found.map, level)
        else:
            place = placement(entry.size, spec)
            inside = np.s_[: place.height, : place.width]
            refined = np.zeros_like(map8)
            refined[inside] = self.refine(network_pixels(entry.array, spec)[inside], map8[inside], level)
            full = to_original_size(refined, entry.size, spec)
        mask = full > np.uint8(_HALF)
        return replace(
            found, box=largest_box(mask), mask=mask, map=full, threshold=float(_HALF), crf=self, unrefined=found
        )
