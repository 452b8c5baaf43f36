"""The GPU check without a GPU: it runs to its end and says why; its comparisons and timers on stand-ins."""

import contextlib
import json
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))

import nvimgcodec_standin  # noqa: E402
import tensorrt_standin  # noqa: E402

from benchmarks import gpu_check  # noqa: E402
from benchmarks.gpu import agreement, build, crf, decoding, device, engines, peers, report, speed, threads  # noqa: E402
from lidcam_rt.backends.cuda_runtime import CudaRuntime  # noqa: E402
from lidcam_rt.pas import PasOptions, pas, resize_reference  # noqa: E402

torch = pytest.importorskip("torch")


@pytest.fixture
def rehearsal():
    opened = device.CpuRehearsal()
    with opened.kernels():
        yield opened


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_every_part_says_why(tmp_path):
    output = tmp_path / "r.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "exit 2" in done.stdout, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    written = json.loads(output.read_text())
    assert written["device"] is None and written["exit_status"] == 2 and written["packages"]["torch"]
    parts = {part["part"]: part for part in written["parts"]}
    assert len(parts) == 20 and {part["state"] for part in parts.values()} == {"not run"}
    assert "finds no CUDA device" in parts["device"]["reason"]
    assert all("finds no CUDA device" in p["reason"] for n, p in parts.items() if n not in ("build", "device"))
    assert str(ROOT) not in output.read_text()


def test_the_parts_asked_for_bring_what_they_need():
    names = tuple(gpu_check.Check(gpu_check.arguments([]), Path()).parts())
    assert gpu_check.choose(names, "", "") == names
    assert gpu_check.choose(names, "time-pas, crf", "") == ("device", "build", "crf", "ceilings", "time-pas")
    assert gpu_check.choose(names, "onnxruntime", "") == ("device", "build", "artifact", "onnxruntime")
    assert "crf" not in gpu_check.choose(names, "", "crf") and len(gpu_check.choose(names, "", "crf")) == len(names) - 1
    with pytest.raises(SystemExit, match="no part is called psa: the parts are device, build, pas"):
        gpu_check.choose(names, "pas,psa", "")


def test_the_file_is_written_after_every_part(tmp_path, monkeypatch):
    """A run that is cut off keeps what it measured, in the folder given, under the device's name once it is known."""
    seen = []

    def stop(self, data):
        seen.extend(sorted(path.name for path in tmp_path.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_check.Check, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        gpu_check.main(["--rehearse", "--quick", "--only", "boxes,ceilings", "--output", str(tmp_path)])
    (name,) = set(seen)
    assert name.startswith("gpu_rehearsal-on-the-cpu_") and [path.name for path in tmp_path.iterdir()] == [name]
    parts = json.loads((tmp_path / name).read_text())["parts"]
    assert [part["part"] for part in parts] == ["device", "build", "box kernel equals the reference"]


def test_a_machine_without_git(monkeypatch):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: None)
    found = gpu_check.facts(gpu_check.datetime.date(2026, 1, 2))
    assert found["date"] == "2026-01-02" and "commit" not in found


@pytest.mark.slow
def test_where_the_nodes_ran_is_read_from_the_profile(resnet10):
    import onnxruntime as ort

    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.pas import ops_library

    found = engines.where_nodes_ran(ort, resnet10, read_manifest(resnet10), "cpu")
    assert found["nodes by provider"]["CPUExecutionProvider"] > 20 and found["memory copies"] == {}
    expected = ["CPUExecutionProvider"] if ops_library() else "its body's operators"
    assert found["PaS ran on"] == expected


@pytest.mark.parametrize("arguments", [["--rehearse"], []])
def test_a_run_that_saw_no_gpu_leaves_no_file(monkeypatch, arguments):
    monkeypatch.setattr(gpu_check.Check, "run", lambda self: self.report.run("device", self.find_device))
    results = sorted((ROOT / "benchmarks" / "results").iterdir())
    gpu_check.main(arguments)
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == results or torch.cuda.is_available()


@pytest.mark.slow
def test_a_rehearsal_runs_all_that_a_cpu_can(tmp_path, resnet10, capsys):
    output = tmp_path / "r.json"
    status = gpu_check.main(["--rehearse", "--quick", "--artifact", str(resnet10), "--output", str(output)])
    parts = {part["part"]: part for part in json.loads(output.read_text())["parts"]}
    ran = {name for name, part in parts.items() if part["state"] == "ok"}
    assert status == 2 and ran == {
        "device", "PaS kernel equals the reference", "box kernel equals the reference",
        "box kernel at picture size", "dense CRF kernel", "bandwidth and launch", "time of PaS", "time of boxes",
        "artifact", "ONNX Runtime, CUDA provider", "lidcam bench",
    }, capsys.readouterr().out  # fmt: skip
    measured = parts["lidcam bench"]["data"]["variants"]["resnet10t.onnx, cpu"]
    assert measured["device"] == "cpu" and set(measured["scenarios"]) == {"single-stream", "offline"}
    single = measured["scenarios"]["single-stream"]
    assert single["p50_ms"] > 0 and single["stages_ms"]["network"] > 0 and single["verdict"] == "VALID"
    row = parts["time of PaS"]["data"]["rows"][0]
    assert row["floor_us"] > 0 and row["over the floor"] > 0
    assert {"ours, graph", "ours, launched", "PyTorch kthvalue, graph", "PyTorch histc, launched"} <= set(
        row["microseconds"]
    )
    assert "CuPy, launched" in row["could not run"] or "CuPy, launched" in row["microseconds"]


@pytest.fixture
def codec(monkeypatch):
    """The stand-in for nvImageCodec in its place."""
    found = nvimgcodec_standin.module()
    monkeypatch.setitem(sys.modules, "nvidia", types.ModuleType("nvidia"))
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", found)
    return found


@pytest.mark.slow
def test_decoding_says_what_it_lacks(tmp_path, resnet10, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    output = tmp_path / "r.json"
    command = ["--rehearse", "--quick", "--only", "decoding", "--artifact", str(resnet10), "--output", str(output)]
    assert gpu_check.main(command) == 2
    part = json.loads(output.read_text())["parts"][-1]
    assert part["state"] == "not run" and "pip install 'lidcam-rt[gpu-decode]'" in part["reason"]


@pytest.mark.slow
def test_decoding_is_rehearsed_on_the_cpu(tmp_path, resnet10, codec):
    output = tmp_path / "r.json"
    command = ["--rehearse", "--quick", "--only", "decoding", "--artifact", str(resnet10), "--output", str(output)]
    assert gpu_check.main(command) == 2
    part = json.loads(output.read_text())["parts"][-1]
    assert part["state"] == "not run" and "compared on the CPU" in part["reason"]
    assert {row["largest"] for row in part["data"]["pixels"].values()} == {0}
    assert set(part["data"]["pixels"]) == {"4:4:4", "4:2:2", "4:2:0", "4:2:0, progressive"}


@pytest.mark.parametrize("fault", ["other colours", "nothing decoded"])
def test_wrong_pixels_of_the_decoder_are_found(codec, fault):
    codec.log.change = np.array([0, 40, 0]) if fault == "other colours" else 0
    codec.log.refuse = lambda data: fault == "nothing decoded"
    data = {}
    with pytest.raises(report.Wrong, match="not those of the CPU"):
        decoding.check_decoding(data, Path("m.onnx"), rehearsal=True)
    assert data["pixels"]["4:2:0"]["decoded"] == (0 if fault == "nothing decoded" else 4)


@pytest.mark.slow
def test_decoding_on_a_gpu_is_compared_and_timed(codec, monkeypatch):
    from lidcam_gpu.resident import DeviceBatch
    from lidcam_rt.backends import cuda_runtime
    from lidcam_rt.errors import BackendError

    api, calls, closed = tensorrt_standin.Cuda(), [], []
    monkeypatch.setattr(cuda_runtime, "open_runtime", lambda index=0: CudaRuntime(api, index))

    class Localizer:
        def __init__(self, path, device, max_batch, decode):
            assert (path, device, max_batch) == (Path("m.onnx"), "cuda:0", 2)
            self.where = decode

        def __call__(self, given):
            calls.append((self.where, len(given), isinstance(given[0], bytes)))
            n = len(given)
            classes = np.arange(n) + (self.where == "device")
            return DeviceBatch(classes, np.ones(n), np.ones(n), (None,) * n, decoded=(self.where,) * n)

        def close(self):
            closed.append(self.where)

    data = {}
    decoding.check_decoding(data, Path("m.onnx"), batches=(1, 2), seconds=0.0, open=Localizer)
    assert data["agreement"] == {"pictures": 2, "decoded on the device": 2, "other class": 2, "other box": 0}
    contenders = {"pixels", "files, decoded on the CPU", "files, decoded on the device"}
    assert [row["batch"] for row in data["rows"]] == [1, 2] and set(data["rows"][0]["contenders"]) == contenders
    assert {("cpu", 2, False), ("cpu", 2, True), ("device", 2, True)} <= set(calls)
    assert closed == ["cpu", "device"] and not codec.log.decoders and not api.streams

    def refused(*_, **options):
        raise BackendError("no CUDA provider")

    with pytest.raises(report.Cannot, match="no CUDA provider"):
        decoding.check_decoding({}, Path("m.onnx"), batches=(1,), open=refused)


def flip(call):
    """A launcher whose map is wrong in one pixel."""

    def run(self, *arguments):
        call(self, *arguments)
        n, h, w = arguments[1], arguments[4], arguments[5]
        device._memory(arguments[12], (n, h, w), np.uint8)[0, 0, 0] ^= 1

    return run


@pytest.mark.parametrize(
    ("name", "broken", "check"),
    [
        ("pas", flip(device.CpuLauncher.pas), agreement.check_pas),
        ("pas", lambda self, *a: None, agreement.check_pas),  # writes nothing: the poison stays
        ("boxes", lambda self, *a: None, agreement.check_boxes),
        ("boxes_at_size", lambda self, *a: None, agreement.check_boxes_at_size),
    ],
)
def test_a_wrong_kernel_is_found(rehearsal, monkeypatch, name, broken, check):
    monkeypatch.setattr(device.CpuLauncher, name, broken)
    sizes = {"check_pas": [((4, 4), (9, 7))], "check_boxes": [(9, 9)], "check_boxes_at_size": [((30, 30), (20, 25))]}
    data = {}
    with pytest.raises(report.Wrong):
        check(rehearsal, data, seed=1, sizes=sizes[check.__name__])
    assert data["different"] > 0 and data["first"]


@pytest.mark.parametrize("fault", ["nothing written", "one pixel", "NaN", "status"])
def test_a_wrong_dense_crf_is_found(rehearsal, monkeypatch, fault):
    whole = device.CpuLauncher.mean_field

    def broken(self, *arguments):
        if fault == "nothing written":
            return
        whole(self, *arguments)
        count, labels, height, width = arguments[2:6]
        q = device._memory(arguments[8], (count, labels, height, width), np.float32)
        if fault == "status":
            device._memory(arguments[9], (count,), np.int32)[0] = 1
        else:
            q[0, 0, 3, 3] = np.nan if fault == "NaN" else q[0, 0, 3, 3] + 2e-4

    monkeypatch.setattr(device.CpuLauncher, "mean_field", broken)
    with pytest.raises(report.Wrong):
        crf.check_crf(rehearsal, {}, seed=1, cases=[(2, 2, 12, 9, "psa")], rounds=1)


def test_a_failing_part_does_not_stop_the_rest(tmp_path, capsys):
    def explode(data):
        data["so far"] = 3
        raise ZeroDivisionError("no")

    def cannot(data):
        raise report.Cannot(f"no such thing in {ROOT / 'kernels'}")

    check = report.Report({"device": "NVIDIA H100 80GB HBM3", "date": "2026-01-02"})
    check.run("a", explode)
    check.run("b", lambda data: data.update(x=1))
    assert check.exit_status == 1
    assert [(o.state, o.data) for o in check.outcomes] == [("failed", {"so far": 3}), ("ok", {"x": 1})]
    assert "ZeroDivisionError at test_gpu_check.py" in check.outcomes[0].reason
    check.outcomes.pop(0)
    assert check.exit_status == 0
    check.run("c", cannot)
    assert check.exit_status == 2 and check.file_name() == "gpu_nvidia-h100-80gb-hbm3_2026-01-02.json"
    check.write(tmp_path / "x.json")
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["exit_status"] == 2 and written["parts"][-1]["reason"] == "no such thing in ./kernels"


class Events:
    """torch.cuda with a clock that a call moves by 5 ms, and a record of what happened in which order."""

    def __init__(self):
        self.now, self.order, self.capturing, self.captured = 0.0, [], False, 0
        self.CUDAGraph = lambda: types.SimpleNamespace(replay=self.replay)
        self.Event = lambda enable_timing: Event(self)

    def call(self, i):
        self.order.append("capture" if self.capturing else "call")
        if self.capturing:
            self.captured += 1
        else:
            self.now += 5.0

    def replay(self):
        self.order.append("replay")
        self.now += 5.0 * self.captured

    def graph(self, captured):
        import contextlib

        @contextlib.contextmanager
        def inside():
            self.capturing = True
            yield
            self.capturing = False

        return inside()

    def synchronize(self):
        self.order.append("synchronize")


class Event:
    def __init__(self, cuda):
        self.cuda, self.at = cuda, None

    def record(self):
        self.at = self.cuda.now
        self.cuda.order.append("record")

    def synchronize(self):
        self.cuda.order.append("wait")

    def elapsed_time(self, other):
        return other.at - self.at


@pytest.mark.parametrize("graph", [True, False])
def test_the_timer_puts_events_around_the_work_alone(graph):
    timed = object.__new__(device.TorchCuda)
    events = Events()
    timed.torch = types.SimpleNamespace(cuda=events)
    sample = timed.sampler(events.call, 4, graph=graph)
    warm = len(events.order)
    assert "synchronize" in events.order and events.order[:3] == ["call"] * 3, "warmed up before anything is timed"
    assert sample() == pytest.approx(5000.0)
    work = ["replay"] if graph else ["call"] * 4
    assert events.order[warm:] == ["record", *work, "record", "wait"]


def test_contenders_take_turns():
    order = []
    samplers = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    found = speed.interleave(samplers, 5)
    assert order == list("ab") * 5
    assert found["a"] == {"median": 5.0, "p10": 1.8, "p90": 8.2, "samples": 5}


@pytest.mark.parametrize("function", [peers.torch_pas_kthvalue, peers.torch_pas_histc])
@pytest.mark.parametrize("percentile", [50.0, 97.3, 98.0, 100.0])
def test_the_peers_do_the_same_work(function, percentile):
    cam = speed._maps(np.random.default_rng(3), 5, 12)
    map8, mask, cut = function(torch, torch.from_numpy(cam), (90, 70), percentile, 0.35)
    want = pas(cam, (90, 70), PasOptions(percentile, 0.35))
    np.testing.assert_array_equal(cut.numpy(), want.threshold)
    assert np.abs(map8.numpy().astype(int) - want.map).max() <= 1
    assert (mask.numpy() != want.mask).mean() < 1e-3


def test_the_weights_of_the_cupy_peer_are_the_resize():
    cam = np.random.default_rng(4).random((9, 13), np.float32)
    down, across = peers.resize_weights(9, 31), peers.resize_weights(13, 40)
    np.testing.assert_allclose(down @ cam @ across.T, resize_reference(cam, (31, 40)), atol=2e-6)


@pytest.mark.slow
def test_engines_on_stand_ins(resnet10, tmp_path, monkeypatch):
    """The TensorRT part from building to comparing, with engines that ONNX Runtime runs on the addresses given."""
    from lidcam_export.tensorrt import builder as pipeline

    monkeypatch.setattr(pipeline, "compute_capability", lambda: "8.9")
    trt, api = tensorrt_standin.module(), tensorrt_standin.Cuda()
    data = {}
    engines.check_tensorrt(
        data, resnet10, tmp_path, flavour="tensorrt", precision="fp16", batches=(1, 2), rounds=2, trt=trt,
        cuda=CudaRuntime(api),
    )  # fmt: skip
    assert data["built"] == {"float16": 14} and [row["batch"] for row in data["rows"]] == [1, 2]
    assert 0 < data["rows"][0]["difference"]["cam"] < 5e-2 and not api.blocks
    trt.log.fail = "execute"
    with pytest.raises(Exception, match="TensorRT failed on a batch of 1"):
        engines.check_tensorrt(
            {}, resnet10, tmp_path, flavour="tensorrt", precision="fp32", batches=(1,), trt=trt, cuda=CudaRuntime(api)
        )
    monkeypatch.setattr(pipeline, "compute_capability", lambda: None)
    with pytest.raises(report.Cannot, match="no NVIDIA driver"):
        engines.check_tensorrt({}, resnet10, tmp_path, flavour="tensorrt", precision="fp32", trt=trt)


@pytest.mark.slow
def test_a_device_that_computes_something_else_fails(resnet10):
    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.backends.onnxruntime import open_backend

    manifest = read_manifest(resnet10)
    reference = open_backend(resnet10, manifest, device="cpu")

    def changed(name, change):
        def run(image, labels, outputs):
            values = reference.run(image, labels, outputs)
            if name in values:
                values[name] = change(values[name])
            return values

        return types.SimpleNamespace(run=run)

    for name, change, says in (
        ("cam", lambda v: v * 1.1, "further from the CPU"),
        ("logits", lambda v: v * np.nan, "not finite"),
        ("mask", lambda v: 1 - v, "is not PaS of its own cam"),
    ):
        with pytest.raises(report.Wrong, match=says):
            engines._run_and_compare(
                changed(name, change), reference, manifest, {}, batches=(1,), rounds=1, tolerance=1e-2
            )


def test_what_a_build_lacks_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "_installed_has_kernels", lambda: False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.Path, "exists", lambda self: False)
    with pytest.raises(report.Cannot, match="cmake, nvcc"):
        build.build_kernels({}, tmp_path)
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        build.subprocess, "run",
        lambda *a, **k: types.SimpleNamespace(returncode=1, stdout="", stderr="CMake Error: no compiler"),
    )  # fmt: skip
    with pytest.raises(report.Cannot, match="no compiler"):
        build.build_kernels({}, tmp_path)


@pytest.mark.parametrize("fault", ["", "capture", "class", "map", "beside"])
def test_graphs_beside_other_threads_are_compared(fault):
    from lidcam_gpu.resident import DeviceBatch
    from lidcam_rt.errors import BackendError

    beside, opened = threading.Event(), []

    class Localizer:
        def __init__(self, path, device, max_batch, graph=False):
            assert (path, device, max_batch) == (Path("m.onnx"), "cuda:1", 2)
            self.device, self.graph = device, graph
            self.beside = bool(opened) and not graph
            opened.append(self)

        def __call__(self, pictures, *, maps=False):
            if self.beside:
                beside.set()
                if fault == "beside":
                    raise BackendError("a kernel failed")
            if self.graph:
                beside.wait()
                if fault == "capture":
                    raise BackendError("the CUDA graph of a batch of 1 could not be captured")
            n = len(pictures)
            classes, made = np.zeros(n, int), np.zeros((n, 4, 4), np.uint8)
            classes[0] += self.graph and fault == "class"
            made[0, 0] += np.uint8(self.graph and fault == "map")
            return DeviceBatch(classes, np.ones(n), np.ones(n), (None,) * n, made if maps else None)

        def close(self):
            opened.remove(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    data = {}
    says = {
        "capture": "could not be captured", "class": "'other class': 8", "map": "map pixels that differ': 0.25",
        "beside": "beside the pool: BackendError: a kernel failed",
    }  # fmt: skip
    expected = pytest.raises(report.Wrong, match=says[fault]) if fault else contextlib.nullcontext()
    with expected:
        threads.check_threads(data, Path("m.onnx"), index=1, batches=(1, 2), rounds=2, open=Localizer)
    assert data["calls"]["pool"] == (0 if fault == "capture" else 8)
    with pytest.raises(report.Cannot, match="CUDA provider"):
        threads.check_threads({}, Path("m.onnx"), rehearsal=True)
