"""A server below and above its throughput: a system with a clock of its own, and LoadGen's interface on that clock.

LoadGen itself reads the computer's clock, so that its verdict on a real system depends on what else runs there
(benchmarks/README.md has one). Here time is simulated: one worker, the same time for every picture, Poisson arrivals.
Latencies are known from queueing theory, and nothing waits.
"""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest
from lidcam_bench.latency import loadgen
from lidcam_bench.latency.loadgen import MIN_QUERIES, Plan, run_loadgen

SERVICE_NS = 20_000_000
BOUND_MS = 500.0


class Clock:
    """Nanoseconds, moved by hand."""

    now = 0


class OneWorker:
    """Takes pictures in their order, each for the same time."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.free = clock, 0

    def issue(self, query, complete):
        for i in query.ids:
            self.free = max(self.clock.now, self.free) + SERVICE_NS
            self.clock.now = self.free
            complete([i])

    def flush(self):
        pass


def simulated(clock: Clock) -> types.SimpleNamespace:
    """The part of mlperf_loadgen that lidcam bench calls, on a clock of its own."""
    done: dict[int, int] = {}

    def response(i, data, size):
        return i

    def complete(responses):
        done.update(dict.fromkeys(responses, clock.now))

    def start(issue, qsl, settings, log):
        rng = np.random.default_rng(settings.schedule_rng_seed)
        server = settings.scenario == "Server"
        count = settings.min_query_count if server else round(settings.offline_expected_qps * 10)
        gaps = rng.exponential(1e9 / settings.server_target_qps, count) if server else np.zeros(count)
        due = np.cumsum(gaps).astype(np.int64)
        samples = [types.SimpleNamespace(id=i, index=i % qsl) for i in range(count)]
        for query in [[sample] for sample in samples] if server else [samples]:
            clock.now = int(due[query[0].id])
            issue(query)
        events = [
            {"name": "Sample", "ph": "b", "ts": due[i] / 1000,
             "args": {"query_seq": i if server else 0, "sample_seq": i, "sample_idx": i, "issue_start_ns": 0,
                      "complete_ns": done[i] - int(due[i])}}
            for i in range(count)
        ]  # fmt: skip
        latency = np.sort([event["args"]["complete_ns"] for event in events])
        met = True
        if server:
            at_percentile = latency[int(count * settings.server_target_latency_percentile)]
            met = bool(at_percentile <= settings.server_target_latency_ns)
        facts = {"result_query_count": count if server else 1, "result_validity": "VALID" if met else "INVALID",
                 "result_perf_constraints_met": met, "early_stopping_met": met}  # fmt: skip
        folder = Path(log.log_output.outdir)
        lines = [":::MLLOG " + json.dumps({"key": key, "value": value}) for key, value in facts.items()]
        (folder / "mlperf_log_detail.txt").write_text("\n".join(lines))
        rows = [json.dumps(event, separators=(",", ":")) + "," for event in events]
        (folder / "mlperf_log_trace.json").write_text("\n".join(rows))

    return types.SimpleNamespace(
        QuerySampleResponse=response, QuerySamplesComplete=complete, StartTestWithLogSettings=start,
        ConstructSUT=lambda issue, flush: issue, ConstructQSL=lambda count, *rest: count,
        DestroySUT=lambda sut: None, DestroyQSL=lambda qsl: None, TestSettings=types.SimpleNamespace,
        LogSettings=lambda: types.SimpleNamespace(log_output=types.SimpleNamespace()),
        TestScenario=types.SimpleNamespace(Server="Server", Offline="Offline"),
        TestMode=types.SimpleNamespace(PerformanceOnly="PerformanceOnly"),
    )  # fmt: skip


@pytest.fixture
def run(monkeypatch):
    def run(plan: Plan):
        clock = Clock()
        monkeypatch.setattr(loadgen, "_module", lambda: simulated(clock))
        return run_loadgen(plan, OneWorker(clock), 4)

    return run


def served(run, throughput, load, queries=MIN_QUERIES["multi-stream"]):
    return run(Plan("server", 0, min_queries=queries, target_qps=load * throughput, bound_ms=BOUND_MS))


def test_a_server_holds_its_bound_below_its_throughput_and_not_above(run):
    offline = run(Plan("offline", 0, target_qps=50))
    throughput = offline.images / offline.seconds
    assert throughput == pytest.approx(1e9 / SERVICE_NS)
    below, above = served(run, throughput, 0.8), served(run, throughput, 1.2)
    assert below.verdict == "VALID" and not below.reasons
    assert np.quantile(below.latency_ns, 0.99) < BOUND_MS * 1e6
    assert above.verdict == "INVALID"
    assert above.reasons == (f"the 99th percentile is over the bound of {BOUND_MS:g} ms",)
    # Above its throughput a line grows by what comes too much, however long it goes on.
    twice = served(run, throughput, 1.2, 2 * MIN_QUERIES["multi-stream"])
    for outcome in (above, twice):
        grown = outcome.queries * SERVICE_NS * (1 - 1 / 1.2)
        assert outcome.latency_ns[-50:].mean() == pytest.approx(grown, rel=0.5)


@pytest.mark.slow
def test_latency_below_the_throughput_is_that_of_a_single_line(run):
    """Pollaczek and Khinchine, for one worker and the same time for all: the mean wait is rho s / 2 (1 - rho)."""
    for load in (0.2, 0.5, 0.8):
        latency = served(run, 1e9 / SERVICE_NS, load, 40_000).latency_ns
        assert latency.mean() == pytest.approx(SERVICE_NS * (1 + load / (2 * (1 - load))), rel=0.05)
