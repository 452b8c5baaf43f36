"""Which stage a change of latency comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lidcam_bench.latency.facts import Split
from lidcam_bench.latency.statistics import Ratio, Samples, ratio_of

__all__ = ["StageChange", "blame", "blame_text", "stage_changes"]

_REST = "rest"
_TAIL = 90.0  # for percentiles above it, the queries above it are looked at
_ALIKE = 0.03  # stages whose ratios differ by less than this changed together


@dataclass(frozen=True, slots=True)
class StageChange:
    """How the time of one stage changed.

    Attributes:
        name: of the stage.
        before_ms: its mean, per query, in the first run; of the slow queries where the tail is to be explained.
        after_ms: the same in the second run.
        ratio: after over before, with its interval.
        share_percent: of the whole's change; above 100 where other stages became faster.
    """

    name: str
    before_ms: float
    after_ms: float
    ratio: Ratio
    share_percent: float

    @property
    def percent(self) -> str:
        """The change in words."""
        return _percent(self.ratio) if self.before_ms else "it was not there before"

    @property
    def slower(self) -> bool:
        """Whether it certainly became slower."""
        return self.ratio.low > 1


def _columns(arrays: Mapping[str, Samples], percentile: float) -> dict[str, Samples]:
    """The top-level stages of the queries that count, `rest` included, and `whole`; zero where a query skipped one."""
    whole = arrays.get("whole")
    if whole is None or not (whole >= 0).any():
        return {}
    rows = whole >= 0
    if percentile > _TAIL:
        rows &= whole >= np.percentile(whole[rows], _TAIL)
    out = {
        key.removeprefix("stage:"): np.maximum(values[rows], 0)
        for key, values in arrays.items()
        if key.startswith("stage:") and "/" not in key
    }
    if not out:
        return {}
    out[_REST] = np.maximum(whole[rows] - np.sum(list(out.values()), axis=0), 0)
    out["whole"] = whole[rows]
    return out


def _trimmed(x: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Mean over the last axis without the highest and lowest twentieth: one hiccup of the machine decides nothing."""
    ordered = np.sort(x, axis=-1)
    cut = ordered.shape[-1] // 20
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1), np.float64)


def stage_changes(
    before: Mapping[str, Samples], after: Mapping[str, Samples], percentile: float = 50.0
) -> tuple[StageChange, ...]:
    """How each stage changed, the one that added most first.

    Args:
        before: raw samples of the first run, of `results.load_samples`.
        after: of the second.
        percentile: of the latency whose change is to be explained.

    Returns:
        Nothing where the samples have no stages.
    """
    a, b = _columns(before, percentile), _columns(after, percentile)
    if not a or not b:
        return ()
    names = [name for name in (*a, *(n for n in b if n not in a)) if name != "whole"]
    zeros = {"a": np.zeros(len(a["whole"]), np.int64), "b": np.zeros(len(b["whole"]), np.int64)}
    change = float(_trimmed(b["whole"])) - float(_trimmed(a["whole"]))
    out = []
    for name in names:
        first, second = a.get(name, zeros["a"]), b.get(name, zeros["b"])
        x, y = float(_trimmed(first)), float(_trimmed(second))
        out.append(
            StageChange(
                name=name,
                before_ms=x / 1e6,
                after_ms=y / 1e6,
                ratio=ratio_of(first, second, _trimmed),
                share_percent=100 * (y - x) / change if change else 0.0,
            )
        )
    return tuple(sorted(out, key=lambda entry: entry.before_ms - entry.after_ms))


def blame(changes: Sequence[StageChange]) -> StageChange | None:
    """The stage that a slowdown comes from: it certainly became slower, and it added most. None: no such stage."""
    slower = [entry for entry in changes if entry.slower]
    return slower[0] if slower else None


def _together(changes: Sequence[StageChange]) -> bool:
    """Whether all stages that matter became slower by about the same ratio."""
    total = sum(entry.before_ms for entry in changes)
    large = [entry for entry in changes if entry.before_ms > 0.05 * total]
    ratios = [entry.ratio.value for entry in large]
    return len(large) > 1 and all(entry.slower for entry in large) and max(ratios) - min(ratios) < _ALIKE * min(ratios)


def blame_text(
    changes: Sequence[StageChange],
    splits: tuple[Split, Split] = (Split(), Split()),
    floor_ratio: float | None = None,
) -> str:
    """The blame in words.

    Args:
        changes: of `stage_changes`.
        splits: how the network's call divides, in both runs.
        floor_ratio: the machine's matrix rate in the second run over the first, where both measured it.
    """
    culprit = blame(changes)
    if culprit is None:
        return "no stage certainly became slower" if changes else "there are no raw samples of stages to blame"
    if _together(changes):
        speed = ""
        if floor_ratio is not None:
            speed = f" (its matrix rate is {100 * (floor_ratio - 1):+.1f}%)"
        return f"all stages became slower by about the same ratio, {_percent(culprit.ratio)}: the machine{speed}"
    text = (
        f"{culprit.name} went from {culprit.before_ms:.3g} to {culprit.after_ms:.3g} ms ({culprit.percent}), "
        f"{min(culprit.share_percent, 100):.0f}% of the change"
    )
    if culprit.name == "network":
        one, two = (split.shares_percent.get("CAM + PaS") for split in splits)
        if one is not None and two is not None and abs(two - one) > 1:
            text += f"; inside it CAM + PaS went from {one:.1f}% to {two:.1f}% of the call"
    return text


def _percent(ratio: Ratio) -> str:
    low, high = 100 * (ratio.low - 1), 100 * (ratio.high - 1)
    return f"{100 * (ratio.value - 1):+.1f}%, 95% interval {low:+.1f}% to {high:+.1f}%"
