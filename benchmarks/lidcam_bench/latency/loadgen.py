"""MLCommons LoadGen: it issues the queries, takes the times and gives the verdict.

Scenarios, percentiles, Poisson arrivals, minimum numbers of queries and early stopping are LoadGen's own (Reddi et al.,
MLPerf Inference Benchmark, ISCA 2020; https://github.com/mlcommons/inference/tree/master/loadgen). This module turns a
plan into its settings and its logs into an outcome. LoadGen keeps its state in the process: one test at a time.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from lidcam_bench.latency.results import Scenario
from lidcam_bench.latency.statistics import Samples
from lidcam_rt.errors import InputError, LidcamError, MissingExtraError

__all__ = ["MIN_QUERIES", "Complete", "Outcome", "Plan", "Query", "System", "run_loadgen"]

#: The minimum number of queries that can satisfy LoadGen's early stopping, by scenario: 64 for a 90th percentile
#: (single stream), 662 for a 99th (multi stream), and 459 for a 99th met by every query (server; more if some exceed).
MIN_QUERIES: dict[Scenario, int] = {"single-stream": 64, "multi-stream": 662, "server": 459, "offline": 1}

# MLPerf publishes seeds before each round, so that nobody fits a system to a known order. These are fixed, so that two
# runs of this program get the same pictures at the same times.
_SEEDS = {"qsl_rng_seed": 20200613, "sample_index_rng_seed": 20200614, "schedule_rng_seed": 20200615}
_NAMES = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Plan:
    """What LoadGen is to do.

    Attributes:
        scenario: `single-stream`: the next query when the last is answered. `multi-stream`: the same, several
            pictures at once. `server`: queries arrive on their own (Poisson). `offline`: all pictures at once.
        seconds: minimum duration.
        max_seconds: maximum duration of issuing; 0: no limit. A run that is cut off here is INVALID if it lacks
            queries.
        min_queries: minimum number of queries.
        images_per_query: pictures of a query (multi-stream).
        target_qps: queries per second (server); for offline the expected pictures per second, from which
            LoadGen derives how many to send.
        bound_ms: latency that the percentile must not exceed (server).
        percentile: of the bound, and the one that stream scenarios report.
        expected_ms: of a query (streams). LoadGen makes its queries beforehand, for twice as many as that allows.
    """

    scenario: Scenario
    seconds: float
    max_seconds: float = 0.0
    min_queries: int = 1
    images_per_query: int = 1
    target_qps: float | None = None
    bound_ms: float | None = None
    percentile: float = 99.0
    expected_ms: float = 1.0

    def __post_init__(self) -> None:
        if self.scenario not in _NAMES:
            raise InputError(f"scenario must be one of {', '.join(_NAMES)}, got {self.scenario!r}")
        if self.scenario in ("server", "offline") and not (self.target_qps and self.target_qps > 0):
            raise InputError(f"the scenario {self.scenario} needs a rate above 0, got {self.target_qps!r}")
        if self.scenario == "server" and not (self.bound_ms and self.bound_ms > 0):
            raise InputError(f"the scenario server needs a latency bound above 0 ms, got {self.bound_ms!r}")


@dataclass(frozen=True, slots=True)
class Query:
    """A query from LoadGen.

    Attributes:
        number: 0, 1, ... in the order of issue.
        ids: LoadGen's, to be returned.
        pictures: indices of the pictures, one per id.
    """

    number: int
    ids: tuple[int, ...]
    pictures: tuple[int, ...]


#: Tells LoadGen that these ids are answered.
Complete = Callable[[Sequence[int]], None]


class System(Protocol):
    """The system under test."""

    def issue(self, query: Query, complete: Complete) -> None:
        """Take a query. It may be answered before this returns (streams), or later from another thread."""
        ...

    def flush(self) -> None:
        """LoadGen has issued its last query."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What LoadGen reported.

    Attributes:
        verdict: VALID or INVALID.
        reasons: why it is INVALID.
        latency_ns: int64 [queries], from the scheduled time of a query to its last answer; for offline int64 [images].
        delay_ns: int64, likewise: how late LoadGen issued it.
        queries: how many were issued.
        images: how many pictures those were.
        seconds: from the first query to the last answer.
        settings: as LoadGen logged them.
    """

    verdict: Literal["VALID", "INVALID"]
    reasons: tuple[str, ...]
    latency_ns: Samples
    delay_ns: Samples
    queries: int
    images: int
    seconds: float
    settings: dict[str, str] = field(default_factory=dict)


def run_loadgen(plan: Plan, system: System, pictures: int) -> Outcome:
    """Run one test.

    Args:
        plan: what to do.
        system: what answers.
        pictures: how many pictures there are to draw from, at least 1.

    Raises:
        MissingExtraError: mlcommons-loadgen is not installed.
        LidcamError: the system under test failed: its error.
    """
    lg = _module()
    failures: list[BaseException] = []
    numbers = iter(range(1 << 62))

    def complete(ids: Sequence[int]) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(i, 0, 0) for i in ids])

    def issue(samples: Sequence[Any]) -> None:
        ids = tuple(int(sample.id) for sample in samples)
        query = Query(next(numbers), ids, tuple(int(sample.index) for sample in samples))
        # An exception must not pass through LoadGen's C++ thread, and LoadGen cannot be stopped: after a failure
        # all other queries are answered at once, and the error is raised when the test is over.
        if failures:
            threading.Event().wait(0.001)
            complete(ids)
            return
        try:
            system.issue(query, complete)
        except BaseException as error:
            failures.append(error)
            complete(ids)

    with _lock, tempfile.TemporaryDirectory(prefix="lidcam-loadgen-") as folder:
        log = lg.LogSettings()
        log.enable_trace = True
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = False
        sut = lg.ConstructSUT(issue, system.flush)
        qsl = lg.ConstructQSL(pictures, pictures, lambda samples: None, lambda samples: None)
        try:
            lg.StartTestWithLogSettings(sut, qsl, _settings(lg, plan), log)
        finally:
            lg.DestroyQSL(qsl)
            lg.DestroySUT(sut)
        if failures:
            raise failures[0]
        detail = read_detail(Path(folder) / "mlperf_log_detail.txt")
        trace = (Path(folder) / "mlperf_log_trace.json").read_bytes()
    return _outcome(plan, detail, read_trace(trace))


def _module() -> Any:
    try:
        return importlib.import_module("mlperf_loadgen")
    except ImportError as error:
        raise MissingExtraError("lidcam bench", "bench", (error.name or "mlperf_loadgen",)) from None


def _settings(lg: Any, plan: Plan) -> Any:
    out = lg.TestSettings()
    out.scenario = getattr(lg.TestScenario, _NAMES[plan.scenario])
    out.mode = lg.TestMode.PerformanceOnly
    out.min_duration_ms = round(plan.seconds * 1000)
    out.max_duration_ms = round(plan.max_seconds * 1000)
    out.min_query_count = plan.min_queries
    for name, seed in _SEEDS.items():
        setattr(out, name, seed)
    if plan.scenario == "single-stream":
        out.single_stream_target_latency_percentile = plan.percentile / 100
        out.single_stream_expected_latency_ns = max(1, round(plan.expected_ms * 5e5))
    elif plan.scenario == "multi-stream":
        out.multi_stream_expected_latency_ns = max(1, round(plan.expected_ms * 5e5))
        out.multi_stream_samples_per_query = plan.images_per_query
        out.multi_stream_target_latency_percentile = plan.percentile / 100
    elif plan.scenario == "server":
        out.server_target_qps = plan.target_qps
        out.server_target_latency_ns = round((plan.bound_ms or 0) * 1e6)
        out.server_target_latency_percentile = plan.percentile / 100
    elif plan.scenario == "offline":
        out.offline_expected_qps = plan.target_qps
    return out


def read_detail(path: Path) -> dict[str, Any]:
    """LoadGen's detail log: a value by key."""
    out: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(":::MLLOG "):
            entry = json.loads(line.removeprefix(":::MLLOG "))
            out[entry["key"]] = entry["value"]
    return out


def read_trace(content: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The samples of LoadGen's trace.

    Returns:
        int64 [n, 5], sorted by query and sample: number of the query, of the sample, nanoseconds from the scheduled
        time to the issue, and to the answer; and the scheduled time itself.
    """
    rows = []
    for line in content.splitlines():
        if b'"name":"Sample"' in line and b'"ph":"b"' in line:
            event = json.loads(line.strip().rstrip(b","))
            values = [event["args"][key] for key in ("query_seq", "sample_seq", "issue_start_ns", "complete_ns")]
            rows.append([int(value) for value in values] + [round(event["ts"] * 1000)])
    return np.array(sorted(rows), np.int64).reshape(-1, 5)


def _outcome(plan: Plan, detail: dict[str, Any], samples: np.ndarray[Any, np.dtype[np.int64]]) -> Outcome:
    expected = int(detail.get("result_query_count", len(samples)))
    numbers, first = np.unique(samples[:, 0], return_index=True)
    if plan.scenario == "offline":
        latency, delay = samples[:, 3], samples[:, 2]
    else:
        latency = np.maximum.reduceat(samples[:, 3], first)
        delay = samples[first, 2]
    if not len(samples) or (plan.scenario != "offline" and len(numbers) != expected):
        raise LidcamError(
            f"LoadGen counted {expected} queries and traced {len(numbers)}: its trace is incomplete. Run it again, "
            "with a shorter --duration if it happens again"
        )
    settings = {key: str(value) for key, value in detail.items() if key.startswith("effective_")}
    settings["loadgen_version"] = str(detail.get("loadgen_version", ""))
    return Outcome(
        verdict="VALID" if detail["result_validity"] == "VALID" else "INVALID",
        reasons=_reasons(plan, detail),
        latency_ns=latency,
        delay_ns=delay,
        queries=len(numbers),
        images=len(samples),
        seconds=float((samples[:, 4] + samples[:, 3]).max(initial=0) - samples[:, 4].min(initial=1 << 62)) / 1e9,
        settings=settings,
    )


def _reasons(plan: Plan, detail: dict[str, Any]) -> tuple[str, ...]:
    """Why the run is INVALID, in words."""
    if detail["result_validity"] == "VALID":
        return ()
    out = []
    over = detail.get("result_perf_constraints_met") is False
    if over:
        out.append(f"the {plan.percentile:g}th percentile is over the bound of {plan.bound_ms:g} ms")
    if detail.get("result_min_duration_met") is False:
        out.append(f"it ended before the minimum duration of {plan.seconds:g} s")
    if detail.get("result_min_queries_met") is False:
        out.append(f"too few samples: fewer than {plan.min_queries} queries")
    if detail.get("early_stopping_met") is False and not over:
        said = " ".join(str(detail.get("early_stopping_result", "")).replace(" * ", " ").split())
        out.append(f"too few samples for the {plan.percentile:g}th percentile (LoadGen: {said})")
    return tuple(out) or (str(detail.get("result_invalid_reason") or "LoadGen gives no reason").strip(),)
