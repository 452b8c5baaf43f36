"""PaS and the box of a map against the released pipeline in OpenCV and numpy, and its two forms in ONNX Runtime.

One thread, peers interleaved in one run, the floor beside them: python -m pytest benchmarks/suites/bench_pas.py -s
Writes benchmarks/results/pas_2core_epyc.json, or the file that LIDCAM_BENCH_OUT names.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from lidcam_export.graph.operator import OPSET, attach, pas_node
from onnx import TensorProto, helper

from lidcam_rt import _kernels
from lidcam_rt.boxes import largest_box
from lidcam_rt.pas import PasOptions, ops_library, pas

SIDE, CELLS, PERCENTILE, THETA = 384, 24, 90.0, 0.35
RESULTS = Path(os.environ.get("LIDCAM_BENCH_OUT", Path(__file__).parents[1] / "results" / "pas_2core_epyc.json"))


def released(cam):
    """The released code's steps for one map."""
    cam = cv2.resize(cam, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    cam = cam - cam.min()
    gray = (cam / cam.max() * 255).astype(np.uint8)
    mask = (gray > int(THETA * np.percentile(gray, PERCENTILE))).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return x, y, x + w, y + h


def ours(cams):
    """The same by the kernels."""
    mask = pas(cams, (SIDE, SIDE), PasOptions(PERCENTILE, THETA)).mask
    return [largest_box(mask[i, 0]) for i in range(len(cams))]


def made(batch):
    rng = np.random.default_rng(0)
    maps = [cv2.GaussianBlur(rng.random((CELLS, CELLS), np.float32), (5, 5), 2) for _ in range(batch)]
    return np.stack(maps)[:, None]


def interleaved(peers, rounds):
    """Seconds per call of each peer, in turn."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            start = time.perf_counter()
            peer()
            times[name].append(time.perf_counter() - start)
    return times


def floor_us(batch):
    """Time to write what must be written (bytes of map and mask) and to read it once, at this core's copying speed."""
    source = np.zeros(batch * SIDE * SIDE, np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    best = min(interleaved({"copy": lambda: np.copyto(target, source)}, 300)["copy"])
    return 2 * best * 1e6


def record(name, times, extra):
    """Medians and spread of the peers, appended to the results file."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, instruction set {_kernels.isa()}"
    found["versions"] = {"opencv": cv2.__version__, "numpy": np.__version__, "onnxruntime": ort.__version__}
    found["command"] = "python -m pytest benchmarks/suites/bench_pas.py -s"
    summary = {
        peer: {
            "median_us": round(statistics.median(values) * 1e6, 1),
            "min_us": round(min(values) * 1e6, 1),
            "p10_us": round(float(np.percentile(values, 10)) * 1e6, 1),
            "p90_us": round(float(np.percentile(values, 90)) * 1e6, 1),
            "rounds": len(values),
        }
        for peer, values in times.items()
    }
    found[name] = {"peers": summary, **extra}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for peer, row in summary.items():
        print(f"{name:28} {peer:20} median {row['median_us']:10.1f} us   {row['p10_us']:.1f} to {row['p90_us']:.1f}")
    print(f"{name:28} {extra}")


@pytest.mark.parametrize("batch", [1, 32])
def test_the_released_pipeline(benchmark, batch):
    """Resize, percentile, mask and largest box, 24x24 to 384x384."""
    cv2.setNumThreads(1)
    cams = made(batch)
    boxes = [released(cam[0]) for cam in cams]
    assert np.abs(np.subtract(boxes, ours(cams))).max() <= 1  # the same work
    peers = {"OpenCV + numpy": lambda: [released(cam[0]) for cam in cams], "lidcam_rt": lambda: ours(cams)}
    peers["lidcam_rt, PaS only"] = lambda: pas(cams, (SIDE, SIDE), PasOptions(PERCENTILE, THETA))
    times = interleaved(peers, 300 if batch == 1 else 25)
    benchmark.pedantic(peers["lidcam_rt"], rounds=20, warmup_rounds=3)
    ratio = statistics.median(times["OpenCV + numpy"]) / statistics.median(times["lidcam_rt"])
    extra = {"ratio": round(ratio, 1), "floor_us": round(floor_us(batch), 1)}
    record(f"released pipeline, batch {batch}", times, extra)
    benchmark.extra_info |= extra
    assert ratio >= 10


def model_of(spec):
    """A graph of the node with its function body."""
    info = helper.make_tensor_value_info
    maps = ["n", 1, SIDE, SIDE]
    out = [info("map", TensorProto.UINT8, maps), info("mask", TensorProto.UINT8, maps)]
    graph = helper.make_graph(
        [pas_node(("cam", "like"), ("map", "mask", "threshold"), spec)],
        "pas",
        [
            info("cam", TensorProto.FLOAT, ["n", 1, CELLS, CELLS]),
            info("like", TensorProto.FLOAT, ["n", 1, SIDE, SIDE]),
        ],
        [*out, info("threshold", TensorProto.FLOAT, ["n", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    attach(model, spec)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.mark.parametrize("precision", ["uint8", "float"])
def test_the_two_forms_in_onnxruntime(benchmark, precision):
    """The operator library against the function body of the same file, one thread."""
    library = ops_library()
    if library is None:
        pytest.skip("the operator library was not built")
    model = model_of(PasOptions(percentile=PERCENTILE, theta=THETA, precision=precision))
    cams = made(4)
    feed = {"cam": cams, "like": np.zeros((len(cams), 1, SIDE, SIDE), np.float32)}
    sessions = {}
    for name in ("function body", "operator library"):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        if name == "operator library":
            options.register_custom_ops_library(str(library))
        sessions[name] = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    results = [session.run(["mask"], feed)[0] for session in sessions.values()]
    assert (results[0] != results[1]).sum() <= 3
    times = interleaved({name: lambda s=session: s.run(None, feed) for name, session in sessions.items()}, 15)
    benchmark.pedantic(lambda: sessions["operator library"].run(None, feed), rounds=20, warmup_rounds=3)
    ratio = statistics.median(times["function body"]) / statistics.median(times["operator library"])
    record(f"in ONNX Runtime, {precision}, batch 4", times, {"ratio": round(ratio, 1)})
    benchmark.extra_info["ratio"] = ratio
    assert ratio >= 4


@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_older_processors(benchmark, isa):
    """The same kernels kept to older instruction sets, against the same peer (OpenCV keeps its own)."""
    script = (
        "import sys; sys.path.insert(0, 'benchmarks/suites'); import bench_pas as b, statistics as s; "
        "b.cv2.setNumThreads(1); "
        "c = b.made(1); t = b.interleaved({'theirs': lambda: b.released(c[0, 0]), 'ours': lambda: b.ours(c)}, 300); "
        "print(b._kernels.isa(), s.median(t['theirs']) * 1e6, s.median(t['ours']) * 1e6)"
    )
    environment = os.environ | {"LIDCAM_ISA": isa}
    answer = benchmark.pedantic(
        lambda: subprocess.check_output(
            [sys.executable, "-c", script], text=True, env=environment, cwd=Path(__file__).parents[2]
        ),
        rounds=1,
    )
    name, theirs, mine = answer.split()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    row = {"OpenCV + numpy_us": round(float(theirs), 1), "lidcam_rt_us": round(float(mine), 1)}
    found[f"released pipeline, batch 1, {name}"] = row | {"ratio": round(float(theirs) / float(mine), 1)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"released pipeline, batch 1, {name}: {found[f'released pipeline, batch 1, {name}']}")
