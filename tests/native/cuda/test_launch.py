"""The launcher: without a driver, with a stand-in for the driver, and against the toolkit's header where it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import builds
import pytest

from lidcam_gpu import kernels
from lidcam_rt.errors import BackendError, InputError

pytestmark = pytest.mark.slow  # not in make quick

needs_kernels = pytest.mark.skipif(not kernels.compiled(), reason="this build has no CUDA kernels (no nvcc)")

PRELUDE = """
import numpy as np
from lidcam_gpu import kernels
from lidcam_rt.boxes import largest_box
from lidcam_rt.pas import PasOptions, pas

class Array:  # host memory that says it is on the device
    def __init__(self, a): self.a = a
    @property
    def __cuda_array_interface__(self):
        return {**self.a.__array_interface__, "version": 3, "stream": None}

class Stream:
    cuda_stream = 77
"""


def python(code, folder=None, **environment):
    paths = [str(folder)] if folder else []
    env = {**os.environ, **environment, "LD_LIBRARY_PATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def folder(stand_in, tmp_path_factory) -> Path:
    """A folder with a libcuda.so.1 in it."""
    place = tmp_path_factory.mktemp("driver")
    shutil.copy(stand_in, place / "libcuda.so.1")
    return place


def test_import_and_absence_of_a_driver():
    out = python(
        "print(open('/proc/self/maps').read().count('libcuda'))\nprint(kernels.available(), '|', kernels.reason())"
    )
    loaded, answer = out.splitlines()
    assert loaded == "0"
    state, why = answer.split(" | ")
    if state == "True":
        pytest.skip("a device is here")
    assert re.search("no NVIDIA driver|offers no device|no CUDA kernels|too old", why)


def test_calls_without_a_device_say_why():
    if kernels.available():
        pytest.skip("a device is here")
    with pytest.raises(BackendError, match="CUDA cannot be used"):
        kernels.devices()


@needs_kernels
def test_driver_without_a_device(folder):
    out = python("print(kernels.available(), kernels.reason())", folder, STAND_IN_INIT_ERROR="100")
    assert out.startswith("False the NVIDIA driver offers no device: an error of the stand-in")


@needs_kernels
@pytest.mark.parametrize("major", ["7", "9"])
def test_pas_and_boxes_through_the_driver(folder, major):
    out = python(
        """
assert kernels.available(), kernels.reason()
print(kernels.devices()[0].name, kernels.devices()[0].processors)
rng = np.random.default_rng(0)
for (n, k, h, w), size, options in (
    ((2, 2, 12, 9), (50, 64), {}),
    ((1, 1, 24, 24), (96, 96), dict(mode="normalize", percentile=90.5)),
    ((40, 1, 7, 7), (33, 20), dict(precision="float", theta=0.2)),
    ((1, 3, 120, 120), (31, 40), dict(where="raw", interpolation="linear")),  # more shared memory than a launch has
):
    cam = rng.random((n, k, h, w), np.float32)
    out = [np.full((n, k, *size), 9, np.uint8), np.zeros((n, k, *size), bool), np.full((n, k), 9, np.float32)]
    kernels.pas(Array(cam), tuple(map(Array, out)), PasOptions(**options), stream=[None, 1, Stream()][n % 3])
    expected = pas(cam, size, PasOptions(**options))
    for a, b in zip(out, expected):
        np.testing.assert_array_equal(a, b)
    boxes = np.zeros((n, k, 4), np.int32)
    for by in ("contour", "pixels"):
        kernels.largest_boxes(Array(out[1]), Array(boxes), by=by)
        wanted = [largest_box(m, by=by) or (-1,) * 4 for m in expected.mask.reshape(-1, *size)]
        assert boxes.reshape(-1, 4).tolist() == [list(b) for b in wanted]
import cv2
maps = expected.map[0]
boxes = np.zeros((3, 4), np.int32)
kernels.boxes_at_size(Array(maps), Array(expected.threshold[0]), (77, 81), Array(boxes))
for m, level, box in zip(maps, expected.threshold[0], boxes):
    assert tuple(box) == largest_box(cv2.resize(m, (81, 77), interpolation=cv2.INTER_LINEAR) > level)
import ctypes
last = (ctypes.c_int * 4)()
ctypes.CDLL("libcuda.so.1").stand_in_last(last)
print(*last)
""",
        folder,
        STAND_IN_MAJOR=major,
    )
    shared = 400 + 4 * 78 + 18 * 77 * 41 + 4  # kScratchBytes of kernels/components/runs.h, then run_bytes(77, 81)
    assert out.splitlines() == ["stand-in 132", f"22 1 {shared} 1024"]  # a box takes two launches


@needs_kernels
def test_boxes_take_the_shared_memory_that_the_device_offers(folder):
    out = python(
        """
import ctypes
last = (ctypes.c_int * 4)()
mask = np.random.default_rng(0).random((1, 120, 130)) < 0.5
box = np.zeros((1, 4), np.int32)
kernels.largest_boxes(Array(mask), Array(box))
assert tuple(box[0]) == largest_box(mask[0])
ctypes.CDLL("libcuda.so.1").stand_in_last(last)
print(*last)
""",
        folder,
    )
    assert out == "2 1 101376 1024\n"


@needs_kernels
def test_clusters_share_a_map_where_the_device_has_them(folder):
    code = """
import ctypes
for n in (1, 20, 200):
    out = [np.zeros((n, 1, 48, 40), np.uint8), np.zeros((n, 1, 48, 40), np.uint8), np.zeros((n, 1), np.float32)]
    kernels.pas(Array(np.random.default_rng(n).random((n, 1, 6, 5), np.float32)), tuple(map(Array, out)))
    last = (ctypes.c_int * 4)()
    ctypes.CDLL("libcuda.so.1").stand_in_last(last)
    print(last[1], end=" ")
"""
    assert python(code, folder, STAND_IN_MAJOR="9") == "8 4 1 "
    assert python(code, folder, STAND_IN_MAJOR="8") == "1 1 1 "


@needs_kernels
def test_the_context_of_a_launch(folder):
    out = python(
        """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
kernels.available()
out = [np.zeros((1, 1, 8, 8), np.uint8), np.zeros((1, 1, 8, 8), np.uint8), np.zeros((1, 1), np.float32)]
cam = np.random.default_rng(0).random((1, 1, 3, 3), np.float32)
# current device (-1: none), device of the pointers (-1: unknown to the driver), stream
for here, there, stream in ((-1, 1, None), (0, 1, None), (1, 1, 2), (1, 0, 1), (1, -1, None), (1, 1, 77), (-1, 1, 77)):
    driver.stand_in_place(here, there)
    kernels.pas(Array(cam), tuple(map(Array, out)), stream=stream)
    device = ctypes.c_int()
    none = driver.cuCtxGetDevice(ctypes.byref(device))
    assert (-1 if none else device.value) == here  # as it was before
    print(driver.stand_in_device(), end=" ")
""",
        folder,
    )
    assert out == "1 1 1 0 1 0 0 "


class Claim:
    """An array that only says what it is."""

    def __init__(self, shape, kind, strides=None):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": kind, "data": (4096, False), "version": 3, "strides": strides
        }  # fmt: skip


CAM = Claim((1, 1, 2, 2), "<f4")
OUT = (Claim((1, 1, 4, 4), "|u1"), Claim((1, 1, 4, 4), "|b1"), Claim((1, 1), "<f4"))


@pytest.mark.parametrize(
    ("cam", "out", "options"),
    [
        (Claim((1, 1, 2, 2), "<f8"), OUT, {}),
        (Claim((1, 2, 2), "<f4"), OUT, {}),
        (Claim((1, 1, 2, 2), "<f4", (16, 16, 4, 8)), OUT, {}),
        (Claim((1, 1, 0, 2), "<f4"), OUT, {}),
        (CAM, (Claim((1, 2, 4, 4), "|u1"), *OUT[1:]), {}),
        (CAM, (OUT[0], Claim((1, 1, 4, 5), "|b1"), OUT[2]), {}),
        (CAM, (*OUT[:2], Claim((1,), "<f4")), {}),
        (CAM, (Claim((1, 1, 4, 40000), "|u1"), Claim((1, 1, 4, 40000), "|b1"), OUT[2]), {}),
        (CAM, OUT, {"options": {"percentile": 90}}),
        ([[1.0]], OUT, {}),
    ],
)
def test_wrong_calls(cam, out, options):
    with pytest.raises(InputError):
        kernels.pas(cam, out, **options)
    with pytest.raises(InputError):
        kernels.largest_boxes(cam, Claim((1, 4), "<i4"), by="size")


def test_host_arrays_are_refused():
    import numpy as np

    with pytest.raises(InputError, match="CUDA device"):
        kernels.pas(np.zeros((1, 1, 2, 2), np.float32), OUT)


@needs_kernels
@pytest.mark.parametrize(("major", "blocks"), [(7, 1), (9, 8)])
def test_ahead_of_time_ptx(major, blocks):
    ptx, found = kernels.pas_ahead_of_time(major)
    text = ptx.decode()
    assert found == blocks
    assert ("reqnctapercluster 8" in text) == (blocks == 8)
    # Nothing that the assembler may contract into a fused multiply-add.
    assert not re.search(r"\bfma\.|\bmul\.f32|\badd\.f32|\bmul\.f64|\badd\.f64|\bmad\.f", text)
    head = text[text.index(".entry lidcam_pas_aot(") :].split(")")[0]
    assert re.findall(r"\.param \.(\w+)", head) == ["u64"] * 2 + ["u32"] * 8 + ["u64"] * 3


def test_structures_of_the_driver_are_those_of_the_toolkit(tmp_path):
    nvcc = shutil.which("nvcc")
    places = [Path(nvcc).resolve().parents[1] / "include"] if nvcc else []
    places.append(Path("/usr/local/cuda/include"))
    found = next((p for p in places if (p / "cuda.h").exists()), None)
    if found is None:
        pytest.skip("needs cuda.h")
    subprocess.run(
        [builds.compiler(), "-std=c++17", "-fsyntax-only", "-I", str(found), "-I", str(builds.KERNELS),
         str(builds.HERE / "abi.cpp")], check=True
    )  # fmt: skip
