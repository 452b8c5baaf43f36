"""A job: one target with its scenarios, as it is handed to a process of its own."""

from __future__ import annotations

from pathlib import Path

from lidcam_bench.latency.facts import Fact
from lidcam_bench.latency.results import Scenario
from lidcam_bench.latency.target import Scope, Target

__all__ = ["AccuracyJob", "Job"]


class AccuracyJob(Fact):
    """The accuracy pass of a job.

    Attributes:
        data: as for `lidcam eval --data`, or None: no labels.
        split: of the data.
        images: pictures for the comparison with the reference, where there is no data.
        reference: a target whose results are taken as the truth, or None.
        others: targets to use instead for one with other classes: the first of the same kind and classes.
        limit: the first pictures only; None: all.
    """

    data: str | None = None
    split: str = "test"
    images: tuple[Path, ...] = ()
    reference: Target | None = None
    others: tuple[Target, ...] = ()
    limit: int | None = None


class Job(Fact):
    """What a measuring process does.

    Attributes:
        target: what is run, and how.
        scope: `end-to-end` from the bytes of a picture to its result, or `inference`: the call of the network.
        scenarios: in order.
        seconds: minimum duration of a scenario.
        max_seconds: maximum.
        warm_up_seconds: minimum duration of the warm-up.
        loads: rates of the server scenario, as shares of the offline throughput.
        qps: rates of the server scenario, queries per second.
        bound_ms: latency bound of the server scenario; None: ten times the median of a single query.
        images: the pictures.
        samples: folder for the raw samples.
        stem: of their names.
        cold_starts: how many processes are started to time the start.
        profile: whether the engine's own profile is taken.
        accuracy: the accuracy pass, or None.
    """

    target: Target
    scope: Scope = "end-to-end"
    scenarios: tuple[Scenario, ...] = ("single-stream", "offline")
    seconds: float = 10.0
    max_seconds: float = 60.0
    warm_up_seconds: float = 1.0
    loads: tuple[float, ...] = (0.8,)
    qps: tuple[float, ...] = ()
    bound_ms: float | None = None
    images: tuple[Path, ...]
    samples: Path
    stem: str
    cold_starts: int = 3
    profile: bool = True
    accuracy: AccuracyJob | None = None
