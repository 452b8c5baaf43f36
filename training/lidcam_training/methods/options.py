"""Options of the training methods, the section `method` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MethodOptions"]


@dataclass(frozen=True)
class MethodOptions:
    """A training method of the literature, applied to the classifier.

    Attributes:
        name: none, has (Singh and Lee, ICCV 2017), adl (Choe and Shim, CVPR 2019), acol (Zhang et al., CVPR 2018), ae
            (Wei et al., CVPR 2017).
        grid: has: the picture is cut into patches of 1/grid of its side.
        hide: has: probability that a patch is hidden.
        drop_rate: adl: probability of the drop mask, else the importance map.
        layers: adl: modules of the backbone whose outputs get the layer, besides the last feature map; None: the
            two stages before the last.
        erase: share of the map's maximum above which it is erased; None: 0.8 for adl and ae, 0.6 for acol.
        rounds: ae: classifiers after the first; `epochs` are shared between them evenly.
    """

    name: str = "none"
    grid: int = 4
    hide: float = 0.5
    drop_rate: float = 0.75
    layers: tuple[str, ...] | None = None
    erase: float | None = None
    rounds: int = 1

    @property
    def threshold(self) -> float:
        """`erase`, or the value of the method's paper."""
        return self.erase if self.erase is not None else 0.6 if self.name == "acol" else 0.8
