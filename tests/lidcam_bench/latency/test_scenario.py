"""Targets, tasks and scenarios on the tiny artifact. LoadGen runs for a moment; nothing is judged by its speed."""

from __future__ import annotations

from pathlib import Path

import artifacts
import numpy as np
import pytest
from lidcam_bench.latency.facts import Split
from lidcam_bench.latency.scenario import Runner, Times, warm_up
from lidcam_bench.latency.stages import loose_stages, stages_of, with_split
from lidcam_bench.latency.target import Target, open_target
from lidcam_bench.latency.tasks import SCOPES, Tasks
from PIL import Image

from lidcam_rt.errors import InputError

pytest.importorskip("mlperf_loadgen")
HOUR_MS = 3.6e6
STEPS = ["decode", "preprocess", "network", "maps", "boxes", "rest"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("pictures")
    for colour in artifacts.CLASSES:
        Image.fromarray(artifacts.picture(colour)).save(folder / f"{colour}.png")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture
def runner(model, pictures):
    opened = []

    def make(scope="end-to-end", bound_ms=HOUR_MS, **options):
        target = Target(path=model, **options)
        opened.append(open_target(target))
        times = Times(seconds=0.05, max_seconds=300, bound_ms=bound_ms, single_ms=1.0)
        return Runner(Tasks(opened[-1], target, pictures, scope), times)

    yield make
    for localizer in opened:
        localizer.close()


def names(result):
    return [stage.name for stage in result.stages]


@pytest.mark.filterwarnings("error")
def test_single_stream(runner):
    result, arrays = runner().stream("single-stream", 1)
    assert result.verdict == "VALID" and result.images == result.queries == result.latency.n >= 64
    assert names(result) == STEPS
    assert sum(stage.share_percent for stage in result.stages) == pytest.approx(100, abs=0.1)
    for name in ("whole", "stage:decode", "stage:rest"):
        assert (name in arrays) == (name != "stage:rest")
    assert (arrays["latency"] >= arrays["whole"]).all() and (arrays["stage:network"] > 0).all()
    assert result.conditions.seconds > 0 and result.energy.reason
    assert result.settings["loadgen_version"]


@pytest.mark.slow
def test_multi_stream_with_a_crf(runner):
    result, _ = runner(batch=3, refine="psa").stream("multi-stream", 3)
    assert result.images == 3 * result.queries
    assert names(result) == ["decode", "preprocess", "network", "maps", "boxes", "crf", "rest"]


@pytest.mark.slow
def test_inference_alone(runner):
    result, _ = runner("inference").stream("single-stream", 1)
    assert names(result) == ["network", "rest"]
    offline, _ = runner("inference", batch=4).offline()
    assert names(offline) == ["network", "rest"] and offline.latency is None


def test_track1(runner):
    result, _ = runner(pipeline="track1").stream("single-stream", 1)
    assert "compose" in names(result)


@pytest.mark.slow
def test_offline_streams(runner):
    result, arrays = runner(batch=2).offline()
    assert result.queries == 1 and result.images == len(arrays["latency"]) > 1
    assert result.images_per_second > 0 and result.latency is None
    assert set(names(result)) == {"decode", "preprocess", "network", "maps", "boxes"}
    assert all("per call" in stage.derived for stage in result.stages)


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "verdict"), [(HOUR_MS, "VALID"), (1e-6, "INVALID")])
def test_server(runner, bound, verdict):
    result, arrays = runner(batch=4, bound_ms=bound).server(2000.0, 0.8)
    assert (result.verdict, result.bound_ms, result.target_qps, result.load) == (verdict, bound, 2000.0, 0.8)
    assert result.queue is not None and result.key == "server at 80%"
    assert (arrays["waited"] >= 0).all() and len(arrays["waited"]) == result.queries


def test_a_bound_follows_the_single_query(runner):
    result, _ = runner(bound_ms=None).server(2000.0, None)
    assert result.bound_ms == 10.0 and result.key == "server"


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_is_an_error(model):
    target = Target(path=model)
    with open_target(target) as localizer:
        tasks = Tasks(localizer, target, [b"\xff\xd8\xff\xe0"], "end-to-end")
        with pytest.raises(InputError):
            Runner(tasks, Times(0.05, 5, HOUR_MS, 1.0)).offline()


def test_warm_up_goes_on_until_the_time_is_over():
    now = [0]

    def call(number):
        now[0] += 400_000_000 if number == 0 else 200_000_000

    assert warm_up(call, 1.5, clock=lambda: now[0]) == (400, 200, 200, 200, 200, 200, 200)
    assert len(warm_up(call, 0, clock=lambda: now[0])) == 5


def test_keys_say_what_was_asked_for():
    assert Target(path=Path("a/m.onnx")).key == "m.onnx"
    full = Target(path=Path("m.onnx"), engine="openvino", precision="bf16", device="cpu", threads=1, batch=8,
                  refine="psa", pipeline="track1")  # fmt: skip
    assert full.key == "m.onnx, openvino, bf16, cpu, 1 thread, batch 8, CRF psa, Track 1"


def test_engines_that_do_not_go_with_a_file(model, tmp_path):
    with pytest.raises(InputError, match="give the artifact's checkpoint folder"):
        open_target(Target(path=model, engine="torch-compile"))
    with pytest.raises(InputError, match="a checkpoint runs on pytorch or torch-compile"):
        open_target(Target(path=tmp_path, engine="onnxruntime"))
    with pytest.raises(InputError, match="checkpoints run in fp32"):
        open_target(Target(path=tmp_path, precision="int8"))


def test_scopes_say_what_is_not_in_them():
    assert all("Not in it:" in text for text in SCOPES.values())


def test_stages_of_made_samples():
    arrays = {
        "whole": np.array([100, 200, -1]), "stage:network": np.array([60, 80, -1]),
        "stage:network/upload": np.array([10, 10, -1]), "stage:crf": np.array([-1, 60, -1]),
    }  # fmt: skip
    found = {stage.name: stage for stage in stages_of(arrays)}
    assert {name: round(stage.share_percent, 1) for name, stage in found.items()} == {
        "network": 46.7, "network/upload": 6.7, "crf": 20.0, "rest": 33.3,
    }  # fmt: skip
    assert found["crf"].summary.n == 1 and found["rest"].summary.mean_ms == pytest.approx(50e-6)
    assert stages_of({"latency": np.array([1])}) == ()


def test_the_engine_s_split_divides_the_network(runner):
    split = Split(shares_percent={"network": 90.0, "CAM + PaS": 10.0}, source="ONNX Runtime's profile, 10 calls")
    stages = stages_of({"whole": np.array([100, 120]), "stage:network": np.array([50, 60])})
    found = {stage.name: stage for stage in with_split(stages, split)}
    assert list(found) == ["network", "network/network", "network/CAM + PaS", "rest"]
    part = found["network/CAM + PaS"]
    assert part.summary.mean_ms == pytest.approx(5.5e-6) and part.share_percent == pytest.approx(5)
    assert part.summary.median_ms == pytest.approx(6e-6) and "10.0% of the call" in part.derived
    told = stages_of({"whole": np.array([9]), "stage:network": np.array([8]), "stage:network/graph": np.array([7])})
    assert with_split(told, split) == told


def test_steps_of_no_query_share_the_time_of_all_steps():
    found = loose_stages({"decode": [10, 20], "network": [70], "network/graph": [60]})
    assert [(stage.name, stage.share_percent) for stage in found] == [
        ("decode", 30), ("network", 70), ("network/graph", 60),
    ]  # fmt: skip
