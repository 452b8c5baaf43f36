"""From a user's request to jobs: every target with every engine, precision, number of threads, batch and CRF."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lidcam_bench.latency.job import AccuracyJob, Job
from lidcam_bench.latency.loadgen import MIN_QUERIES
from lidcam_bench.latency.results import Scenario
from lidcam_bench.latency.target import PYTORCH, PipelineName, Scope, Target, same_network
from lidcam_rt.backends import BACKENDS
from lidcam_rt.backends.base import MAX_THREADS
from lidcam_rt.crf import Refine
from lidcam_rt.errors import InputError

__all__ = ["BenchOptions", "plan_jobs", "plan_targets"]

_LONGEST = 100  # characters of a variant in the name of a file
_WEEK = 604_800.0  # seconds
_PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured, and for how long.

    Attributes:
        scenarios: of LoadGen: single-stream, multi-stream, server, offline.
        engines: of the runtime's registry, and for checkpoints pytorch and torch-compile; `auto`: what the file is for.
        precisions: requested of the engines; `auto`: the file's.
        device: as for `lidcam_rt.load`.
        batches: pictures per call of the network.
        threads: per call of the network; 0: the runtime's choice.
        refine: presets of the dense CRF, None for none.
        pipeline: `track3` or `track1`.
        scope: `end-to-end`, or `inference`: the call of the engine alone.
        seconds: minimum duration of a scenario.
        max_seconds: maximum.
        warm_up_seconds: minimum duration of the warm-up.
        loads: rates of the server scenario as shares of the offline throughput.
        qps: rates of the server scenario in queries per second.
        bound_ms: latency bound of the server scenario; None: ten times the median of a single query.
        cold_starts: how many processes are started to time the start; 0: it is not timed.
        floor: whether the machine's floor is measured.
        floor_seconds: per library and precision.

    Raises:
        InputError: a value is not recognised or out of range.
    """

    scenarios: tuple[Scenario, ...] = ("single-stream", "offline")
    engines: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("auto",)
    device: str = "auto"
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (0,)
    refine: tuple[str | None, ...] = (None,)
    pipeline: PipelineName = "track3"
    scope: Scope = "end-to-end"
    seconds: float = 10.0
    max_seconds: float = 60.0
    warm_up_seconds: float = 1.0
    loads: tuple[float, ...] = (0.8,)
    qps: tuple[float, ...] = ()
    bound_ms: float | None = None
    cold_starts: int = 3
    floor: bool = True
    floor_seconds: float = 0.5

    def __post_init__(self) -> None:
        engines = ("auto", *(entry.name for entry in BACKENDS), *PYTORCH)
        known: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
            ("scenario", self.scenarios, list(MIN_QUERIES)),
            ("engine", self.engines, engines),
            ("precision", self.precisions, _PRECISIONS),
            ("pipeline", (self.pipeline,), get_args(PipelineName)),
            ("scope", (self.scope,), get_args(Scope)),
        )
        for name, values, choices in known:
            if not values or any(value not in choices for value in values):
                raise InputError(f"{name} must be of {', '.join(choices)}, got {', '.join(values) or 'nothing'}")
        for name, numbers, low, high in (
            ("batch", self.batches, 1, 4096),
            ("threads", self.threads, 0, MAX_THREADS),
            ("cold starts", (self.cold_starts,), 0, 1000),
        ):
            if not numbers or any(not low <= number <= high for number in numbers):
                given = ", ".join(map(str, numbers)) or "nothing"
                raise InputError(f"{name} must be {low} to {high}, got {given}")
        for name, durations, most in (
            ("duration", (self.seconds,), _WEEK),
            ("longest duration", (self.max_seconds,), _WEEK),
            ("load", self.loads, 100.0),
            ("qps", self.qps, 1e5),
            ("bound", () if self.bound_ms is None else (self.bound_ms,), 1e3 * _WEEK),
        ):
            if any(not 0 < value <= most for value in durations):
                given = ", ".join(f"{value:g}" for value in durations)
                limit = f"at most {most:g}" if all(value > 0 for value in durations) else "above 0"
                raise InputError(f"{name} must be {limit}, got {given}")
        if "server" in self.scenarios and not (self.loads or self.qps):
            raise InputError("the scenario server needs a rate: give --load or --qps")
        if self.max_seconds < self.seconds:
            raise InputError(f"the longest duration {self.max_seconds:g} s is below the duration {self.seconds:g} s")
        for preset in self.refine:
            Refine.of(preset)
        if self.pipeline == "track1" and max(self.batches) > 1:
            raise InputError("label maps are made picture by picture: with --pipeline track1 the batch is 1")


def plan_targets(paths: Sequence[Path], options: BenchOptions) -> list[Target]:
    """Every way to run every target.

    Args:
        paths: artifacts, engines and checkpoint folders.
        options: what is requested.

    Raises:
        InputError: a target does not exist, or none of the engines fits it.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder. Check the path")
    out: list[Target] = []
    for path, label in _labels(paths).items():
        combinations = itertools.product(
            _engines(path, options), options.precisions, options.threads, options.batches, options.refine
        )
        for engine, precision, threads, batch, refine in combinations:
            out.append(
                Target(
                    path=path,
                    label=label,
                    engine=engine,
                    precision=precision,
                    device=options.device,
                    threads=threads,
                    batch=batch,
                    refine=refine,
                    pipeline=options.pipeline,
                )
            )
    return out


def _labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Each target once, with as many folders of its path as tell it from its namesakes; `` where none are needed."""
    # The first spelling of a path counts.
    whole = {Path(os.path.normpath(Path.cwd() / path)): path for path in reversed(paths)}
    out: dict[Path, str] = {}
    for full, path in reversed(whole.items()):
        others = [other.parts for other in whole if other.name == full.name and other != full]
        count = 1
        while any(other[-count:] == full.parts[-count:] for other in others):
            count += 1
        out[path] = "/".join(full.parts[-count:]) if count > 1 else ""
    return out


def _engines(path: Path, options: BenchOptions) -> tuple[str, ...]:
    checkpoint = Target(path=path).is_checkpoint
    fitting = tuple(name for name in options.engines if name == "auto" or (name in PYTORCH) == checkpoint)
    if not fitting:
        kind = "a checkpoint, which " + " or ".join(PYTORCH) + " runs" if checkpoint else "not a checkpoint"
        raise InputError(f"{path.name} is {kind}: engine {', '.join(options.engines)} was requested")
    return tuple("pytorch" if checkpoint and name == "auto" else name for name in fitting)


def plan_jobs(
    targets: Sequence[Target],
    options: BenchOptions,
    images: Sequence[Path],
    samples: Path,
    accuracy: AccuracyJob | None = None,
) -> list[Job]:
    """A job per target. What does not depend on threads and batch is measured once: start, profile and accuracy.

    Args:
        targets: from `plan_targets`.
        options: what is requested.
        images: the pictures.
        samples: folder for raw samples.
        accuracy: data and reference, or None.
    """
    out: list[Job] = []
    scored: set[tuple[object, ...]] = set()
    started: set[tuple[object, ...]] = set()
    for number, target in enumerate(targets):
        same = (target.path, target.engine, target.precision, target.device)
        first = (*same, target.refine) not in scored
        scored.add((*same, target.refine))
        start = (*same, target.threads, target.refine) not in started and target.batch == min(options.batches)
        started.add((*same, target.threads, target.refine))
        out.append(
            Job(
                target=target,
                scope=options.scope,
                scenarios=_scenarios(target, options),
                seconds=options.seconds,
                max_seconds=options.max_seconds,
                warm_up_seconds=options.warm_up_seconds,
                loads=options.loads,
                qps=options.qps,
                bound_ms=options.bound_ms,
                images=tuple(images),
                samples=samples,
                stem=f"{number:02d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', target.key)[:_LONGEST]}",
                cold_starts=options.cold_starts if start else 0,
                accuracy=_accuracy(accuracy, target) if first else None,
            )
        )
    return out


def _scenarios(target: Target, options: BenchOptions) -> tuple[Scenario, ...]:
    """A single stream has one picture per query: with larger batches it becomes a multi stream."""
    out: list[Scenario] = []
    for scenario in options.scenarios:
        name: Scenario = "multi-stream" if scenario == "single-stream" and target.batch > 1 else scenario
        if name not in out:
            out.append(name)
    return tuple(out)


def _accuracy(accuracy: AccuracyJob | None, target: Target) -> AccuracyJob | None:
    """The accuracy job of a target: it is not compared with itself."""
    if accuracy is None or accuracy.reference is None:
        return accuracy
    return accuracy.model_copy(update={"reference": None}) if same_network(accuracy.reference, target) else accuracy
