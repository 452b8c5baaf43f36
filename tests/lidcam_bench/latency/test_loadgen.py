"""LoadGen itself, with systems that answer at once. Verdicts follow from counts and absurd bounds, never from speed."""

from __future__ import annotations

import json
import queue
import threading

import numpy as np
import pytest
from lidcam_bench.latency.loadgen import MIN_QUERIES, Outcome, Plan, Query, _reasons, read_trace, run_loadgen
from lidcam_bench.latency.statistics import summarize

from lidcam_rt.errors import InputError

pytest.importorskip("mlperf_loadgen")
HOUR_MS = 3.6e6


class AtOnce:
    """Answers each query inside `issue`."""

    def __init__(self) -> None:
        self.queries: list[Query] = []

    def issue(self, query, complete):
        self.queries.append(query)
        complete(query.ids)

    def flush(self):
        pass


class FromAThread(AtOnce):
    """Answers picture by picture from another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.todo: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        while True:
            complete, i = self.todo.get()
            complete([i])

    def issue(self, query, complete):
        self.queries.append(query)
        for i in query.ids:
            self.todo.put((complete, i))


def test_single_stream():
    system = AtOnce()
    found = run_loadgen(Plan("single-stream", 0, min_queries=64, percentile=90, expected_ms=0.1), system, 4)
    assert found.verdict == "VALID" and not found.reasons
    assert found.queries == found.images == len(found.latency_ns) == len(system.queries) >= 64
    assert [query.number for query in system.queries] == list(range(found.queries))
    assert {picture for query in system.queries for picture in query.pictures} <= set(range(4))
    assert found.seconds > 0 and (found.latency_ns > 0).all()
    assert found.settings["effective_scenario"] == "SingleStream" and found.settings["loadgen_version"]


def test_multi_stream_takes_a_query_s_last_picture():
    system = FromAThread()
    found = run_loadgen(Plan("multi-stream", 0, min_queries=70, images_per_query=3, expected_ms=0.1), system, 4)
    assert {len(query.pictures) for query in system.queries} == {3}
    assert found.images == 3 * found.queries == 3 * len(found.latency_ns)


@pytest.mark.slow
def test_too_few_samples_are_invalid():
    found = run_loadgen(Plan("multi-stream", 0, min_queries=100, expected_ms=0.1), AtOnce(), 4)
    assert found.queries < MIN_QUERIES["multi-stream"]
    assert found.verdict == "INVALID" and found.reasons[0].startswith("too few samples for the 99th percentile")
    cut = run_loadgen(Plan("single-stream", 0, 0.001, min_queries=10**6, expected_ms=0.1), AtOnce(), 4)
    assert cut.verdict == "INVALID" and cut.reasons[0] == "too few samples: fewer than 1000000 queries"


@pytest.mark.parametrize(("bound", "verdict"), [(HOUR_MS, "VALID"), (1e-5, "INVALID")])
def test_server(bound, verdict):
    plan = Plan("server", 0, min_queries=MIN_QUERIES["server"], target_qps=5000, bound_ms=bound)
    found = run_loadgen(plan, FromAThread(), 4)
    assert found.verdict == verdict
    assert found.reasons == (() if verdict == "VALID" else ("the 99th percentile is over the bound of 1e-05 ms",))


def test_offline_sends_all_at_once():
    system = FromAThread()
    found = run_loadgen(Plan("offline", 0, target_qps=100), system, 4)
    assert len(system.queries) == found.queries == 1
    assert found.images == len(system.queries[0].pictures) == len(found.latency_ns)


def test_the_same_pictures_at_every_run():
    runs = []
    for _ in range(2):
        system = AtOnce()
        run_loadgen(Plan("single-stream", 0, min_queries=64, percentile=90, expected_ms=0.1), system, 7)
        runs.append([query.pictures for query in system.queries[:64]])
    assert runs[0] == runs[1] and len(set(runs[0])) == 7


def test_an_error_of_the_system_comes_out_and_the_next_test_runs():
    class Failing(AtOnce):
        def issue(self, query, complete):
            raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError, match="broken"):
        run_loadgen(Plan("single-stream", 0, min_queries=64, expected_ms=0.1), Failing(), 4)
    assert run_loadgen(Plan("single-stream", 0, min_queries=64, percentile=90), AtOnce(), 4).verdict == "VALID"


def test_our_percentiles_are_loadgen_s():
    """Both from the same run: the p90 that LoadGen logs, and ours of its trace."""
    import lidcam_bench.latency.loadgen as module

    details = {}
    original = module.read_detail
    module.read_detail = lambda path: details.setdefault("log", original(path))
    try:
        found = run_loadgen(Plan("single-stream", 0, min_queries=500, percentile=90, expected_ms=0.1), AtOnce(), 4)
    finally:
        module.read_detail = original
    summary, log = summarize(found.latency_ns), details["log"]
    for p, key in (("p50", "50.00"), ("p90", "90.00"), ("p95", "95.00"), ("p99", "99.00"), ("p99.9", "99.90")):
        assert summary.percentiles[p].ms * 1e6 == pytest.approx(log[f"result_{key}_percentile_latency_ns"], abs=1)
    assert summary.mean_ms * 1e6 == pytest.approx(log["result_mean_latency_ns"], abs=1)


def test_trace_rows_are_sorted_and_exact():
    def event(query, sample, ts, delay, done):
        args = {"sample_seq": sample, "query_seq": query, "sample_idx": 0, "issue_start_ns": delay, "complete_ns": done}
        return json.dumps({"name": "Sample", "ph": "b", "ts": ts, "args": args}, separators=(",", ":")) + ","

    lines = ['{"traceEvents":[', event(1, 2, 30.5, 4, 70), event(0, 1, 10.0, 3, 60), event(0, 0, 10.0, 3, 50)]
    found = read_trace("\n".join([*lines, '{"name":"Sample","ph":"e","ts":1}']).encode())
    assert found.tolist() == [[0, 0, 3, 50, 10000], [0, 1, 3, 60, 10000], [1, 2, 4, 70, 30500]]
    assert found.dtype == np.int64 and read_trace(b"").shape == (0, 5)


def test_reasons_of_an_invalid_run_without_one():
    plan = Plan("single-stream", 1)
    assert _reasons(plan, {"result_validity": "INVALID"}) == ("LoadGen gives no reason",)
    assert _reasons(plan, {"result_validity": "INVALID", "result_min_duration_met": False}) == (
        "it ended before the minimum duration of 1 s",
    )


@pytest.mark.parametrize(
    "wrong", [{"scenario": "burst"}, {"scenario": "server"}, {"scenario": "offline"},
              {"scenario": "server", "target_qps": 5, "bound_ms": 0}]
)  # fmt: skip
def test_plans_that_make_no_sense(wrong):
    with pytest.raises(InputError):
        Plan(**{"seconds": 1, **wrong})


def test_an_outcome_is_unchangeable():
    found = Outcome("VALID", (), np.zeros(1, np.int64), np.zeros(1, np.int64), 1, 1, 1.0)
    with pytest.raises(AttributeError):
        found.verdict = "INVALID"
