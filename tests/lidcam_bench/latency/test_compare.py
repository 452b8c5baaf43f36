"""Comparison of two reports: a planted slowdown is found, blamed on its stage, and nothing else is."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from lidcam_bench.latency.blame import blame, blame_text, stage_changes
from lidcam_bench.latency.compare import Bound, compare_results, parse_bound
from lidcam_bench.latency.facts import Floor, Split
from lidcam_bench.latency.results import load_results, load_samples, save_samples

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


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "bound"), [("network", "p50:5%"), ("crf", "p90:2%"), ("network", "p99:2%")])
def test_a_bound_on_the_latency_names_the_stage(tmp_path, stage, bound):
    found = compared(tmp_path, made.samples(n=3000, seed=1), made.samples(n=3000, seed=2, slower={stage: 1.1}), bound)
    entry = change(found, bound.split(":")[0])
    assert entry.state == "beyond" and entry.text.startswith(f"{stage} went from "), entry


@pytest.mark.slow
def test_nothing_planted_nothing_found(tmp_path):
    alarms = 0
    for seed in range(20):
        changes = stage_changes(made.samples(seed=100 + seed), made.samples(seed=200 + seed))
        alarms += sum(entry.slower for entry in changes)
    assert alarms <= 12  # of 140, at 2.5% each
    found = compared(tmp_path, made.samples(seed=1), made.samples(seed=2), "p50:5%", "p99:10%", "crf:5%")
    assert found.state == "within" and not found.notes


@pytest.mark.slow
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


@pytest.mark.parametrize("text", ["p99", "p99:", "p99:x%", ":5%", "p99:-5%", "p99:1e400", "p99:nan", "p99:5% ms", ""])
def test_bounds_that_are_none(text):
    with pytest.raises(InputError, match="a bound must be NAME:NUMBER"):
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
    with pytest.raises(InputError, match="has schema 99, but this lidcam_rt reads up to 1"):
        load_results(path)
    path.write_text('{"schema_version": 1, "benchmarks": []}')
    with pytest.raises(InputError, match="is not a result of `lidcam bench`"):
        load_results(path)
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="raw samples cannot be read"):
        load_samples(tmp_path / "x.npz")


def edited(path, change):
    """The same report after a change of its JSON."""
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))
    return path


def percentile_of(report, name="p99"):
    return report["runs"][0]["scenarios"][0]["latency"]["percentiles"][name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: percentile_of(r).update(ms=math.nan), r"p99\.ms: Input should be a finite number"),
        (lambda r: percentile_of(r).update(ms=math.inf), r"p99\.ms: Input should be a finite number"),
        (lambda r: percentile_of(r).update(ms=-1.0), r"p99\.ms: Input should be greater"),
        (lambda r: r["runs"][0]["scenarios"][0]["latency"]["percentiles"].pop("p99"), "p99 missing"),
        (lambda r: r["runs"][0].update(accuracy={"scores": {"miou": math.nan}}), r"scores\.miou: .* finite number"),
        (lambda r: r.update(schema_version="99"), "schema_version: Input should be a valid integer"),
        (lambda r: r.update(schema_version=1.0), "schema_version: Input should be a valid integer"),
    ],
)  # fmt: skip
def test_a_report_with_impossible_values_is_refused(tmp_path, change, message):
    """A comparison with NaN is never beyond a bound: it must not pass as one that is kept."""
    path = edited(made.saved(tmp_path, made.samples(n=50)), change)
    with pytest.raises(InputError, match=message):
        load_results(path)


def broken_archives():
    def cut(path):
        path.write_bytes(path.read_bytes()[:500])

    def zeros(path):
        content = bytearray(path.read_bytes())
        content[200:260] = bytes(60)
        path.write_bytes(content)

    def one_array(path):
        with path.open("wb") as file:
            np.save(file, np.arange(3))

    yield from (("cut", cut), ("zeros", zeros), ("one array", one_array), ("text", lambda path: path.write_text("x")))
    for name, arrays in (
        ("no latency", {"whole": np.arange(3)}), ("no rows", {"latency": np.zeros(0, np.int64)}),
        ("not a number", {"latency": np.full(3, math.nan)}), ("words", {"latency": np.array(["a"])}),
        ("other lengths", {"latency": np.arange(3), "whole": np.arange(4)}),
        ("a table", {"latency": np.zeros((2, 2), np.int64)}),
    ):  # fmt: skip
        yield name, lambda path, arrays=arrays: np.savez(path, **arrays)


@pytest.mark.parametrize(("name", "damage"), [pytest.param(*entry, id=entry[0]) for entry in broken_archives()])
def test_damaged_samples_are_named(tmp_path, name, damage):
    one = made.saved(tmp_path / "a", made.samples(n=50))
    two = made.saved(tmp_path / "b", made.samples(n=50))
    damage(tmp_path / "b" / "samples" / "0.npz")
    with pytest.raises(InputError, match=r"b/samples/0.npz: raw samples cannot be read: .*Keep the folder"):
        compare_results(one, two)


@pytest.mark.parametrize("other", [{"n": 60}, {"seed": 9}])
def test_samples_of_another_measurement_are_refused(tmp_path, other):
    """As after a run into the same folder that was interrupted before its report."""
    one = made.saved(tmp_path / "a", made.samples(n=50))
    two = made.saved(tmp_path / "b", made.samples(n=50))
    save_samples(tmp_path / "b" / "samples" / "0.npz", made.samples(**({"n": 50} | other)))
    with pytest.raises(InputError, match=r"are of another measurement than results\.json"):
        compare_results(one, two)


def test_two_bounds_of_one_quantity_are_refused(tmp_path):
    arrays = made.samples(n=50)
    with pytest.raises(InputError, match="p99 has two bounds"):
        compared(tmp_path, arrays, arrays, "p99:50%", "p99:1%")


@pytest.mark.parametrize("how", ["failed", "missing", "no score", "no scenario"])
def test_a_bound_that_can_no_longer_be_held_is_no_success(tmp_path, how):
    """A variant that does not run any more must not pass for one that is as fast as before."""
    arrays = made.samples(n=400)
    score = made.accuracy(miou=0.5)
    runs = [made.run(arrays, key=key, accuracy=score) for key in ("m.onnx", "m.onnx, CRF psa")]
    one = made.saved(tmp_path / "a", arrays, made=made.results(*runs))
    less = {
        "failed": [runs[0], runs[1].model_copy(update={"error": "no memory", "scenarios": (), "accuracy": None})],
        "missing": runs[:1],
        "no score": [runs[0], runs[1].model_copy(update={"accuracy": None})],
        "no scenario": [runs[0], runs[1].model_copy(update={"scenarios": ()})],
    }[how]
    two = made.saved(tmp_path / "b", arrays, made=made.results(*less))
    found = compare_results(one, two, [parse_bound("p50:5%"), parse_bound("miou:0.005")])
    wanted = {"miou:0.005"} if how == "no score" else {"p50:5%"} if how == "no scenario" else {"p50:5%", "miou:0.005"}
    assert found.state == "undecided"
    assert {text.split("file only, so ")[1].split(" is")[0] for text in found.unheld} == wanted
    assert all(text.startswith("m.onnx, CRF psa") for text in found.unheld)
    assert compare_results(two, one, [parse_bound("p50:5%")]).state == "within"  # more than before is no fault


def test_without_raw_samples_intervals_that_meet_settle_nothing(tmp_path):
    one = made.saved(tmp_path / "a", made.samples(seed=1, n=100))
    two = made.saved(tmp_path / "b", made.samples(seed=2, n=100, slower=dict.fromkeys(made.STAGES, 1.005)))
    (tmp_path / "b" / "samples" / "0.npz").unlink()
    found = compare_results(one, two, [parse_bound("p50:0.01%")])
    assert change(found, "p50").state == "undecided" and "the two intervals overlap" in change(found, "p50").text
    assert any("the raw samples of the second file are missing" in note for note in found.notes)


def test_a_stage_that_was_not_there_has_no_ratio(tmp_path):
    without = {name: ms for name, ms in made.STAGES.items() if name != "crf"}
    found = compared(tmp_path, made.samples(without, n=400), made.samples(n=400), "crf:5%", "p50:5%")
    crf = change(found, "crf")
    assert (crf.state, crf.ratio, crf.percent) == ("beyond", None, None)
    assert crf.text == "the first file has no such stage"
    assert "ms (it was not there before)" in change(found, "p50").text


def test_throughput_that_chance_explains_is_undecided(tmp_path):
    noisy = [made.samples(seed=seed, n=80, cv=0.3) for seed in (1, 3)]
    found = compared(tmp_path, *noisy, "throughput:0.001%")
    back = compared(tmp_path, *noisy[::-1], "throughput:0.001%")
    assert {change(entry, "throughput").state for entry in (found, back)} == {"within", "undecided"}


def test_offline_throughput_has_an_interval(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for name, factor in (("a", 1.0), ("b", 1.1)):
        times = np.cumsum(rng.gamma(20, factor * 1e6, 500)).astype(np.int64)
        offline = made.scenario({"latency": times}, "0.npz", kind="offline", queries=1, stages=()).model_copy(
            update={"latency": None, "images": 500, "images_per_second": 500e9 / times[-1]}
        )
        run = made.run({"latency": times}, scenarios=(offline,))
        files.append(made.saved(tmp_path / name, {"latency": times}, made=made.results(run)))
    found = change(compare_results(*files, [parse_bound("throughput:2%")]), "throughput")
    assert found.state == "beyond" and found.ratio.low < 1 / 1.1 < found.ratio.high


def test_pictures_are_the_same_by_their_contents(tmp_path):
    arrays = made.samples(n=50)
    images = [{"folder": "a", "count": 4, "sha256": "1"}, {"folder": "b", "count": 4, "sha256": "1"},
              {"folder": "b", "count": 4, "sha256": "2"}]  # fmt: skip
    files = [made.saved(tmp_path / str(i), arrays, made=made.results(made.run(arrays), images=entry))
             for i, entry in enumerate(images)]  # fmt: skip
    assert not compare_results(files[0], files[1]).notes
    assert "different pictures" in compare_results(files[0], files[2]).notes


def test_results_come_back_as_they_were_saved(tmp_path):
    arrays = made.samples(n=50)
    path = made.saved(tmp_path, arrays)
    assert load_results(path) == made.results(made.run(arrays))
    assert all((load_samples(tmp_path / "samples" / "0.npz")[name] == arrays[name]).all() for name in arrays)
