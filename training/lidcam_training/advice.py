"""From the phenomena P1 to P3 to advice: which of TAP, NWC, PaS and CRF to switch on for this data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lidcam_training.phenomena import Phenomena

__all__ = ["ALIKE", "PEAKED", "Advice", "Mean", "Summary", "advise", "summarize"]

#: P3: maps whose maximum is this many times their 98th percentile are peaked. On crest GAP's maps have 1.18, and PaS
#: adds nothing; TAP's have 1.24, and it adds 0.02 to 0.05 of mask IoU.
PEAKED = 1.2
#: P1: if the channels' active areas vary by less than this (standard deviation over mean), TAP is GAP up to a factor.
ALIKE = 0.1
_REPLICATES = 1000


@dataclass(frozen=True)
class Mean:
    """A mean over pictures.

    Attributes:
        value: the mean.
        low: lower end of its 95% interval (bootstrap over pictures).
        high: upper end.
        pictures: how many had the number.
    """

    value: float
    low: float
    high: float
    pictures: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean | None:
        """The mean of the finite values; None for fewer than two."""
        array: npt.NDArray[np.float64] = np.asarray(values, np.float64)
        array = array[np.isfinite(array)]
        if array.size < 2:
            return None
        drawn = np.random.default_rng(0).integers(0, array.size, (_REPLICATES, array.size))
        low, high = np.percentile(array[drawn].mean(1), (2.5, 97.5))
        return cls(float(array.mean()), float(low), float(high), int(array.size))

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Summary:
    """P1 to P3 over pictures; None where fewer than two pictures have the number.

    Attributes:
        pooling: of the checkpoint, `gap` or `tap`.
        area_spread: P1: standard deviation of the active area over its mean, over the channels that are active.
        area_weight_correlation: P1: rank correlation of a channel's active area with its weight, over the channels
            with a positive weight that are active.
        negative_weights: P2: share of the weights that are negative.
        positive_ioa: P2: share of the positive weights' map that lies in the object; with masks.
        negative_ioa: P2: the same for the negative weights' map.
        object_share: share of the picture that the object covers: the IoA of an uninformed map.
        negative_excess: P2: negative_ioa minus object_share, picture by picture.
        negative_overlap: P2: share of the negative weights' map that lies in that of the positive ones, minus the
            share of the picture that the latter covers; without masks this stands for negative_excess.
        peak: P3: maximum of the map over its 98th percentile.
        crf_gain: mask IoU that the dense CRF (psa) adds; with masks.
    """

    pooling: Literal["gap", "tap"]
    area_spread: Mean | None
    area_weight_correlation: Mean | None
    negative_weights: Mean | None
    positive_ioa: Mean | None
    negative_ioa: Mean | None
    object_share: Mean | None
    negative_excess: Mean | None
    negative_overlap: Mean | None
    peak: Mean | None
    crf_gain: Mean | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Advice:
    """What to do about one component.

    Attributes:
        component: TAP, NWC, PaS or CRF.
        verdict: `on`, `off`, or `try` where the numbers do not decide.
        reason: why, with the numbers.
    """

    component: str
    verdict: Literal["on", "off", "try"]
    reason: str


def summarize(
    pictures: Sequence[Phenomena], pooling: Literal["gap", "tap"], crf_gains: Sequence[float] = ()
) -> Summary:
    """Means over pictures.

    Args:
        pictures: from `measure_phenomena`.
        pooling: of the checkpoint.
        crf_gains: per picture with a mask, the mask IoU that the dense CRF adds.
    """
    return Summary(
        pooling=pooling,
        area_spread=Mean.of([entry.area_spread for entry in pictures]),
        area_weight_correlation=Mean.of([entry.area_weight_correlation for entry in pictures]),
        negative_weights=Mean.of([float((entry.weight < 0).mean()) for entry in pictures]),
        positive_ioa=Mean.of([entry.positive_ioa for entry in pictures]),
        negative_ioa=Mean.of([entry.negative_ioa for entry in pictures]),
        object_share=Mean.of([entry.object_share for entry in pictures]),
        negative_excess=Mean.of([entry.negative_ioa - entry.object_share for entry in pictures]),
        negative_overlap=Mean.of([entry.negative_overlap for entry in pictures]),
        peak=Mean.of([entry.peak for entry in pictures]),
        crf_gain=Mean.of(crf_gains),
    )


def advise(summary: Summary) -> tuple[Advice, ...]:
    """Advice about TAP, NWC, PaS and CRF, in the talk's order."""
    return _tap(summary), _nwc(summary), _pas(summary), _crf(summary)


def _tap(summary: Summary) -> Advice:
    rank = summary.area_weight_correlation
    if summary.pooling == "tap":
        return Advice("TAP", "try", "on in this checkpoint; to see whether it pays, compare with one trained with GAP")
    spread = summary.area_spread
    if spread is not None and spread.high < ALIKE:
        return Advice("TAP", "off", f"P1 is absent: the channels' active areas are all alike, varying by {spread}")
    if rank is None:
        return Advice("TAP", "try", "too few active channels with a positive weight")
    figure = f"rank correlation of active area and weight {rank}"
    if rank.high < 0:
        return Advice("TAP", "on", f"P1: channels that are active in a small area have the large weights: {figure}")
    if rank.low > 0:
        reason = "this network relies on channels with a large active area; only training with TAP can tell more"
        return Advice("TAP", "try", f"{reason}: {figure}")
    return Advice("TAP", "try", f"P1 is not clear: {figure}")


def _nwc(summary: Summary) -> Advice:
    share = summary.negative_weights
    if share is not None and share.value == 0:
        return Advice("NWC", "off", "P2 is absent: no weight is negative, so nothing would change")
    excess, what = summary.negative_excess, "lies in the object"
    if excess is None:
        excess, what = summary.negative_overlap, "lies where that of the positive ones is"
    if excess is None or share is None:
        return Advice("NWC", "try", "too few pictures")
    figure = f"{100 * share.value:.0f}% of the weights are negative; their map {what}"
    if excess.low > 0:
        return Advice("NWC", "on", f"P2: {figure} more than by chance: share {excess} above")
    if excess.high < 0:
        return Advice("NWC", "off", f"P2 is absent: {figure} less than by chance: share {excess}")
    return Advice("NWC", "try", f"P2 is not clear: {figure} as much as by chance: share {excess} above")


def _pas(summary: Summary) -> Advice:
    peak = summary.peak
    if peak is None:
        return Advice("PaS", "try", "too few pictures with a map")
    figure = f"the maximum is {peak} times the 98th percentile"
    if peak.low > PEAKED:
        return Advice("PaS", "on", f"P3: maps are peaked: {figure}")
    if peak.high < PEAKED:
        return Advice("PaS", "off", f"P3 is absent: maps are flat on top: {figure}")
    return Advice("PaS", "try", f"P3 is not clear: {figure}")


def _crf(summary: Summary) -> Advice:
    gain = summary.crf_gain
    if gain is None:
        return Advice("CRF", "try", "without masks there is no telling whether it finds the objects' edges")
    figure = f"the preset psa changes mask IoU by {gain} on these pictures"
    if gain.low > 0:
        return Advice("CRF", "on", figure)
    return Advice("CRF", "off" if gain.high < 0 else "try", figure)
