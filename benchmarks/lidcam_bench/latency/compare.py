"""Two reports compared: what changed beyond a bound, whether the samples settle it, and which stage is to blame."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lidcam_bench.latency.blame import StageChange, blame_text, stage_changes
from lidcam_bench.latency.results import Results, Run, ScenarioResult, load_results, load_samples
from lidcam_bench.latency.statistics import PERCENTILES, Percentile, Ratio, Samples, ratio_of
from lidcam_rt.errors import InputError

__all__ = ["Bound", "Change", "Comparison", "compare_results", "parse_bound"]

State = Literal["within", "beyond", "undecided"]

_LATENCIES = {f"p{p:g}": p for p in PERCENTILES}
#: Names of quantities where more is worse; for all others (throughput, accuracy) less is.
_MORE_IS_WORSE = ("memory", "energy", "cold_start", "flipped_percent", "logits_max_abs")
_RUN_QUANTITIES = ("memory", "cold_start")
_SCENARIO_QUANTITIES = ("throughput", "energy")


@dataclass(frozen=True, slots=True)
class Bound:
    """How much worse a quantity may become.

    Attributes:
        name: p50 to p99.9, throughput, memory, energy, cold_start, a stage, or a score of the accuracy pass.
        limit: as a share of the first run's value if `relative`, else in the quantity's own unit (latencies: ms).
        relative: see `limit`.
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
    match = re.fullmatch(r"([A-Za-z][\w.@+ /-]*):(\d+(?:\.\d+)?(?:e-?\d+)?)(%| ?ms)?", text.strip())
    if match is None or not math.isfinite(float(match[2])):
        raise InputError(f"a bound must be NAME:NUMBER%, like p99:5%, or NAME:NUMBER, like miou:0.005; got {text!r}")
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
        bound: the bound on it, or None.
        state: `within` the bound, `beyond` it, or `undecided`: beyond it, and the samples leave it open whether
            anything changed at all.
        text: a remark, for people.
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
        unheld: bounds that could not be checked somewhere, since the second file lacks what the first has: a variant
            that could not be run any more, a scenario, a score.
    """

    changes: tuple[Change, ...]
    stages: dict[str, tuple[StageChange, ...]]
    notes: tuple[str, ...]
    unheld: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The worst state of a bound; one that could not be checked is undecided."""
        states = {change.state for change in self.changes} | ({"undecided"} if self.unheld else set())
        return "beyond" if "beyond" in states else "undecided" if "undecided" in states else "within"


def compare_results(before: Path, after: Path, bounds: Sequence[Bound] = ()) -> Comparison:
    """Compare two results.json.

    Variants are matched by what was requested. Two files of one variant each are compared whatever was requested.

    Args:
        before: the first; its raw samples lie beside it.
        after: the second.
        bounds: how much worse quantities may become.

    Raises:
        InputError: a file or its samples cannot be read, nothing is common to both, or a bound names a quantity that
            is not in both, or one that has a bound already.
    """
    names = [bound.name for bound in bounds]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} has two bounds; give one")
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
            for name, rows in zip(("first", "second"), samples, strict=True):
                if not rows:
                    notes.append(f"{where}: the raw samples of the {name} file are missing: stages are not compared")
            stages[where] = stage_changes(*samples)
            changes += _of_scenario(where, (first, second), samples, bounds, (one, two), ratio)
    known = {change.name for change in changes}
    for asked in bounds:
        if asked.name not in known:
            raise InputError(f"nothing called {asked.name} is in both files; there are {', '.join(sorted(known))}")
    held = {(change.where, change.name) for change in changes}
    unheld = [
        f"{where}: {name} is in the first file only, so {bound} is not checked" for where, name in _quantities(a)
        if (bound := _bound(name, bounds)) is not None and (where, name) not in held
    ]  # fmt: skip
    return Comparison(tuple(changes), stages, tuple(notes), tuple(unheld))


def _quantities(results: Results) -> list[tuple[str, str]]:
    """What a bound may be set on: where, and name."""
    out: list[tuple[str, str]] = []
    for run in results.runs:
        key, accuracy = run.variant.key, run.accuracy
        has = {"cold_start": run.cold_start is not None, "memory": run.memory is not None and bool(run.memory.peak)}
        names = [name for name, there in has.items() if there]
        names += [*accuracy.scores, *accuracy.agreement] if accuracy is not None else []
        out += [(key, name) for name in names]
        for entry in run.scenarios:
            names = ["throughput", *(["energy"] if entry.energy.joule_per_image else [])]
            if entry.latency is not None:
                names += [*_LATENCIES, *(stage.name for stage in entry.stages if "/" not in stage.name)]
            out += [(f"{key}, {entry.key}", name) for name in names]
    return out


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
    if _pictures(a) != _pictures(b):
        out.append("different pictures")
    for name, results in (("first", a), ("second", b)):
        kinds = {finding.kind for run in results.runs for entry in run.scenarios for finding in entry.findings
                 if finding.level == "warning"} | {finding.kind for finding in results.findings}  # fmt: skip
        if kinds:
            out.append(f"the {name} file was measured under warnings: {', '.join(sorted(kinds))}")
    return out


def _pictures(results: Results) -> object:
    """What identifies the pictures: their contents, not the name of the folder."""
    return results.images.get("sha256") or results.images


def _floor_ratio(a: Results, b: Results) -> float | None:
    """The matrix rate of the second run over the first's; the smallest of all that both measured."""
    ratios = [
        other.value / rate.value for rate in a.floor.matrix
        if (other := b.floor.rate(rate.what, rate.threads)) is not None
    ]  # fmt: skip
    return min(ratios) if ratios else None


def _samples(results: Path, entry: ScenarioResult) -> dict[str, Samples]:
    if entry.samples is None or not (results.parent / entry.samples).exists():
        return {}
    arrays = load_samples(results.parent / entry.samples)
    latency = arrays["latency"]
    if entry.latency is None:
        same = len(latency) == entry.images
    else:
        extremes = (int(latency.min()) / 1e6, int(latency.max()) / 1e6)
        same = (len(latency), *extremes) == (entry.latency.n, entry.latency.min_ms, entry.latency.max_ms)
    if not same:
        raise InputError(
            f"{results.parent / entry.samples}: these raw samples are of another measurement than {results.name}. "
            "Measure again, or supply the file that belongs to it"
        )
    return arrays


def _bound(name: str, bounds: Sequence[Bound]) -> Bound | None:
    return next((bound for bound in bounds if bound.name == name), None)


def _change(
    where: str,
    name: str,
    values: tuple[float, float],
    bounds: Sequence[Bound],
    *,
    ratio: Ratio | None = None,
    settled: bool = True,
    enough: bool = True,
    more_is_worse: bool = True,
    why: str = "",
) -> Change:
    """A change and its state; not `settled`, or without `enough` samples, a bound is not reported as broken."""
    before, after = values
    bound = _bound(name, bounds)
    worse = (after - before) * (1 if more_is_worse else -1)
    state: State = "within"
    if bound is not None and worse > bound.limit * (abs(before) if bound.relative else 1):
        state = "beyond" if enough and settled and (ratio is None or ratio.decided) else "undecided"
    text = ""
    if state == "undecided" and not enough:
        text = f"there are too few samples to bound the {name}: measure longer"
    elif state == "undecided" and ratio is None:
        text = "the two intervals overlap, and there are no raw samples to tell more: measure longer"
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
                ratio=_throughput_ratio(one, two, samples),
                why=blame_text(stage_changes(*samples), splits, floor_ratio))
    ]  # fmt: skip
    if one.latency is not None and two.latency is not None:
        for name, p in _LATENCIES.items():
            pair = (one.latency.percentiles[name], two.latency.percentiles[name])
            ratio = ratio_of(samples[0]["latency"], samples[1]["latency"], p) if all(samples) else None
            why = blame_text(stage_changes(*samples, percentile=p), splits, floor_ratio) if _bound(name, bounds) else ""
            values, enough = (pair[0].ms, pair[1].ms), all(entry.resolved for entry in pair)
            settled = ratio is not None or not _meet(*pair)
            out.append(_change(where, name, values, bounds, ratio=ratio, settled=settled, enough=enough, why=why))
    if one.energy.joule_per_image and two.energy.joule_per_image:
        out.append(_change(where, "energy", (one.energy.joule_per_image, two.energy.joule_per_image), bounds))
    if one.latency is not None:
        out += [
            _change(where, entry.name, (entry.before_ms, entry.after_ms), bounds,
                    ratio=entry.ratio if entry.before_ms else None,
                    why=f"the stage became slower by {100 * (entry.ratio.value - 1):.1f}%" if entry.before_ms
                    else "the first file has no such stage")
            for entry in stage_changes(*samples)
        ]  # fmt: skip
    return out


def _meet(one: Percentile, two: Percentile) -> bool:
    """Whether the intervals of two percentiles have a point in common; those that are not bounded do."""
    if one.low_ms is None or one.high_ms is None or two.low_ms is None or two.high_ms is None:
        return True
    return one.low_ms <= two.high_ms and two.low_ms <= one.high_ms


def _throughput_ratio(
    one: ScenarioResult, two: ScenarioResult, samples: tuple[Mapping[str, Samples], Mapping[str, Samples]]
) -> Ratio | None:
    """The second throughput over the first, with its interval; None for a server, whose rate was requested."""
    if not all(samples) or one.scenario == "server" or not one.images_per_second:
        return None
    times = [entry["latency"] for entry in samples]
    if one.scenario == "offline":  # from one completion to the next
        times = [np.diff(np.sort(entry), prepend=0).astype(np.int64) for entry in times]
    elif one.images * two.queries != two.images * one.queries:  # queries of another size
        return None
    spread = ratio_of(times[1], times[0], lambda x: x.mean(axis=-1))
    value = two.images_per_second / one.images_per_second  # with the time between queries, which no sample holds
    return Ratio(value=value, low=value * spread.low / spread.value, high=value * spread.high / spread.value)
