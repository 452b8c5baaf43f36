"""OpenVINO against ONNX Runtime: the same results but for the rounding of float32 sums."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import artifacts
import numpy as np
import onnx
import pytest

import lidcam_rt
from lidcam_rt.backends import BACKENDS, choose
from lidcam_rt.errors import ArtifactError, BackendError, InputError, MissingExtraError

openvino = pytest.importorskip("openvino", reason="extra openvino is not installed")
EPSILON = np.finfo(np.float32).eps
PICTURES = [artifacts.picture(c, (8 * i, 4 * i, 60 + 9 * i, 50 + 7 * i)) for i, c in enumerate(artifacts.CLASSES)]


def alike(ours, theirs):
    """Sums of a few hundred products in another order: some dozens of units in the last place."""
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 100 * EPSILON * np.abs(theirs).max()


def compared(path, **options):
    """Both engines on batches of several sizes, every output; and whole results."""
    with (
        lidcam_rt.load(path, backend="openvino", **options) as ours,
        lidcam_rt.load(path, backend="onnxruntime", **options) as theirs,
    ):
        names = [entry["name"] for entry in theirs.backend.outputs]
        assert {entry["name"] for entry in ours.backend.outputs} == set(names)
        for count in (1, 3, 8):
            prepared = [ours.pipeline.prepare(PICTURES[i % 4]) for i in range(count)]
            a, b = (engine.pipeline.run(prepared, outputs=names) for engine in (ours, theirs))
            for name in ("logits", "scores", "cam"):
                alike(a[name], b[name])
            np.testing.assert_array_equal(a["class_ids"], b["class_ids"])
            assert np.abs(a["map8"].astype(int) - b["map8"]).max() <= 1
            assert np.abs(a["threshold"] - b["threshold"]).max() <= 1
            assert (a["mask"] != b["mask"]).mean() <= 0.001
        for picture in PICTURES:
            x, y = ours(picture), theirs(picture)
            assert x.class_id == y.class_id and x.score == pytest.approx(y.score, rel=1e-4)
            assert np.abs(np.subtract(x.box, y.box)).max() <= 1 and (x.mask != y.mask).mean() <= 0.001


@pytest.mark.parametrize("options", [
    {}, {"pas_node": True}, {"top_k": 3}, {"dtype": "float32"}, {"resize": "letterbox"}, {"size": (48, 80)},
    {"labels": False}, {"task": "multilabel"},
])  # fmt: skip
def test_results_are_those_of_onnxruntime(tmp_path, options):
    if "pas_node" in options:
        pytest.importorskip("lidcam_export", reason="writing the node needs the exporter")
    compared(artifacts.build(tmp_path / "m.onnx", **options))


def test_equal_logits_keep_their_order(tmp_path):
    """A grey picture shows no class: all logits are equal, and the first classes are taken, as ONNX says of TopK."""
    grey = np.full((20, 30, 3), 128, np.uint8)
    with lidcam_rt.load(artifacts.build(tmp_path / "m.onnx", top_k=3), backend="openvino") as localizer:
        result = localizer(grey, top_k=3)
        assert [result.class_id, *(other.class_id for other in result.others)] == [0, 1, 2]


def test_labels_and_others(model):
    with lidcam_rt.load(model, backend="openvino") as localizer:
        result = localizer(PICTURES[0], labels=[2, 1])
        assert [result.class_id, *(other.class_id for other in result.others)] == [2, 1]


def test_what_it_says_of_itself(model):
    with lidcam_rt.load(model, backend="openvino", device="cpu") as localizer:
        backend = localizer.backend
        assert backend.name == f"openvino {openvino.__version__.split('-')[0]}"
        assert (backend.device, backend.precision) == ("cpu", "fp32")
        assert f"{backend.name} on cpu, fp32" in repr(localizer)
    with pytest.raises(InputError, match="closed"):
        localizer(PICTURES[0])


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_and_streams(model, threads):
    pictures = PICTURES * 6
    with lidcam_rt.load(model, backend="openvino", threads=threads) as localizer:
        expected = [localizer(picture) for picture in pictures]
        with ThreadPoolExecutor(8) as pool:
            for a, b in zip(expected, pool.map(localizer, pictures), strict=True):
                assert a.box == b.box and np.array_equal(a.map, b.map)
        for batch_size in (1, 3):
            for a, b in zip(expected, localizer.stream(pictures, batch_size=batch_size), strict=True):
                assert a.box == b.box and np.abs(a.map.astype(int) - b.map).max() <= 1


def test_results_that_are_kept_are_not_written_again(model):
    with lidcam_rt.load(model, backend="openvino") as localizer:
        prepared = [localizer.pipeline.prepare(picture) for picture in PICTURES]
        kept = [localizer.pipeline.run([entry], outputs=("logits", "cam")) for entry in prepared]
        for entry, values in zip(prepared, kept, strict=True):
            again = localizer.pipeline.run([entry], outputs=("logits", "cam"))
            assert all(np.array_equal(values[name], again[name]) for name in values)


def has_bf16():
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16")
def test_bf16_is_what_runs_when_it_is_asked_for(model):
    with lidcam_rt.load(model, precision="bf16") as low, lidcam_rt.load(model, backend="openvino") as full:
        assert low.backend.name.startswith("openvino") and low.backend.precision == "bf16"
        for picture in PICTURES:
            a, b = low(picture), full(picture)
            assert a.class_id == b.class_id and (a.mask != b.mask).mean() < 0.05


def test_a_precision_that_is_not_there(model, monkeypatch):
    with pytest.raises(InputError, match=r"precision bf16 was requested, but onnxruntime has fp32"):
        lidcam_rt.load(model, backend="onnxruntime", precision="bf16")
    with pytest.raises(InputError, match="precision must be auto or one of bf16, fp16, fp32, int8, got 'fp8'"):
        lidcam_rt.load(model, precision="fp8")
    real = openvino.Core

    class Older:
        """OpenVINO on a processor that computes in float32 only."""

        def __init__(self):
            self.compile_model = real().compile_model

        def get_property(self, *_):
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", Older)
    with pytest.raises(BackendError, match="openvino has no bf16 on this processor"):
        lidcam_rt.load(model, precision="bf16")
    assert lidcam_rt.load(model, backend="openvino").backend.precision == "fp32"


def test_it_is_not_chosen_unless_it_is_asked_for(model, monkeypatch):
    assert choose(model).name == "onnxruntime" and choose(model, precision="bf16").name == "openvino"
    with pytest.raises(InputError, match="openvino runs it on cpu, but device cuda was requested"):
        lidcam_rt.load(model, backend="openvino", device="cuda")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not next(entry for entry in BACKENDS if entry.name == "openvino").installed
    with pytest.raises(MissingExtraError, match=r"lidcam-rt\[openvino\]"):
        lidcam_rt.load(model, backend="openvino")


def test_a_graph_that_it_does_not_know(tmp_path):
    path = artifacts.build(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node[3].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"m\.onnx: openvino .* refuses it \(.*Use backend='onnxruntime'"):
        lidcam_rt.load(path, backend="openvino")


def test_a_failing_run_is_a_backend_error(model):
    with lidcam_rt.load(model, backend="openvino") as localizer:
        with pytest.raises(BackendError, match="openvino failed on a batch of 1"):
            localizer.backend.run(np.zeros((1, 7, 7, 3), np.uint8), np.full((1, 2), -1), ("logits",))
        assert localizer(PICTURES[0]).class_name == "red"


SIGNALS = """
import ctypes, os, signal, sys
import numpy as np
import lidcam_rt

class Stack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

def stack():
    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.start, found.flags, found.size

before, seen = stack(), []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
picture = np.zeros((60, 80, 3), np.uint8)
for threads in (0, 1, 2):
    with lidcam_rt.load(sys.argv[1], backend="openvino", threads=threads) as localizer:
        localizer(picture)
        assert stack() == before, "a call"
        list(localizer.stream([picture] * 3))
        assert stack() == before, "a stream"
    assert stack() == before, "closing"
    os.kill(os.getpid(), signal.SIGUSR1)
print(len(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the stack for signals is that of Linux")
def test_signals_are_handled_on_the_stack_they_had(model):
    """OpenVINO left one of its own on the calling thread: the next Ctrl-C was a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", SIGNALS, str(model)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip() == "3", done.stderr
