"""The floor: rates from a clock that moves when told to, merging, and the network held against it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from lidcam_bench.latency import floor as module
from lidcam_bench.latency.facts import Floor, Rate
from lidcam_bench.latency.floor import best_of, best_rate, main, measure_floor, measure_gpu, measure_here, merge
from lidcam_bench.latency.work import against_floor

from lidcam_rt.errors import LidcamError


def test_the_fastest_call_counts_and_the_first_does_not():
    durations, now = iter([0.001, 5.0, 2.0, 4.0, 3.0, 3.0]), [0.0]
    calls = []

    def call():
        calls.append(1)
        now[0] += next(durations)

    assert best_rate(10.0, call, 10.0, clock=lambda: now[0]) == 5.0
    assert len(calls) == 4  # one to warm up, then 5 + 2 + 4 seconds


def rate(what, threads, value=1.0):
    return Rate(what=what, threads=threads, value=value, by="test 1")


def test_floors_of_several_thread_counts_are_one():
    one = Floor(matrix=(rate("fp32", 1),), bandwidth=(rate("copy", 1),), missing={"int8": "a", "bf16": "b"})
    two = Floor(matrix=(rate("fp32", 2), rate("int8", 2)), bandwidth=(rate("copy", 2),), missing={"bf16": "b"})
    both = merge([one, two, Floor(launch_us=2.5)])
    assert both.rate("fp32", 2) == rate("fp32", 2) and both.rate("fp32", 4) is None
    assert [entry.threads for entry in both.bandwidth] == [1, 2]
    assert both.missing == {"bf16": "b"} and both.launch_us == 2.5


def test_a_ceiling_is_the_higher_of_two_measurements():
    before = Floor(matrix=(rate("fp32", 1, 5.0), rate("int8", 1, 9.0)), bandwidth=(rate("copy", 1),))
    after = Floor(matrix=(rate("fp32", 1, 7.0), rate("int8", 1, 8.0)))
    assert [entry.value for entry in best_of(before, after).matrix] == [7.0, 9.0]
    assert best_of(before, None) is before


def test_the_best_library_counts_and_a_failure_is_told(monkeypatch):
    def broken(precision, threads):
        raise RuntimeError("no such instruction\nsecond line")

    rates = iter([7.0, 9.0])
    monkeypatch.setattr(module, "best_rate", lambda work, call, seconds: next(rates))
    monkeypatch.setattr(module, "_copy_rate", lambda threads, seconds: 3.0)
    monkeypatch.setattr(module, "_LIBRARIES", {
        "slow": ("numpy", lambda p, t: (lambda: None) if p == "fp32" else None),
        "fast": ("numpy", lambda p, t: (lambda: None) if p == "fp32" else None),
        "broken": ("numpy", lambda p, t: broken(p, t) if p == "int8" else None),
    })  # fmt: skip
    found = measure_here(2, 0.1)
    assert [(entry.what, entry.threads, entry.value) for entry in found.matrix] == [("fp32", 2, 9.0)]
    assert found.matrix[0].by.startswith("fast ") and found.bandwidth[0].value == 3.0
    assert found.missing["int8"] == "broken: no such instruction" and "openvino or torch" in found.missing["bf16"]


@pytest.mark.parametrize("name", ["numpy", "onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_every_library_s_product_runs(name, precision, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setattr(module, "_SIDE", 64)
    call = module._LIBRARIES[name][1](precision, 1)
    if call is not None:
        call()


def test_as_a_program_it_prints_one_line(monkeypatch, capsys):
    monkeypatch.setattr(module, "measure_here", lambda count, seconds: Floor(matrix=(rate("fp32", count, seconds),)))
    main(["--threads", "3", "--seconds", "0.25"])
    assert Floor.model_validate(json.loads(capsys.readouterr().out)).rate("fp32", 3).value == 0.25


def test_a_measuring_process_that_fails_is_named(monkeypatch):
    done = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nMemoryError: no room\n")
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: done)
    with pytest.raises(LidcamError, match="MemoryError: no room"):
        measure_floor([1])


def test_each_thread_count_gets_a_process_limited_to_it(monkeypatch):
    seen = []

    def run(command, **options):
        seen.append((command[3:5], options["env"].get("OMP_NUM_THREADS")))
        return SimpleNamespace(returncode=0, stdout="noise\n" + Floor().model_dump_json(), stderr="")

    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.setattr(module.subprocess, "run", run)
    measure_floor([2, 1, 2], gpu=True)
    assert seen == [(["--threads", "1"], "1"), (["--threads", "2"], "2"), (["--gpu", "--seconds"], "9")]


def test_no_gpu():
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    assert measure_gpu(0.1, torch).missing == {"GPU": "torch finds no GPU"}


def test_the_network_against_the_floor():
    floor = Floor(matrix=(rate("fp32", 2, 200.0),), missing={"bf16": "needs torch"})
    found = against_floor(4e9, "", 40.0, "fp32", 2, floor)
    assert (found.gigaflop, found.floor_ms, found.reached_percent) == (4.0, 20.0, 50.0)
    assert found.against == "200 Gop/s in fp32 with 2 threads (test 1)"
    assert against_floor(4e9, "", None, "fp32", 2, floor).reached_percent is None
    assert against_floor(4e9, "", 40.0, "bf16", 2, floor).reason == "no floor: needs torch"
    assert against_floor(None, "an engine", 40.0, "fp32", 2, floor).reason == "an engine"
