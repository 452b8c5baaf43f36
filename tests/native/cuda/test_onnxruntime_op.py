"""The CUDA operator of the ONNX Runtime library, as a CPU operator over the stand-in driver; and beside the CPU one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import builds
import pytest

from lidcam_gpu import kernels
from lidcam_rt.pas.library import ops_library

pytestmark = pytest.mark.slow  # not in make quick

PRELUDE = """
import sys
import numpy as np, onnxruntime
from onnx import TensorProto, helper
from lidcam_rt.pas import PasOptions, pas

def session(path, options, providers=("CPUExecutionProvider",)):
    node = helper.make_node("PaS", ["cam", "like"], ["map", "mask", "threshold"], domain="lidcam", **options)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g",
        [value("cam", TensorProto.FLOAT, ["n", "k", "h", "w"]), value("like", TensorProto.UINT8, ["H", "W"])],
        [value("map", TensorProto.UINT8, None), value("mask", TensorProto.UINT8, None),
         value("threshold", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("lidcam", 1)])
    model.ir_version = 9
    how = onnxruntime.SessionOptions()
    how.register_custom_ops_library(path)
    return onnxruntime.InferenceSession(model.SerializeToString(), how, providers=list(providers))

def compare(path):
    rng = np.random.default_rng(0)
    for (n, k, h, w), size, options in (
        ((2, 3, 12, 9), (50, 64), {}),
        ((1, 1, 24, 24), (96, 90), dict(mode="normalize", percentile=90.5)),
        ((0, 1, 7, 7), (33, 20), {}),
        ((3, 1, 7, 7), (33, 20), dict(precision="float", theta=0.25, where="raw", interpolation="linear")),
    ):
        given = dict(percentile=98.0, theta=0.5, mode="threshold", precision="uint8", where="resized",
                     interpolation="cubic") | options
        cam = rng.random((n, k, h, w), np.float32)
        found = session(path, given).run(None, {"cam": cam, "like": np.zeros(size, np.uint8)})
        for a, b in zip(found, pas(cam, size, PasOptions(**given))):
            np.testing.assert_array_equal(a, b)
"""


def python(code, folder, *arguments, **environment):
    env = {**os.environ, **environment, "LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(stand_in, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("driver")
    shutil.copy(stand_in, place / "libcuda.so.1")
    return place


def ort_headers() -> Path:
    """Folder of ONNX Runtime's C headers; skips without one."""
    places = [os.environ.get("ORT_INCLUDE_DIR", "")]
    for cache in builds.ROOT.glob("build/*/CMakeCache.txt"):
        places += [line.split("=", 1)[1] for line in cache.read_text().splitlines() if line.startswith("ORT_HEADERS")]
    place = next((p for p in places if p and (Path(p) / "onnxruntime_c_api.h").exists()), None)
    if place is None:
        pytest.skip("needs ONNX Runtime's headers (ORT_INCLUDE_DIR)")
    return Path(place)


@pytest.fixture(scope="module")
def operator() -> Path:
    return builds.build("cuda_op", "cuda_op.cpp", "-O1", "-shared", "-isystem", str(ort_headers()), shim=False)


@pytest.mark.parametrize("major", ["8", "9"])
def test_cuda_operator_equals_the_cpu_kernel(operator, folder, major):
    python("compare(sys.argv[1])", folder, operator, STAND_IN_MAJOR=major)


def test_a_failing_launch_is_an_error_of_onnx_runtime(operator, folder):
    out = python(
        """
options = dict(percentile=98.0, theta=0.5, mode="threshold", precision="uint8", where="resized", interpolation="cubic")
for launch in (
    lambda: session(sys.argv[1], options).run(None, {"cam": np.ones((1, 1, 2, 2), np.float32),
                                                     "like": np.zeros((4, 4), np.uint8)}),
    lambda: session(sys.argv[1], options | dict(mode="other")),
):
    try:
        launch()
    except Exception as error:
        print(str(error).replace("\\n", " "))
""",
        folder,
        operator,
        STAND_IN_LAUNCH_ERROR="719",
    )
    first, second = out.splitlines()
    assert "lidcam::PaS on CUDA: cuLaunchKernel failed: an error of the stand-in" in first
    assert "attribute mode" in second


@pytest.mark.skipif(not kernels.compiled(), reason="this build has no CUDA kernels (no nvcc)")
def test_the_library_with_a_device_still_serves_the_cpu(folder):
    path = ops_library()
    if path is None:
        pytest.skip("this build has no operator library")
    python("compare(sys.argv[1])", folder, path)
