"""The stages of a report, from raw samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lidcam_bench.latency.facts import Split
from lidcam_bench.latency.results import Stage
from lidcam_bench.latency.statistics import Samples, Summary, summarize

__all__ = ["loose_stages", "stages_of", "with_split"]


def stages_of(arrays: dict[str, Samples]) -> tuple[Stage, ...]:
    """The stages of queries, and what is left of the whole as `rest`.

    Args:
        arrays: of `system.stage_arrays`.
    """
    whole = arrays.get("whole", np.zeros(0, np.int64))
    total = float(whole[whole >= 0].sum())
    out: list[Stage] = []
    rest = whole.copy()
    for key, values in arrays.items():
        name = key.removeprefix("stage:")
        seen = values[values >= 0]
        if not key.startswith("stage:") or not len(seen):
            continue
        out.append(Stage(name=name, summary=summarize(seen), share_percent=100 * float(seen.sum()) / total))
        if "/" not in name:
            rest -= np.maximum(values, 0)
    if out:
        rest = np.maximum(rest[whole >= 0], 0)
        share = 100 * float(rest.sum()) / total
        out.append(Stage(name="rest", summary=summarize(rest), share_percent=share, derived="the whole less all steps"))
    return tuple(out)


def loose_stages(loose: dict[str, list[int]]) -> tuple[Stage, ...]:
    """Steps that belong to no query: a sample per call.

    Args:
        loose: of `StageTimer.loose_ns`.
    """
    total = sum(sum(values) for name, values in loose.items() if "/" not in name)
    return tuple(
        Stage(
            name=name,
            summary=summarize(np.array(values, np.int64)),
            share_percent=100 * sum(values) / total if total else 0.0,
            derived="per call, while others ran; share of the time of all steps",
        )
        for name, values in loose.items()
    )


def with_split(stages: Sequence[Stage], split: Split) -> tuple[Stage, ...]:
    """Stages with the parts of the network's call, derived from the engine's own profile.

    Where the backend reports its parts itself, nothing is added.
    """
    if any(stage.name.startswith("network/") for stage in stages):
        return tuple(stages)
    out: list[Stage] = []
    for stage in stages:
        out.append(stage)
        if stage.name == "network":
            out += [
                Stage(
                    name=f"network/{part}",
                    summary=_scaled(stage.summary, share / 100),
                    share_percent=stage.share_percent * share / 100,
                    derived=f"{share:.1f}% of the call, by {split.source}",
                )
                for part, share in split.shares_percent.items()
            ]
    return tuple(out)


def _scaled(summary: Summary, factor: float) -> Summary:
    """A summary of samples that are all `factor` times as long."""

    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    percentiles = {
        name: value.model_copy(
            update={"ms": value.ms * factor, "low_ms": times(value.low_ms), "high_ms": times(value.high_ms)}
        )
        for name, value in summary.percentiles.items()
    }
    lengths = {name: getattr(summary, name) * factor for name in ("mean_ms", "min_ms", "max_ms")}
    return summary.model_copy(update={**lengths, "percentiles": percentiles})
