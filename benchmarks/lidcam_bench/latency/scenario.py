"""One scenario of an open target: a plan for LoadGen, the system under test, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from lidcam_bench.latency.energy import EnergyMeter
from lidcam_bench.latency.facts import Conditions
from lidcam_bench.latency.loadgen import MIN_QUERIES, Outcome, Plan, System, run_loadgen
from lidcam_bench.latency.machine import Watch
from lidcam_bench.latency.nvml import Nvml
from lidcam_bench.latency.results import Scenario, ScenarioResult
from lidcam_bench.latency.stages import loose_stages, stages_of
from lidcam_bench.latency.statistics import Samples, summarize
from lidcam_bench.latency.system import Direct, Streamed, Workers, stage_arrays
from lidcam_bench.latency.tasks import Tasks
from lidcam_bench.latency.timer import Device, StageTimer

__all__ = ["Runner", "Times", "warm_up"]

_LEAST_CALLS = 5
_HEADROOM = 1.3  # LoadGen makes its offline query beforehand: more pictures than will be needed


@dataclass(frozen=True, slots=True)
class Times:
    """How long scenarios last, and the latency bound.

    Attributes:
        seconds: minimum duration.
        max_seconds: maximum.
        bound_ms: of the server scenario; None: ten times `single_ms`.
        single_ms: median of a query of the warm-up.
    """

    seconds: float
    max_seconds: float
    bound_ms: float | None
    single_ms: float


def warm_up(
    call: Callable[[int], object], seconds: float, clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[float, ...]:
    """Call until the time is over, at least five times; milliseconds of each call.

    Args:
        call: takes 0, 1, ...
        seconds: minimum duration.
        clock: nanoseconds.
    """
    out: list[float] = []
    end = clock() + seconds * 1e9
    while len(out) < _LEAST_CALLS or clock() < end:
        start = clock()
        call(len(out))
        out.append((clock() - start) / 1e6)
    return tuple(out)


class Runner:
    """Runs the scenarios of an open target.

    Args:
        tasks: what a query does.
        times: how long.
        device: for the timer; None: the host alone works.
        nvml: of the GPU in use, or None.
    """

    def __init__(self, tasks: Tasks, times: Times, *, device: Device | None = None, nvml: Nvml | None = None) -> None:
        self.tasks = tasks
        self.times = times
        self._device = device
        self._nvml = nvml

    def stream(self, scenario: Scenario, batch: int) -> tuple[ScenarioResult, dict[str, npt.NDArray[Any]]]:
        """Single stream, or multi stream with `batch` pictures per query."""
        timer = self._timer(exclusive=True)
        system = Direct(self.tasks.task(), timer)
        single = scenario == "single-stream"
        plan = Plan(
            scenario,
            self.times.seconds,
            self.times.max_seconds,
            min_queries=MIN_QUERIES[scenario],
            images_per_query=1 if single else batch,
            percentile=90.0 if single else 99.0,
            expected_ms=self.times.single_ms * (1 if single else batch) / 2,
        )
        return self._run(plan, system, timer)

    def offline(self) -> tuple[ScenarioResult, dict[str, npt.NDArray[Any]]]:
        """All pictures at once: the throughput at saturation."""
        rate = self._rate()
        for _ in range(2):
            timer = self._timer(exclusive=False)
            stream = self.tasks.stream()
            plan = Plan("offline", self.times.seconds, target_qps=_HEADROOM * rate)
            if stream is not None:
                result = self._run(plan, Streamed(stream), timer)
            else:
                task, threads = self.tasks.concurrent()
                with _closing(Workers(task, timer, threads=threads, batch=self.tasks.target.batch)) as workers:
                    result = self._run(plan, workers, timer)
            if result[0].verdict == "VALID":
                break
            rate = max(rate, result[0].images_per_second) * _HEADROOM  # it was faster than it seemed
        return result

    def server(self, qps: float, load: float | None) -> tuple[ScenarioResult, dict[str, npt.NDArray[Any]]]:
        """Queries that arrive on their own, at a rate."""
        timer = self._timer(exclusive=False)
        task, threads = self.tasks.concurrent()
        bound = self.times.bound_ms or 10 * self.times.single_ms
        plan = Plan(
            "server",
            self.times.seconds,
            self.times.max_seconds,
            min_queries=MIN_QUERIES["multi-stream"],  # lets a few be over the bound
            target_qps=qps,
            bound_ms=bound,
        )
        with _closing(Workers(task, timer, threads=threads, batch=self.tasks.target.batch)) as workers:
            result, arrays = self._run(plan, workers, timer)
        return result.model_copy(update={"target_qps": qps, "load": load, "bound_ms": bound}), arrays

    def _timer(self, *, exclusive: bool) -> StageTimer:
        timer = StageTimer(device=self._device, exclusive=exclusive)
        self.tasks.localizer.pipeline.observe(timer.stage)
        return timer

    def _rate(self) -> float:
        """A first idea of the throughput, pictures per second."""
        count = max(8, 2 * self.tasks.target.batch)
        stream = self.tasks.stream()
        task = self.tasks.task()
        while True:
            places = [i % len(self.tasks.pictures) for i in range(count)]
            start = time.perf_counter()
            if stream is not None:
                for _ in stream(places):
                    pass
            else:
                for first in range(0, count, self.tasks.target.batch):
                    task(places[first : first + self.tasks.target.batch])
            seconds = time.perf_counter() - start
            if seconds > 0.5 or count > 4096:
                return count / seconds
            count *= 2

    def _run(
        self, plan: Plan, system: System, timer: StageTimer
    ) -> tuple[ScenarioResult, dict[str, npt.NDArray[Any]]]:
        energy = EnergyMeter(self._nvml)
        with Watch(nvml=self._nvml) as watch:
            energy.start()
            outcome = run_loadgen(plan, system, len(self.tasks.pictures))
            used = energy.stop(outcome.images)
        records = getattr(system, "records", [])
        rows = outcome.images if plan.scenario == "offline" else outcome.queries
        arrays = {"latency": outcome.latency_ns, "issued_late": outcome.delay_ns, **stage_arrays(records, rows)}
        result = _result(plan, outcome, arrays, timer.loose_ns if not records else {})
        return result.model_copy(update={"conditions": watch.conditions, "energy": used}), arrays


class _closing:
    """Closes workers; an error of theirs is raised, unless another is already being raised."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def __enter__(self) -> Workers:
        return self._workers

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._workers.close()


def _result(
    plan: Plan, outcome: Outcome, arrays: dict[str, Samples], loose: dict[str, list[int]]
) -> ScenarioResult:
    waited = arrays["waited"][arrays["waited"] >= 0]
    return ScenarioResult(
        scenario=plan.scenario,
        verdict=outcome.verdict,
        reasons=outcome.reasons,
        queries=outcome.queries,
        images=outcome.images,
        seconds=outcome.seconds,
        images_per_second=outcome.images / outcome.seconds if outcome.seconds else 0.0,
        bound_percentile=plan.percentile if plan.scenario == "server" else None,
        latency=None if plan.scenario == "offline" else summarize(outcome.latency_ns),
        queue=summarize(waited) if plan.scenario == "server" and len(waited) else None,
        stages=stages_of(arrays) or loose_stages(loose),
        settings=outcome.settings,
        conditions=Conditions(seconds=0.0),
    )
