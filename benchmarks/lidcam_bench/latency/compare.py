"""Two reports compared: what changed beyond a bound, whether the samples settle it, and which stage is to blame."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lidcam_bench.latency.blame import StageChange, blame_text, stage_changes
from lidcam_bench.latency.results import Results, Run, ScenarioResult, load_results, load_samples
from lidcam_bench.latency.statistics import PERCENTILES, Ratio, Samples, ratio_of
from lidcam_rt.errors import InputError

__all__ = ["Bound", "Change", "Comparison", "compare_results", "parse_bound"]

State = Literal["within", "beyond", "undecided"]

_LATENCIES = {f"p{p:g}": p for p in PERCENTILES}
#: Names of quantities where more is worse; of all others (throughput, accuracy) less is.
_MORE_IS_WORSE = ("memory", "energy", "cold_start", "flipped_percent", "logits_max_abs")
_RUN_QUANTITIES = ("memory", "cold_start")
_SCENARIO_QUANTITIES = ("throughput", "energy")


@dataclass(frozen=True, slots=True)
class Bound:
    """How much worse a quantity may become.

    Attributes:
        name: p50 to p99.9, throughput, memory, energy, cold_start, a stage, or a score of the accuracy pass.
        limit: as a share of the first run's value if `relative`, else in the quantity's own unit (latencies: ms).
        relative: see there.
    """

    name: str
    limit: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.name}:{100 * self.limit:g}%" if self.relative else f"{self.name}:{self.limit:g}"


def parse_bound(text: str) -> Bound:
    """Read `NAME:NUMBER%` or `NAME:NUMBER`, as `p99:5%` or `miou:0.005`.

    Raises:
        InputError: it is something else.
    """
    match = re.fullmatch(r"([A-Za-z][\w.@+ /-]*):(\d+(?:\.\d+)?(?:e-?\d+)?)(%?)(?: ?ms)?", text.strip())
    if match is None:
        raise InputError(f"a bound is NAME:NUMBER%, as p99:5%, or NAME:NUMBER, as miou:0.005; got {text!r}")
    relative = match[3] == "%"
    return Bound(match[1].strip(), float(match[2]) / (100 if relative else 1), relative)


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity of one variant in both runs.

    Attributes:
        where: variant, and scenario where it belongs to one.
        name: of the quantity.
        before: in the first run.
        after: in the second.
        ratio: with its interval, where there are raw samples; else None.
        bound: that it is held against, or None.
        state: `within` the bound, `beyond` it, or `undecided`: beyond it, and the samples leave it open whether
            anything changed at all.
        text: what is to be said of it, for a person.
    """

    where: str
    name: str
    before: float
    after: float
    ratio: Ratio | None
    bound: Bound | None
    state: State
    text: str

    @property
    def percent(self) -> float | None:
        """Change in percent of the first run's value."""
        return 100 * (self.after / self.before - 1) if self.before else None


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        changes: every quantity.
        stages: how the stages changed, by variant and scenario.
        notes: what could not be compared, and what makes the comparison doubtful.
    """

    changes: tuple[Change, ...]
    stages: dict[str, tuple[StageChange, ...]]
    notes: tuple[str, ...]

    @property
    def state(self) -> State:
        """The worst state of a bound."""
        states = {change.state for change in self.changes}
        return "beyond" if "beyond" in states else "undecided" if "undecided" in states else "within"


def compare_results(before: Path, after: Path, bounds: Sequence[Bound] = ()) -> Comparison:
    """Compare two results.json.

    Variants are matched by what was asked for. Two files of one variant each are compared whatever was asked for.

    Args:
        before: the first; its raw samples lie beside it.
        after: the second.
        bounds: how much worse quantities may become.

    Raises:
        InputError: a file cannot be read, nothing is common to both, or a bound names a quantity that neither has.
    """
    a, b = load_results(before), load_results(after)
    pairs, notes = _pairs(a, b)
    notes += _doubts(a, b)
    ratio = _floor_ratio(a, b)
    changes: list[Change] = []
    stages: dict[str, tuple[StageChange, ...]] = {}
    for one, two in pairs:
        changes += _of_run(one, two, bounds)
        for first in one.scenarios:
            second = next((entry for entry in two.scenarios if entry.key == first.key), None)
            if second is None:
                notes.append(f"{one.variant.key}: the scenario {first.key} is in the first file only")
                continue
            where = f"{one.variant.key}, {first.key}"
            samples = (_samples(before, first), _samples(after, second))
            stages[where] = stage_changes(*samples)
            changes += _of_scenario(where, (first, second), samples, bounds, (one, two), ratio)
    known = {change.name for change in changes}
    for bound in bounds:
        if bound.name not in known:
            raise InputError(f"nothing called {bound.name} is in both files; there are {', '.join(sorted(known))}")
    return Comparison(tuple(changes), stages, tuple(notes))


def _pairs(a: Results, b: Results) -> tuple[list[tuple[Run, Run]], list[str]]:
    ran = [[run for run in results.runs if run.error is None] for results in (a, b)]
    notes = [f"{run.variant.key} could not be run: {run.error}" for r in (a, b) for run in r.runs if run.error]
    if len(ran[0]) == len(ran[1]) == 1:
        one, two = ran[0][0], ran[1][0]
        if one.variant.key != two.variant.key:
            notes.append(f"two different variants are compared: {one.variant.key} and {two.variant.key}")
        return [(one, two)], notes
    others = {run.variant.key: run for run in ran[1]}
    pairs = [(run, others[run.variant.key]) for run in ran[0] if run.variant.key in others]
    if not pairs:
        keys = [", ".join(sorted(run.variant.key for run in runs)) or "nothing" for runs in ran]
        raise InputError(f"the two files have no variant in common: {keys[0]}; and {keys[1]}")
    common = {run.variant.key for run, _ in pairs}
    notes += [f"{run.variant.key} is in one file only" for runs in ran for run in runs if run.variant.key not in common]
    return pairs, notes


def _doubts(a: Results, b: Results) -> list[str]:
    out = []
    if a.machine.name != b.machine.name:
        out.append(f"different machines: {a.machine.name}; and {b.machine.name}")
    if a.scope != b.scope:
        out.append("different scopes: the times do not cover the same steps")
    if a.images != b.images:
        out.append("different pictures")
    for name, results in (("first", a), ("second", b)):
        kinds = {finding.kind for run in results.runs for entry in run.scenarios for finding in entry.findings
                 if finding.level == "warning"} | {finding.kind for finding in results.findings}  # fmt: skip
        if kinds:
            out.append(f"the {name} file was measured under warnings: {', '.join(sorted(kinds))}")
    return out


def _floor_ratio(a: Results, b: Results) -> float | None:
    """The matrix rate of the second run over that of the first; the least of all that both measured."""
    ratios = [
        other.value / rate.value for rate in a.floor.matrix
        if (other := b.floor.rate(rate.what, rate.threads)) is not None
    ]  # fmt: skip
    return min(ratios) if ratios else None


def _samples(results: Path, entry: ScenarioResult) -> dict[str, Samples]:
    if entry.samples is None or not (results.parent / entry.samples).exists():
        return {}
    return load_samples(results.parent / entry.samples)


def _bound(name: str, bounds: Sequence[Bound]) -> Bound | None:
    return next((bound for bound in bounds if bound.name == name), None)


def _change(
    where: str,
    name: str,
    values: tuple[float, float],
    bounds: Sequence[Bound],
    *,
    ratio: Ratio | None = None,
    enough: bool = True,
    more_is_worse: bool = True,
    why: str = "",
) -> Change:
    """A change and its state; without `enough` samples a bound can be kept, and not be said to be broken."""
    before, after = values
    bound = _bound(name, bounds)
    worse = (after - before) * (1 if more_is_worse else -1)
    state: State = "within"
    if bound is not None and worse > bound.limit * (abs(before) if bound.relative else 1):
        state = "undecided" if not enough or (ratio is not None and not ratio.decided) else "beyond"
    text = ""
    if state == "undecided" and not enough:
        text = f"there are too few samples to bound the {name}: measure longer"
    elif state == "undecided" and ratio is not None:
        low, high = 100 * (ratio.low - 1), 100 * (ratio.high - 1)
        text = f"the samples do not settle it (95% interval {low:+.1f}% to {high:+.1f}%): measure longer"
    elif state == "beyond":
        text = why
    return Change(where, name, before, after, ratio, bound, state, text)


def _of_run(one: Run, two: Run, bounds: Sequence[Bound]) -> list[Change]:
    """What belongs to no scenario: start, memory, accuracy."""
    out: list[Change] = []
    where = one.variant.key
    if one.cold_start is not None and two.cold_start is not None:
        out.append(_change(where, "cold_start", (one.cold_start.total_ms, two.cold_start.total_ms), bounds))
    if one.memory is not None and two.memory is not None and one.memory.peak and two.memory.peak:
        out.append(_change(where, "memory", (one.memory.peak, two.memory.peak), bounds))
    if one.accuracy is not None and two.accuracy is not None:
        tables = ((one.accuracy.scores, two.accuracy.scores), (one.accuracy.agreement, two.accuracy.agreement))
        for first, second in tables:
            out += [
                _change(where, name, (first[name], second[name]), bounds, more_is_worse=name in _MORE_IS_WORSE,
                        why="the model's results changed")
                for name in first if name in second
            ]  # fmt: skip
    return out


def _of_scenario(
    where: str,
    results: tuple[ScenarioResult, ScenarioResult],
    samples: tuple[Mapping[str, Samples], Mapping[str, Samples]],
    bounds: Sequence[Bound],
    runs: tuple[Run, Run],
    floor_ratio: float | None,
) -> list[Change]:
    one, two = results
    splits = (runs[0].split, runs[1].split)
    out = [
        _change(where, "throughput", (one.images_per_second, two.images_per_second), bounds, more_is_worse=False,
                why=blame_text(stage_changes(*samples), splits, floor_ratio))
    ]  # fmt: skip
    if one.latency is not None and two.latency is not None:
        for name, p in _LATENCIES.items():
            pair = (one.latency.percentiles[name], two.latency.percentiles[name])
            ratio = ratio_of(samples[0]["latency"], samples[1]["latency"], p) if all(samples) else None
            why = blame_text(stage_changes(*samples, percentile=p), splits, floor_ratio) if _bound(name, bounds) else ""
            values, enough = (pair[0].ms, pair[1].ms), all(entry.resolved for entry in pair)
            out.append(_change(where, name, values, bounds, ratio=ratio, enough=enough, why=why))
    if one.energy.joule_per_image and two.energy.joule_per_image:
        out.append(_change(where, "energy", (one.energy.joule_per_image, two.energy.joule_per_image), bounds))
    if one.latency is not None:
        out += [
            _change(where, entry.name, (entry.before_ms, entry.after_ms), bounds, ratio=entry.ratio,
                    why=f"the stage became slower by {100 * (entry.ratio.value - 1):.1f}%")
            for entry in stage_changes(*samples)
        ]  # fmt: skip
    return out
