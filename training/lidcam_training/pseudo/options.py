"""How pseudo labels are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from lidcam_rt.augment import Augment
from lidcam_rt.crf import Refine
from lidcam_rt.errors import InputError

__all__ = ["Background", "PseudoOptions", "Walk"]

Background = Literal["constant", "power"]
Walk = Literal["none", "colours", "features"]


@dataclass(frozen=True)
class PseudoOptions:
    """The steps from activation maps to a label map.

    Attributes:
        scales: of the network's input; the maps of all views are averaged.
        flip: mirror each view too.
        nwc: clamp negative weights for the maps; None: as in the checkpoint or artifact.
        percentile: each class's map is divided by this percentile of its pixels and clipped at 1 (PaS); 100 divides by
            the maximum.
        background: `constant`: its score is `level`. `power`: (1 - max_k map_k) ** `alpha` (psa, SEAM).
        level: of `constant`, 0 to 1.
        alpha: of `power`, above 0.
        confident: (foreground, background) levels of irn: pixels that are a class at the first level get it, those that
            are background at the second are background, the others are 255; None: each pixel has a label.
        walk: random-walk refinement of the maps before the CRF: along the picture's `colours`, or along these and the
            network's `features` (its stage of stride 4 in timm's networks, else the last one; a checkpoint's only).
        crf: preset of a dense CRF over all classes of the picture at once, at the picture's size; None: none. With
            `confident` it refines both label maps, as irn does.

    Raises:
        InputError: a value is out of its range.
    """

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    nwc: bool | None = None
    percentile: float = 98.0
    background: Background = "constant"
    level: float = 0.3
    alpha: float = 4.0
    confident: tuple[float, float] | None = None
    walk: Walk = "none"
    crf: str | None = "psa"

    def __post_init__(self) -> None:
        Augment(self.scales, self.flip)
        Refine.of(self.crf)
        if not 0 < self.percentile <= 100:
            raise InputError(f"percentile must be above 0 and at most 100, got {self.percentile!r}")
        if self.background not in ("constant", "power"):
            raise InputError(f"background must be constant or power, got {self.background!r}")
        if self.walk not in ("none", "colours", "features"):
            raise InputError(f"walk must be none, colours or features, got {self.walk!r}")
        if not 0 <= self.level <= 1 or not self.alpha > 0:
            raise InputError(f"level must be in 0..1 and alpha above 0, got {self.level!r} and {self.alpha!r}")
        if self.confident is not None and not 0 <= self.confident[1] <= self.confident[0] <= 1:
            raise InputError(
                "confident must be (foreground, background) with 0 <= background <= foreground <= 1, "
                f"got {self.confident!r}"
            )

    @property
    def views(self) -> Augment:
        """The views whose maps are averaged."""
        return Augment(self.scales, self.flip)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)
