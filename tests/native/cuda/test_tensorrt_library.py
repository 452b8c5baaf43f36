"""The plugin library for TensorRT: compiled with TensorRT 10.14's headers, run on a stand-in for the driver.

The headers are those that the package kernel-lens carries. TensorRT for RTX's registry loads the library and makes the
plugin; it has no plugins in its engines, so that nothing here runs inside TensorRT.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import builds
import numpy as np
import pytest
from downloads import package

from lidcam_rt.pas import PasOptions, pas

pytestmark = pytest.mark.slow  # not in make quick

KERNELS = builds.KERNELS


def cuda_headers() -> Path:
    """Folder of cuda_runtime_api.h: of a toolkit, or of the packages that PyTorch brings."""
    nvcc = shutil.which("nvcc")
    places = [Path(nvcc).resolve().parents[1] / "include"] if nvcc else []
    places.append(Path("/usr/local/cuda/include"))
    for entry in map(Path, sys.path):
        places += entry.glob("nvidia/*/include")
    found = next((place for place in places if (place / "cuda_runtime_api.h").exists()), None)
    if found is None:
        pytest.skip("needs cuda_runtime_api.h (a CUDA toolkit, or nvidia-cuda-runtime)")
    return found


@pytest.fixture(scope="module")
def headers() -> list[str]:
    folder = package("kernel-lens==2.0.1") / "kernel_lens" / "include" / "tensorrt"
    return ["-isystem", str(folder), "-isystem", str(cuda_headers())]


@pytest.fixture(scope="module")
def library(headers, tmp_path_factory) -> Path:
    """The library with images that the stand-in driver takes for compiled kernels, so that no nvcc is needed."""
    place = tmp_path_factory.mktemp("library")
    for name in ("pas", "components", "crf", "picture"):
        (place / name).write_bytes((0xBA55ED50).to_bytes(4, "little") + bytes(60))
    (place / "ptx").write_text("// .entry lidcam_pas_aot\n")
    embedded = {"PAS_FATBIN": "pas", "COMPONENTS_FATBIN": "components", "CRF_FATBIN": "crf",
                "PICTURE_FATBIN": "picture", "AOT_PTX_75": "ptx", "AOT_PTX_90": "ptx"}  # fmt: skip
    definitions = [f'-DLIDCAM_{key}="{place / value}"' for key, value in embedded.items()]
    names = ["driver", "functions", "images", "launching", "launch_pas", "library", "memory"]
    sources = ["tensorrt/plugin.cpp", "pas/options.cpp", *(f"cuda/{name}.cpp" for name in names)]
    target = place / "liblidcam_tensorrt.so"
    command = [builds.compiler(), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
               "-fvisibility=hidden", "-Wl,-z,defs", '-DLIDCAM_ARCHITECTURES="none"', *definitions, "-I", str(KERNELS),
               *headers, *(str(KERNELS / s) for s in sources), "-o", str(target), "-ldl", "-pthread"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_no_symbol_of_tensorrt_is_missing_and_two_are_offered(library):
    def symbols(option):
        lines = subprocess.run(["nm", "-DC", option, str(library)], capture_output=True, text=True, check=True)
        return [line.split()[-1] for line in lines.stdout.splitlines()]

    undefined = symbols("--undefined-only")
    assert not [name for name in undefined if "nvinfer" in name or "lidcam" in name or name.startswith(("cu", "Nv"))]
    assert {name for name in symbols("--defined-only") if "std::" not in name} >= {"getCreators", "setLoggerFinder"}


@pytest.fixture(scope="module")
def harness(headers, stand_in, tmp_path_factory):
    """Runs the harness on maps: its exit status, its log, and map, mask, threshold."""
    place = tmp_path_factory.mktemp("harness")
    program = place / "harness"
    command = [builds.compiler(), "-std=c++17", "-O1", "-Wall", "-Wextra", *headers,
               str(builds.HERE / "plugin_harness.cpp"), "-o", str(program), "-ldl"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(stand_in, place / "libcuda.so.1")

    def run(library, cam, size, *, driver=True, **options):
        spec = {"percentile": 98.0, "theta": 0.35, "mode": "threshold", "precision": "uint8", "where": "resized",
                "interpolation": "cubic"} | options  # fmt: skip
        (place / "in").write_bytes(np.int32([*cam.shape, *size]).tobytes() + cam.tobytes())
        environment = {**os.environ, "STAND_IN_MAJOR": "8", "LD_LIBRARY_PATH": str(place) if driver else ""}
        done = subprocess.run(
            [str(program), str(library), str(place / "in"), str(place / "out"), *map(str, spec.values())],
            capture_output=True, text=True, env=environment, timeout=300,
        )  # fmt: skip
        if done.returncode:
            return done.returncode, done.stderr, None
        values = np.frombuffer((place / "out").read_bytes(), np.float32)
        maps = cam.shape[0] * cam.shape[1] * size[0] * size[1]
        shape = (*cam.shape[:2], *size)
        return 0, done.stderr, (values[:maps].reshape(shape), values[maps : 2 * maps].reshape(shape),
                                values[2 * maps :].reshape(cam.shape[:2]))  # fmt: skip

    return run


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"percentile": 90.0, "theta": 0.2, "mode": "normalize"},
        {"precision": "float", "interpolation": "linear"},
        {"where": "raw", "percentile": 97.125},
    ],
)
def test_what_tensorrt_does_with_it_gives_the_reference(library, harness, options):
    """Make, ask, store, restore, attach, run: map, mask and threshold to the bit, as float32."""
    cam = np.random.default_rng(0).gamma(0.7, 1.0, (2, 2, 9, 7)).astype(np.float32)
    cam[1, 1] = 3
    status, log, got = harness(library, cam, (40, 52), **options)
    assert status == 0, log
    want = pas(cam, (40, 52), PasOptions(**options))
    np.testing.assert_array_equal(got[0], want.map.astype(np.float32))
    np.testing.assert_array_equal(got[1], want.mask.astype(np.float32))
    np.testing.assert_array_equal(got[2], want.threshold)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "maximum"}, "mode must be threshold or normalize, got maximum"),
        ({"interpolation": ""}, "interpolation must be cubic or linear"),
        ({"percentile": 101.0}, "percentile must be 0 to 100"),
        ({"theta": "nan"}, "theta must be 0 to 1"),
    ],
)
def test_wrong_attributes_are_refused_with_a_message(library, harness, options, says):
    status, log, _ = harness(library, np.ones((1, 1, 2, 2), np.float32), (4, 4), **options)
    assert status == 3 and says in log


def test_without_a_driver_it_fails_with_a_message(library, harness):
    from lidcam_gpu import kernels

    if kernels.available():
        pytest.skip("a driver is here")
    status, log, _ = harness(library, np.ones((1, 1, 2, 2), np.float32), (4, 4), driver=False)
    assert status == 4 and "libcuda.so.1 cannot be loaded" in log


LOAD = """
import sys
import numpy as np
import tensorrt_rtx as trt
log = trt.Logger(trt.Logger.INFO)
registry = trt.get_plugin_registry()
assert registry.get_creator("PaS", "1", "lidcam") is None
assert registry.load_library(sys.argv[1]) is not None
creator = registry.get_creator("PaS", "1", "lidcam")
fields = {f.name: f.type for f in creator.field_names}
char, number = trt.PluginFieldType.CHAR, trt.PluginFieldType.FLOAT32
assert fields == dict(percentile=number, theta=number, mode=char, precision=char, where=char, interpolation=char)
def make(**texts):
    given = [trt.PluginField(name, value.encode(), char) for name, value in texts.items()]
    given.append(trt.PluginField("percentile", np.float32([90]), number))
    return creator.create_plugin("PaS", trt.PluginFieldCollection(given), trt.TensorRTPhase.BUILD)
assert make(mode="normalize") is not None and make(mode="maximum") is None
print("made", flush=True)
network = trt.Builder(log).create_network(1)
parser = trt.OnnxParser(network, log)
parser.parse(open(sys.argv[2], "rb").read())  # ends the process: this flavour has no plugins in its networks
"""


def test_tensorrt_for_rtx_loads_it_and_its_parser_finds_it(library, tmp_path):
    """The node's attributes lead the parser to the plugin, which takes them. Then the process dies."""
    pytest.importorskip("tensorrt_rtx", reason="extra tensorrt-rtx is not installed")
    pytest.importorskip("onnx")
    from lidcam_export.graph.operator import OPSET, attach, pas_node
    from onnx import TensorProto, helper

    spec = PasOptions(percentile=97.5, mode="normalize")
    kinds = {"cam": 1, "like": 3, "map": 1, "mask": 1}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", c, name + "_h", name + "_w"])
              for name, c in kinds.items()}  # fmt: skip
    values["threshold"] = helper.make_tensor_value_info("threshold", TensorProto.FLOAT, ["n", 1])
    node = pas_node(("cam", "like"), ("map", "mask", "threshold"), spec)
    graph = helper.make_graph([node], "pas", [values["cam"], values["like"]],
                              [values["map"], values["mask"], values["threshold"]])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    attach(model, spec)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    command = [sys.executable, "-c", LOAD, str(library), str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "made" in done.stdout, done.stderr
    assert "Searching for plugin: PaS, plugin_version: 1, plugin_namespace: lidcam" in done.stdout + done.stderr
    assert "Successfully created plugin: PaS" in done.stdout + done.stderr


@pytest.mark.slow
def test_cmake_builds_it_where_the_headers_are_named(headers, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    configure = ["cmake", "-S", str(KERNELS), "-B", str(tmp_path), f"-DPython_EXECUTABLE={sys.executable}",
                 "-DLIDCAM_CUDA=OFF", "-DLIDCAM_FETCH_ORT=OFF", f"-DTENSORRT_INCLUDE_DIR={headers[1]}",
                 f"-DCUDA_INCLUDE_DIR={headers[3]}"]  # fmt: skip
    done = subprocess.run(configure, capture_output=True, text=True)
    if "nanobind" in done.stderr and done.returncode:
        pytest.skip("needs nanobind, which installing brings only for the build")
    assert done.returncode == 0 and "TensorRT plugin library: built" in done.stdout, done.stderr
    build = ["cmake", "--build", str(tmp_path), "--target", "lidcam_tensorrt"]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0 and list(tmp_path.glob("tensorrt/*lidcam_tensorrt*")), done.stderr
    wrong = subprocess.run([*configure, f"-DTENSORRT_INCLUDE_DIR={tmp_path}"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "has no NvInferRuntime.h" in wrong.stderr
