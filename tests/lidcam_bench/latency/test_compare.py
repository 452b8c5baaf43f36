"""Comparison of two reports: a planted slowdown is found, blamed on its stage, and nothing else is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from lidcam_bench.latency.blame import blame, blame_text, stage_changes
from lidcam_bench.latency.compare import Bound, compare_results, parse_bound
from lidcam_bench.latency.facts import Floor, Split
from lidcam_bench.latency.results import load_results, load_samples

from lidcam_rt.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import made


def compared(tmp_path, first, second, *bounds, before=None, after=None):
    one = made.saved(tmp_path / "a", first, **(before or {}))
    two = made.saved(tmp_path / "b", second, **(after or {}))
    return compare_results(one, two, [parse_bound(bound) for bound in bounds])


def change(found, name):
    return next(entry for entry in found.changes if entry.name == name)


@pytest.mark.parametrize("stage", list(made.STAGES))
def test_ten_percent_in_one_stage_are_found_and_blamed_on_it(tmp_path, stage):
    first, second = made.samples(seed=1), made.samples(seed=2, slower={stage: 1.1})
    found = compared(tmp_path, first, second, f"{stage}:5%")
    assert found.state == "beyond" and change(found, stage).state == "beyond"
    culprit = blame(stage_changes(first, second))
    assert culprit.name == stage and culprit.ratio.low < 1.1 < culprit.ratio.high
    assert [entry.name for entry in stage_changes(first, second) if entry.slower] == [stage]


@pytest.mark.parametrize(("stage", "bound"), [("network", "p50:5%"), ("crf", "p90:2%"), ("network", "p99:2%")])
def test_a_bound_on_the_latency_names_the_stage(tmp_path, stage, bound):
    found = compared(tmp_path, made.samples(n=3000, seed=1), made.samples(n=3000, seed=2, slower={stage: 1.1}), bound)
    entry = change(found, bound.split(":")[0])
    assert entry.state == "beyond" and entry.text.startswith(f"{stage} went from "), entry


def test_nothing_planted_nothing_found(tmp_path):
    alarms = 0
    for seed in range(20):
        changes = stage_changes(made.samples(seed=100 + seed), made.samples(seed=200 + seed))
        alarms += sum(entry.slower for entry in changes)
    assert alarms <= 12  # of 140, at 2.5% each
    found = compared(tmp_path, made.samples(seed=1), made.samples(seed=2), "p50:5%", "p99:10%", "crf:5%")
    assert found.state == "within" and not found.notes


def test_a_slowdown_of_the_tail_is_blamed_on_what_is_slow_there(tmp_path):
    """One query in twelve waits in decoding: the median does not move, the p95 does."""
    first, second = made.samples(n=3000, seed=1, outliers=0), made.samples(n=3000, seed=2, outliers=0)
    held = np.random.default_rng(0).random(3000) < 1 / 12
    for name in ("stage:decode", "whole", "latency"):
        second[name] = second[name] + 30 * made.MS * held
    found = compared(tmp_path, first, second, "p50:5%", "p95:5%")
    assert change(found, "p50").state == "within" and change(found, "p95").state == "beyond"
    assert change(found, "p95").text.startswith("decode went from ")


def test_a_slower_machine_is_not_blamed_on_a_stage(tmp_path):
    every = dict.fromkeys(made.STAGES, 1.1)
    first, second = made.samples(seed=1), made.samples(seed=2, slower=every)
    slow = {"made": made.results(made.run(second), floor=made.floor(180.0))}
    found = compared(tmp_path, first, second, "p50:5%", after=slow)
    text = change(found, "p50").text
    assert text.startswith("all stages became slower by about the same ratio") and "matrix rate is -10.0%" in text


def test_a_change_that_the_samples_do_not_settle_is_undecided(tmp_path):
    """A p99 of 40 samples is their slowest: twice as slow says nothing. A median may move by chance."""
    first, second = made.samples(n=40, seed=1, outliers=0), made.samples(n=40, seed=2, outliers=0)
    second["latency"][7] *= 2
    found = compared(tmp_path, first, second, "p99:5%")
    assert found.state == change(found, "p99").state == "undecided"
    assert change(found, "p99").text == "there are too few samples to bound the p99: measure longer"
    wild = [made.samples(n=80, cv=0.5, seed=seed) for seed in (1, 2)]
    wild.sort(key=lambda arrays: np.median(arrays["latency"]))
    found = compared(tmp_path, *wild, "p50:0.01%")
    assert found.state == "undecided" and "the samples do not settle it (95% interval -" in change(found, "p50").text


def test_the_parts_of_the_network_are_told(tmp_path):
    splits = [Split(shares_percent={"network": 100 - x, "CAM + PaS": x}) for x in (8.0, 16.4)]
    changes = stage_changes(made.samples(seed=1), made.samples(seed=2, slower={"network": 1.1}))
    assert blame_text(changes, tuple(splits)).endswith("inside it CAM + PaS went from 8.0% to 16.4% of the call")


def test_a_stage_that_appears_and_one_that_disappears(tmp_path):
    without = {name: value for name, value in made.STAGES.items() if name != "crf"}
    first, second = made.samples(without, seed=1), made.samples(seed=2)
    assert blame(stage_changes(first, second)).name == "crf"
    back = {entry.name: entry for entry in stage_changes(second, first)}
    assert back["crf"].after_ms == 0 and blame(stage_changes(second, first)) is None


def test_accuracy_memory_and_start_have_their_direction(tmp_path):
    arrays = made.samples()
    first, second = made.accuracy(miou=0.61, top1_cls=70.0), made.accuracy(miou=0.60, top1_cls=71.0)
    bounds = ("miou:0.005", "top1_cls:0.5", "memory:1%", "cold_start:1%", "throughput:1%")
    found = compared(tmp_path, arrays, arrays, *bounds, before={"accuracy": first}, after={"accuracy": second})
    states = {entry.name: entry.state for entry in found.changes if entry.bound}
    assert states == {"miou": "beyond", "top1_cls": "within", "memory": "within", "cold_start": "within",
                      "throughput": "within"}  # fmt: skip
    assert change(found, "miou").text == "the model's results changed"


def test_throughput_that_falls(tmp_path):
    arrays = made.samples()
    slow = made.run(arrays)
    fewer = slow.scenarios[0].model_copy(update={"images_per_second": slow.scenarios[0].images_per_second * 0.8})
    found = compared(tmp_path, arrays, arrays, "throughput:5%",
                     after={"made": made.results(slow.model_copy(update={"scenarios": (fewer,)}))})  # fmt: skip
    assert change(found, "throughput").state == "beyond"


def test_variants_are_matched_by_what_was_asked_for(tmp_path):
    arrays = made.samples()
    first = made.results(made.run(arrays, key="m, a"), made.run(arrays, key="m, b"))
    second = made.results(made.run(arrays, key="m, b"), made.run(arrays, key="m, c"))
    found = compared(tmp_path, arrays, arrays, before={"made": first}, after={"made": second})
    assert {entry.where for entry in found.changes} == {"m, b", "m, b, single-stream"}
    assert "m, a is in one file only" in found.notes and "m, c is in one file only" in found.notes
    alone = made.results(made.run(arrays, key="m, d"))
    two = compared(tmp_path, arrays, arrays, before={"made": alone})  # one variant each: compared whatever it is
    assert two.changes and "two different variants are compared: m, d and m.onnx" in two.notes
    third = made.results(made.run(arrays, key="m, x"), made.run(arrays, key="m, y"))
    with pytest.raises(InputError, match="no variant in common: m, a, m, b; and m, x, m, y"):
        compared(tmp_path, arrays, arrays, before={"made": first}, after={"made": third})


def test_doubts_are_told(tmp_path):
    arrays = made.samples()
    other = made.results(made.run(arrays), machine=made.machine(name="Other"), scope="inference", images={"count": 2},
                         floor=Floor())  # fmt: skip
    notes = compared(tmp_path, arrays, arrays, after={"made": other}).notes
    assert [note.split(":")[0] for note in notes] == ["different machines", "different scopes", "different pictures"]


def test_without_raw_samples_the_numbers_are_compared_alone(tmp_path):
    one = made.saved(tmp_path / "a", made.samples(seed=1))
    two = made.saved(tmp_path / "b", made.samples(seed=2, slower={"network": 1.2}))
    (tmp_path / "b" / "samples" / "0.npz").unlink()
    found = compare_results(one, two, [parse_bound("p50:5%")])
    assert found.state == "beyond" and change(found, "p50").ratio is None
    assert change(found, "p50").text == "there are no raw samples of stages to blame"


@pytest.mark.parametrize(
    ("text", "bound"),
    [("p99:5%", Bound("p99", 0.05, True)), ("miou:0.005", Bound("miou", 0.005, False)),
     ("p99.9:2ms", Bound("p99.9", 2.0, False)), ("network/CAM + PaS:10%", Bound("network/CAM + PaS", 0.1, True))],
)  # fmt: skip
def test_bounds(text, bound):
    assert parse_bound(text) == bound


@pytest.mark.parametrize("text", ["p99", "p99:", "p99:x%", ":5%", "p99:-5%", ""])
def test_bounds_that_are_none(text):
    with pytest.raises(InputError, match="a bound is NAME:NUMBER"):
        parse_bound(text)


def test_a_bound_on_something_unknown_is_an_error(tmp_path):
    arrays = made.samples()
    with pytest.raises(InputError, match=r"nothing called p98 .* there are .*boxes, cold_start, crf, decode"):
        compared(tmp_path, arrays, arrays, "p98:5%")


def test_files_that_are_no_results(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(InputError, match="cannot be read"):
        load_results(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_results(path)
    path.write_text('{"schema_version": 99}')
    with pytest.raises(InputError, match="has schema 99, this lidcam_rt reads up to 1"):
        load_results(path)
    path.write_text('{"schema_version": 1, "benchmarks": []}')
    with pytest.raises(InputError, match="is not a result of `lidcam bench`"):
        load_results(path)
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="raw samples cannot be read"):
        load_samples(tmp_path / "x.npz")


def test_results_come_back_as_they_were_saved(tmp_path):
    arrays = made.samples(n=50)
    path = made.saved(tmp_path, arrays)
    assert load_results(path) == made.results(made.run(arrays))
    assert all((load_samples(tmp_path / "samples" / "0.npz")[name] == arrays[name]).all() for name in arrays)
