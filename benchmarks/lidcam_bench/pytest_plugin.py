"""A pytest fixture for anyone who ships an artifact: check a latency or an accuracy in your own CI.

It builds on pytest-benchmark's fixture `benchmark`, so that its options (`--benchmark-json`, `--benchmark-disable`)
work as everywhere. pytest finds the plugin by itself; importing it loads nothing else of the package.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lidcam_bench.latency.facts import Accuracy
    from lidcam_bench.latency.results import Stage
    from lidcam_bench.latency.statistics import Ratio, Samples, Summary

__all__ = ["LocalizerBenchmark", "Measured", "Scored", "localizer_benchmark"]

_PERCENTILES = {"p50_ms": "p50", "p90_ms": "p90", "p95_ms": "p95", "p99_ms": "p99", "p99_9_ms": "p99.9"}


@dataclass(frozen=True)
class Measured:
    """The latency of a target.

    Attributes:
        name: of the target, for messages.
        latency: of the calls.
        stages: in their order.
        samples: nanoseconds per call, in order.
        enabled: whether it was measured; with `--benchmark-disable` one call was made, and no bound is checked.
    """

    name: str
    latency: Summary
    stages: tuple[Stage, ...]
    samples: Samples = field(repr=False)
    enabled: bool = True

    def hold(self, **bounds: float) -> None:
        """Fail the test unless every bound holds.

        Args:
            bounds: `p50_ms`, `p90_ms`, `p95_ms`, `p99_ms`, `p99_9_ms`, `mean_ms`: highest latency in milliseconds.
                STAGE`_ms`, as `crf_ms`: highest median of a stage.

        Raises:
            AssertionError: a bound is broken, or the calls are too few to bound the percentile; the message says where
                the time goes.
            ValueError: no such bound.
        """
        known = {f"{stage.name}_ms": stage.summary.median_ms for stage in self.stages}
        for name, bound in bounds.items():
            if name not in _PERCENTILES and name != "mean_ms" and name not in known:
                raise ValueError(f"no bound {name}: there are {', '.join([*_PERCENTILES, 'mean_ms', *known])}")
            if not self.enabled:
                continue
            if name in _PERCENTILES:
                percentile = self.latency.percentiles[_PERCENTILES[name]]
                if not percentile.resolved:
                    raise AssertionError(
                        f"{self.name}: {self.latency.n} calls are too few to bound the {_PERCENTILES[name]}: use "
                        "more rounds, or bound a lower percentile"
                    )
                value = percentile.ms
            else:
                value = self.latency.mean_ms if name == "mean_ms" else known[name]
            if not value <= bound:
                raise AssertionError(f"{self.name}: {name} is {value:.3g}, the bound is {bound:g}; {self._parts()}")

    def times_faster_than(self, other: Measured) -> Ratio:
        """Median of the other over this one's, with its 95% interval: the same on slow and on fast machines.

        Check its lower end: `assert small.times_faster_than(large).low > 1.5`. With `--benchmark-disable` nothing was
        measured, and it is infinite.
        """
        from lidcam_bench.latency.statistics import Ratio, ratio_of

        if not (self.enabled and other.enabled):
            return Ratio(value=math.inf, low=math.inf, high=math.inf)
        return ratio_of(self.samples, other.samples)

    def _parts(self) -> str:
        shown = [f"{s.name} {s.summary.median_ms:.3g}" for s in self.stages if "/" not in s.name]
        return f"median ms of the stages: {', '.join(shown)}"


@dataclass(frozen=True)
class Scored:
    """The accuracy of a target.

    Attributes:
        name: of the target, for messages.
        accuracy: scores, and agreement with the reference.
    """

    name: str
    accuracy: Accuracy

    def hold(self, **bounds: float) -> None:
        """Fail the test unless every score is at least its bound.

        Args:
            bounds: lowest value by name of the score, as `miou=0.6`, `top1_cls=70`, `mask_iou_mean=0.99`. For
                `flipped_percent` and `logits_max_abs`: highest value.

        Raises:
            AssertionError: a bound is broken.
            ValueError: no such score; the message names those that there are.
        """
        values = {**self.accuracy.scores, **self.accuracy.agreement}
        for name, bound in bounds.items():
            if name not in values:
                there = ", ".join(values) or "none, without labels or reference"
                raise ValueError(f"no score {name}: there are {there}")
            less = name in ("flipped_percent", "logits_max_abs")
            if not (values[name] <= bound if less else values[name] >= bound):  # a NaN keeps no bound
                raise AssertionError(
                    f"{self.name}: {name} is {values[name]:.6g}, at {'most' if less else 'least'} {bound:g} is wanted "
                    f"({self.accuracy.images} pictures)"
                )


class LocalizerBenchmark:
    """What the fixture returns.

    Args:
        benchmark: returns pytest-benchmark's fixture. It is called only where something is timed, since
            pytest-benchmark warns about tests that have its fixture and do not use it.
        disabled: whether the user disabled measurement, by `--benchmark-disable`.
    """

    def __init__(self, benchmark: Callable[[], Any], *, disabled: bool = False) -> None:
        self._fixture = benchmark
        self._disabled = disabled
        self._used = False

    @functools.cached_property
    def _benchmark(self) -> Any:
        return self._fixture()

    def __call__(
        self,
        target: str | os.PathLike[str],
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        engine: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        threads: int = 0,
        refine: str | None = None,
        rounds: int = 200,
        warm_up: int = 10,
    ) -> Measured:
        """Time a target, picture by picture, from the bytes of a picture to its box.

        The first call in a test is what pytest-benchmark reports; further ones, for comparison, are timed alone.

        Args:
            target: an artifact, an engine, or a checkpoint folder.
            images: a folder of pictures, or their files; they are read beforehand and used in rotation.
            engine: as for `lidcam bench --engine`.
            precision: as for `lidcam bench --precision`.
            device: as for `lidcam_rt.load`.
            threads: per call of the network; 0: one per core.
            refine: preset of the dense CRF.
            rounds: calls that are timed. A p99 needs some 400.
            warm_up: calls before those.

        Raises:
            LidcamError: the target or a picture cannot be opened.
            ValueError: there are no rounds.
            AssertionError: pytest-benchmark would call only once, though nobody requested that: it disables itself
                where tests run in parallel, and a bound on a single call would say nothing.
        """
        if rounds < 1 or warm_up < 0:
            raise ValueError(f"rounds must be at least 1, and warm_up at least 0; got {rounds} and {warm_up}")
        if getattr(self._benchmark, "disabled", False) and not self._disabled:
            raise AssertionError(
                "pytest-benchmark disabled itself, as it does under pytest-xdist, so no latency can be checked: run "
                "this test in one process (pytest -n 0), or pass --benchmark-disable to run it without measuring"
            )
        from lidcam_bench.latency.cuda import device_for
        from lidcam_bench.latency.stages import stages_of
        from lidcam_bench.latency.statistics import summarize
        from lidcam_bench.latency.system import Record, stage_arrays
        from lidcam_bench.latency.target import Target, open_target
        from lidcam_bench.latency.tasks import Tasks
        from lidcam_bench.latency.timer import StageTimer

        spec = Target(path=Path(target), engine=engine, precision=precision, device=device, threads=threads,
                      refine=refine)  # fmt: skip
        pictures = [_content(path) for path in _files(images)]
        records: list[Record] = []
        with open_target(spec) as localizer:
            timer = StageTimer(device=device_for(localizer.device))
            localizer.pipeline.observe(timer.stage)
            task = Tasks(localizer, spec, pictures, "end-to-end").task()

            def call() -> None:
                with timer.query() as timing:
                    task([len(records) % len(pictures)])
                records.append(Record(len(records), timing, 0))

            enabled = self._run(call, rounds, warm_up)
            facts = {"target": spec.key, "engine": localizer.backend.name, "device": localizer.device,
                     "precision": localizer.backend.precision, "pictures": len(pictures)}  # fmt: skip
        timed = [Record(i, record.timing, 0) for i, record in enumerate(records[-rounds:])]
        arrays = stage_arrays(timed, len(timed))
        measured = Measured(spec.key, summarize(arrays["whole"]), stages_of(arrays), arrays["whole"], enabled)
        if not self._used:
            stages = {stage.name: stage.summary.median_ms for stage in measured.stages}
            self._benchmark.extra_info.update(facts | {"stage_median_ms": stages})
        self._used = True
        return measured

    def _run(self, call: Any, rounds: int, warm_up: int) -> bool:
        """Call, through pytest-benchmark the first time; whether it was measured."""
        enabled = not self._disabled
        if not self._used:
            self._benchmark.pedantic(call, rounds=rounds, warmup_rounds=warm_up, iterations=1)
        else:
            for _ in range(rounds + warm_up if enabled else 1):
                call()
        return enabled

    def accuracy(
        self,
        target: str | os.PathLike[str],
        data: str | os.PathLike[str] | None = None,
        *,
        reference: str | os.PathLike[str] | None = None,
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        engine: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        refine: str | None = None,
        limit: int | None = None,
    ) -> Scored:
        """Score a target; nothing is timed.

        Args:
            target: as in a call.
            data: labelled pictures, as for `lidcam eval`, or None.
            reference: a target whose results are taken as the truth, or None.
            images: pictures for the comparison with the reference, where there is no data.
            engine: as in a call.
            precision: as in a call.
            device: as in a call.
            refine: as in a call.
            limit: the first pictures only.

        Raises:
            LidcamError: target, data or reference cannot be opened, or do not fit.
            ValueError: there is nothing to score against, or no picture.
        """
        from lidcam_bench.latency.accuracy import measure_accuracy
        from lidcam_bench.latency.job import AccuracyJob
        from lidcam_bench.latency.target import Target, open_target

        spec = Target(path=Path(target), engine=engine, precision=precision, device=device, refine=refine)
        job = AccuracyJob(
            data=None if data is None else os.fspath(data),
            images=tuple(_files(images)) if images else (),
            reference=None if reference is None else Target(path=Path(reference), device=device),
            limit=limit,
        )
        if job.data is None and job.reference is None:
            raise ValueError("nothing to score against: give data with labels, masks or boxes, or a reference")
        if job.data is None and not job.images:
            raise ValueError("a reference alone needs pictures: give images")
        with open_target(spec) as localizer:
            return Scored(spec.key, measure_accuracy(localizer, spec, job))


def _files(images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    from lidcam_cli.sources import find_images

    names = [images] if isinstance(images, (str, os.PathLike)) else images
    return [Path(path) for path in find_images([os.fspath(name) for name in names]).paths]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        from lidcam_rt.errors import InputError

        raise InputError(f"{path}: cannot be read ({error.strerror or error}). Check the path") from None


@pytest.fixture
def localizer_benchmark(request: pytest.FixtureRequest) -> LocalizerBenchmark:
    """Times a localizer with pytest-benchmark, per stage, and scores it; see docs/benchmarking.md."""
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail("the fixture localizer_benchmark needs pytest-benchmark: pip install 'lidcam-rt[bench]'")
    options = request.config.option
    disabled = options.benchmark_disable and not options.benchmark_enable
    return LocalizerBenchmark(lambda: request.getfixturevalue("benchmark"), disabled=disabled)
