"""What the launcher asks of the driver, counted by the stand-in: limits, memory, contexts, clusters, streams."""

from __future__ import annotations

import sys

import builds
import numpy as np
import pytest
from test_launch import Claim, folder, needs_kernels, python  # noqa: F401
from test_onnxruntime_op import ort_headers
from test_onnxruntime_op import python as with_onnxruntime

from lidcam_gpu import kernels
from lidcam_rt.errors import InputError

pytestmark = pytest.mark.slow  # not in make quick

COUNTED = """
import ctypes
names = "inits loads retains limits pools from_pool otherwise waits".split()
def counts():
    out = (ctypes.c_int * len(names))()
    ctypes.CDLL("libcuda.so.1").stand_in_counts(out)
    return dict(zip(names, out))
def pas_arrays(n, h, w, height, width):
    maps = [np.zeros((n, 1, height, width), np.uint8) for _ in range(2)]
    cam = np.random.default_rng(0).random((n, 1, h, w), np.float32)
    return Array(cam), (*map(Array, maps), Array(np.zeros((n, 1), np.float32)))
"""


@needs_kernels
def test_shared_memory_is_allowed_once_per_kernel(folder):  # noqa: F811
    """Not at each launch: of two threads with different sizes, one would be refused."""
    out = python(
        COUNTED
        + """
from concurrent.futures import ThreadPoolExecutor
def one(side):
    for _ in range(4):
        kernels.pas(*pas_arrays(1, side, side, 31, 20))  # the map itself is in shared memory: over 48 KB each
with ThreadPoolExecutor(2) as pool:
    list(pool.map(one, (115, 120, 125, 130)))
print(counts()["limits"], counts()["loads"])
""",
        folder,
        STAND_IN_MAJOR="8",
    )
    assert out.split() == ["1", "1"]


@needs_kernels
def test_memory_of_a_pool_that_keeps_it_or_of_the_caller(folder):  # noqa: F811
    python(
        COUNTED
        + """
masks = (np.random.default_rng(0).random((3, 20, 30)) < 0.5).view(np.uint8)
boxes = np.zeros((3, 4), np.int32)
need = kernels.boxes_workspace(3, (20, 30))
for size, taken in ((None, 1), (need - 1, 2), (need, 2), (need + 100, 2)):
    workspace = None if size is None else Array(np.zeros(size, np.uint8))
    kernels.largest_boxes(Array(masks), Array(boxes), workspace=workspace)
    assert [tuple(b) for b in boxes] == [largest_box(m) for m in masks]
    assert counts()["from_pool"] == taken, (size, counts())
shape = (1, 2, 9, 11)
image, unary = np.zeros((1, 9, 11, 3), np.uint8), np.random.default_rng(0).random(shape, np.float32)
results = []
for workspace in (None, Array(np.zeros(kernels.mean_field_workspace(shape, "example"), np.uint8))):
    q, status = np.zeros(shape, np.float32), np.ones(1, np.int32)
    kernels.mean_field(Array(image), Array(unary), (Array(q), Array(status)), options="example", workspace=workspace)
    results.append(q)
assert np.array_equal(*results) and np.isfinite(q).all()
assert (counts()["from_pool"], counts()["otherwise"], counts()["pools"]) == (3, 0, 1), counts()
kept = ctypes.CDLL("libcuda.so.1").stand_in_pool_kept
kept.restype = ctypes.c_uint64
assert kept() == 2**30
""",
        folder,
    )


@needs_kernels
def test_a_primary_context_is_retained_once(folder):  # noqa: F811
    out = python(
        COUNTED
        + """
kernels.available()
ctypes.CDLL("libcuda.so.1").stand_in_place(-1, 1)
for _ in range(5):
    kernels.pas(*pas_arrays(1, 3, 3, 8, 8))
print(counts()["retains"])
""",
        folder,
    )
    assert out == "1\n"


@needs_kernels
@pytest.mark.parametrize(
    ("at_once", "clusters"),
    [
        ("16 33 66", "8 4 1"),
        ("14 32 66", "8 2 1"),  # 33 clusters of 4 do not run at once where multiprocessors come in groups of 16 or 18
        ("0 0 0", "1 1 1"),  # a slice of a device that holds no cluster
    ],
)
def test_clusters_that_run_at_once(folder, at_once, clusters):  # noqa: F811
    out = python(
        COUNTED
        + """
for n in (1, 33, 200):
    kernels.pas(*pas_arrays(n, 6, 5, 48, 40))
    last = (ctypes.c_int * 4)()
    ctypes.CDLL("libcuda.so.1").stand_in_last(last)
    print(last[1], end=" ")
""",
        folder,
        STAND_IN_MAJOR="9",
        STAND_IN_CLUSTERS=at_once,
    )
    assert out.strip() == clusters


@needs_kernels
@pytest.mark.parametrize("major", ["8", "9"])
def test_a_warm_up_loads_everything(folder, major):  # noqa: F811
    """So that nothing is loaded while a CUDA graph is captured."""
    python(
        COUNTED
        + """
cam, out = pas_arrays(1, 6, 5, 48, 40)
kernels.warm_up(cam)
before = counts()
assert before["loads"] == 4 and before["limits"] >= 8, before
boxes = Array(np.zeros((1, 4), np.int32))
for n in (1, 40, 200):
    kernels.pas(*pas_arrays(n, 6, 5, 48, 40))
kernels.largest_boxes(Array(out[1].a[0]), boxes)
kernels.boxes_at_size(Array(out[0].a[0]), Array(np.zeros(1, np.float32)), (30, 30), boxes)
unary = np.random.default_rng(0).random((1, 3, 8, 9), np.float32)
kernels.mean_field(Array(np.zeros((1, 8, 9, 3), np.uint8)), Array(unary),
                   (Array(unary.copy()), Array(np.zeros(1, np.int32))), labels=[0, 2])
after = counts()
assert (after["loads"], after["limits"]) == (before["loads"], before["limits"]), (before, after)
""",
        folder,
        STAND_IN_MAJOR=major,
    )


@needs_kernels
def test_a_full_table_stops_filling(folder):  # noqa: F811
    """Noise has more vertices than the table has room for; without a free slot every search would be a long one."""
    python(
        """
from lidcam_rt.crf import CrfOptions
shape = (1, 2, 40, 40)
options = CrfOptions(gaussian_compat=0, bilateral_srgb=1.0)
image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
memory = np.zeros(kernels.mean_field_workspace(shape, options, vertices_per_pixel=0.5), np.uint8)
q, status = np.zeros(shape, np.float32), np.zeros(1, np.int32)
kernels.mean_field(Array(image), Array(q.copy()), (Array(q), Array(status)), options=options, workspace=Array(memory),
                   vertices_per_pixel=0.5)
assert status[0] == 1
capacity, slots = 864, 2048  # kernels/cuda/launch_crf.cpp
keys = memory[: 8 * slots].view(np.uint64)
used = (keys != np.uint64(2**64 - 1)).sum()
assert capacity < used <= capacity + 128, used  # what a block had under way
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_the_stream_of_a_call_waits_for_those_of_its_arrays(folder):  # noqa: F811
    python(
        COUNTED
        + """
class Pending(Array):  # __cuda_array_interface__ 3: wait for this stream
    stream = 1000
    @property
    def __cuda_array_interface__(self):
        return {**super().__cuda_array_interface__, "stream": self.stream}
def last():
    out = (ctypes.c_uint64 * 2)()
    ctypes.CDLL("libcuda.so.1").stand_in_last_wait(out)
    return counts()["waits"], *out
cam, out = pas_arrays(1, 3, 3, 8, 8)
kernels.pas(cam, out, stream=77)
assert last() == (0, 0, 0)
pending = Pending(cam.a)
kernels.pas(pending, out)  # on the array's own stream
assert last() == (0, 0, 0)
kernels.pas(pending, out, stream=77)
assert last() == (1, 77, 1000)
kernels.pas(pending, out, stream=1000)
assert last() == (1, 77, 1000)
kernels.pas(cam, (Pending(out[0].a), *out[1:]), stream=None)  # the first stream that an array names
assert last() == (1, 77, 1000)
legacy = Pending(cam.a)
legacy.stream = 1
kernels.pas(legacy, out, stream=0)  # two names of the default stream
assert last() == (1, 77, 1000)

class Exported:  # DLPack: the library is told the stream and waits itself
    def __init__(self, a): self.a, self.asked = a, []
    def __dlpack_device__(self): return 2, 0
    def __dlpack__(self, stream=None, max_version=None):
        self.asked.append(stream)
        import gc; gc.collect()
        raise BufferError("not today")
given = Exported(cam.a)
for stream, told in ((77, 77), (None, 1), (2, 2)):
    try:
        kernels.pas(given, out, stream=stream)
    except ValueError as error:
        assert "cam cannot be used: not today" in str(error), error
    assert given.asked[-1] == told, given.asked
""",
        folder,
    )


@needs_kernels
def test_arrays_on_several_devices_are_refused(folder):  # noqa: F811
    out = python(
        COUNTED
        + """
class Far(Array):
    @property
    def __cuda_array_interface__(self):
        return {**super().__cuda_array_interface__, "data": (1 << 60, False)}
cam, out = pas_arrays(1, 3, 3, 8, 8)
try:
    kernels.pas(cam, (out[0], Far(out[1].a), out[2]))
except ValueError as error:
    print(error)
""",
        folder,
    )
    assert "one device, got cam on cuda:0" in out and "out[1] on cuda:1" in out


class Strange:
    """A tensor that records gradients, as PyTorch's is."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")


def read_only(shape, kind):
    claim = Claim(shape, kind)
    claim.__cuda_array_interface__["data"] = (4096, True)
    return claim


def test_what_cannot_be_written_or_taken_is_refused():
    out = Claim((1, 1, 4, 4), "|u1"), Claim((1, 1, 4, 4), "|b1"), Claim((1, 1), "<f4")
    with pytest.raises(InputError, match=r"cam cannot be used.*requires grad.*pass cam.detach\(\)"):
        kernels.pas(Strange(), out)
    for i, array in enumerate(out):
        shape, kind = (array.__cuda_array_interface__[name] for name in ("shape", "typestr"))
        wrong = [*out]
        wrong[i] = read_only(shape, kind)
        with pytest.raises(InputError, match=rf"out\[{i}\].*read-only"):
            kernels.pas(Claim((1, 1, 2, 2), "<f4"), tuple(wrong))
    with pytest.raises(InputError, match="stream must be"):
        kernels.pas(Claim((1, 1, 2, 2), "<f4"), out, stream="main")
    with pytest.raises(InputError, match="CUDA device"):  # DLPack of host memory
        kernels.pas(np.zeros((1, 1, 2, 2), np.float32), out)
    with pytest.raises(InputError, match="height and width"):
        kernels.boxes_workspace(1, (0, 3))
    with pytest.raises(InputError, match="at least 2 labels"):
        kernels.mean_field_workspace((1, 1, 8, 8))


def test_what_a_capsule_holds_outlives_the_look():
    """Its memory may be nobody else's."""
    from lidcam_rt._kernels import cuda

    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    before = sys.getrefcount(array)
    answer = cuda.look(array.__dlpack__())
    assert answer[:6] == (array.ctypes.data, (3, 4), 2, 32, False, True)
    assert sys.getrefcount(array) > before
    del answer
    assert sys.getrefcount(array) == before
    frozen = np.zeros(3, np.uint8)
    frozen.flags.writeable = False
    assert cuda.look(frozen.__dlpack__(max_version=(1, 0)))[1] == (3,)


@needs_kernels
def test_sessions_on_the_cpu_leave_the_driver_alone(folder):  # noqa: F811
    """It would be initialised for every process that forks afterwards."""
    from lidcam_rt.pas import ops_library

    path = ops_library()
    if path is None:
        pytest.skip("this build has no operator library")
    out = with_onnxruntime(
        COUNTED.replace("def pas_arrays", "def unused").split("def unused")[0]
        + "compare(sys.argv[1])\nprint(counts()['inits'])",
        folder,
        path,
    )
    assert out == "0\n"


def test_the_operator_needs_a_stream_of_its_provider(folder):  # noqa: F811
    """The default stream does not wait for a provider's own."""
    flags = "-O1", "-shared", "-DLIDCAM_OPS_MAY_LACK_STREAM=false", "-isystem", str(ort_headers())
    strict = builds.build("cuda_op_strict", "cuda_op.cpp", *flags, shim=False)
    out = with_onnxruntime(
        """
options = dict(percentile=98.0, theta=0.5, mode="threshold", precision="uint8", where="resized", interpolation="cubic")
feed = {"cam": np.ones((1, 1, 2, 2), np.float32), "like": np.zeros((4, 4), np.uint8)}
try:
    session(sys.argv[1], options).run(None, feed)
except Exception as error:
    print(error)
""",
        folder,
        strict,
    )
    assert "the execution provider has no stream" in out
