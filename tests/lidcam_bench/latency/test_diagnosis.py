"""Diagnoses in words, from made samples."""

from __future__ import annotations

import numpy as np
import pytest
from lidcam_bench.latency.diagnosis import diagnose_machine, diagnose_scenario
from lidcam_bench.latency.facts import Conditions, Floor, Rate
from lidcam_bench.latency.results import ScenarioResult, Stage
from lidcam_bench.latency.statistics import summarize

MS = 1e6


def samples(mean, n=5000, cv=0.01, seed=0):
    return (np.random.default_rng(seed).normal(mean, cv * mean, n) * MS).astype(np.int64)


def result(stages=None, *, scenario="single-stream", n=5000, cv=0.01, queue=None, conditions=None, network=None):
    """A result whose stages have these means in ms."""
    stages = {"decode": 1, "network": 10} if stages is None else stages
    total = sum(value for name, value in stages.items() if "/" not in name)
    made = {name: samples(value, n, cv) for name, value in stages.items()}
    if network is not None:
        made["network"] = network
    return ScenarioResult(
        scenario=scenario,
        verdict="VALID",
        queries=n,
        images=n,
        seconds=1.0,
        images_per_second=1.0,
        latency=summarize(samples(total, n, cv)),
        queue=None if queue is None else summarize(samples(queue, n, cv)),
        stages=tuple(
            Stage(name=name, summary=summarize(values), share_percent=100 * stages[name] / total)
            for name, values in made.items()
        ),
        conditions=conditions or Conditions(seconds=1.0),
    )


def kinds(found):
    return [finding.kind for finding in found]


@pytest.mark.parametrize(
    ("stages", "kind", "words"),
    [
        ({"decode": 6, "preprocess": 2, "network": 4}, "host-bound", "decode 50%, preprocess 17%"),
        ({"decode": 1, "network": 9, "boxes": 1}, "network-bound", "82% of the time is the network"),
        ({"decode": 1, "network": 4, "maps": 1, "crf": 10, "boxes": 1}, "post-processing-bound", "crf 59%"),
        ({"decode": 1, "network": 9, "network/CAM + PaS": 8, "boxes": 1}, "post-processing-bound", "CAM + PaS 73%"),
    ],
)
def test_where_the_time_goes(stages, kind, words):
    found = diagnose_scenario(result(stages), 50)
    assert kinds(found) == [kind] and words in found[0].text and found[0].level == "note"


def test_transfers_are_held_against_the_network_s_call():
    stages = {"decode": 6, "network": 4, "network/upload": 1, "network/graph": 2.5, "network/download": 0.5}
    found = {finding.kind: finding.text for finding in diagnose_scenario(result(stages), 50)}
    assert found["transfer-bound"].startswith("38% of the network call is copying") and "host-bound" in found


def test_a_run_with_nothing_to_say():
    assert diagnose_scenario(result({"decode": 4, "network": 4.5, "boxes": 1}), 50) == ()


@pytest.mark.parametrize(("n", "named"), [(100, "p99, p99.9"), (1000, "p99.9")])
def test_too_few_samples_name_the_percentiles(n, named):
    found = next(f for f in diagnose_scenario(result(n=n), 50) if f.kind == "too few samples")
    assert f"{n} samples do not bound {named}:" in found.text
    assert found.level == ("note" if named == "p99.9" else "warning")


def test_few_pictures():
    assert "few pictures" in kinds(diagnose_scenario(result(), 7))
    assert "1 distinct picture:" in diagnose_scenario(result(), 1)[-1].text


def test_instability_and_drift_are_those_of_the_network():
    shaky = diagnose_scenario(result(network=samples(10, cv=0.08)), 50)
    assert kinds(shaky)[0] == "unstable" and "vary by 8.0%" in shaky[0].text and shaky[0].level == "warning"
    rising = diagnose_scenario(result(network=(np.linspace(10, 11.5, 5000) * MS).astype(np.int64)), 50)
    assert "drifting" in kinds(rising)
    assert "took 11% longer" in next(f.text for f in rising if f.kind == "drifting")
    busy = result({"decode": 5, "network": 4}, scenario="server", network=samples(4, cv=0.5))
    assert "unstable" not in kinds(diagnose_scenario(busy, 50))  # calls compete there: it is no fault of the machine


def test_disturbed_by_others_and_by_the_hypervisor():
    seen = Conditions(seconds=1.0, others_percent=42.0, steal_percent=3.0)
    found = [f for f in diagnose_scenario(result(conditions=seen), 50) if f.kind == "disturbed"]
    assert ["42%" in found[0].text, "3%" in found[1].text, found[0].level] == [True, True, "warning"]


def test_throttled():
    seen = Conditions(seconds=1.0, clock_mhz=(2000, 2600, 3000), throttle=("temperature",), temperature_c=91)
    found = next(f for f in diagnose_scenario(result(conditions=seen), 50) if f.kind == "throttled")
    assert found.text == (
        "the clock was lowered: temperature, the processor's clock went from 3000 to 2000 MHz (91 degrees Celsius)"
    )
    steady = Conditions(seconds=1.0, clock_mhz=(2900, 2950, 3000))
    assert "throttled" not in kinds(diagnose_scenario(result(conditions=steady), 50))


def test_queueing():
    found = diagnose_scenario(result({"decode": 5, "network": 5}, scenario="server", queue=8), 50)
    assert "80% of their latency waiting" in next(f.text for f in found if f.kind == "queueing")


def test_warnings_come_first():
    seen = Conditions(seconds=1.0, others_percent=42.0)
    levels = [f.level for f in diagnose_scenario(result({"network": 9}, n=100, conditions=seen), 3)]
    assert levels == sorted(levels, reverse=True)


def floor(*values):
    return Floor(matrix=tuple(Rate(what=f"p{i}", threads=1, value=v, by="x") for i, v in enumerate(values)))


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [((100, 50), (98, 51), None), ((100, 50), (90, 45), "throttled"), ((100, 50), (90, 52), "unsteady machine"),
     ((100,), None, None)],
)  # fmt: skip
def test_a_floor_that_moved(before, after, kind):
    found = diagnose_machine(floor(*before), None if after is None else floor(*after))
    assert kinds(found) == ([kind] if kind else [])
    if kind:
        assert "p0 with 1 thread 100 before and 90 Gop/s after" in found[0].text
