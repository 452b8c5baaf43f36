"""The resident pipeline without a GPU: the launcher over the stand-in driver, ONNX Runtime's CPU on its addresses."""

from __future__ import annotations

import builds
import numpy as np
import pytest
from PIL import Image
from test_launch import folder, needs_kernels, python  # noqa: F401

from lidcam_gpu.resample import columns_first, resample_tables
from lidcam_gpu.resident import ResidentLocalizer
from lidcam_rt.errors import BackendError, InputError

pytestmark = pytest.mark.slow  # not in make quick

PICTURES = """
import sys
sys.path[:0] = [%r, %r]
import onnxruntime as ort
import artifacts, tensorrt_standin
from lidcam_rt import load
from lidcam_rt.backends.onnxruntime import session_options
from lidcam_rt.artifact import read_manifest
from lidcam_gpu.resident import ResidentLocalizer
from lidcam_rt.backends.cuda_runtime import CudaRuntime

path = %r
api = tensorrt_standin.Cuda()
def resident(**options):
    session = ort.InferenceSession(path, session_options(read_manifest(path), 1), providers=["CPUExecutionProvider"])
    return ResidentLocalizer(path, runtime=CudaRuntime(api), session=session, **options)
rng = np.random.default_rng(5)
def picture(h, w):
    import cv2
    return cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), (w, h))
pictures = [picture(*size) for size in ((40, 50), (40, 50), (24, 31), (90, 20), (64, 64))]
"""


@pytest.fixture(scope="module")
def prelude(tmp_path_factory):
    import artifacts

    path = tmp_path_factory.mktemp("artifact") / "tiny.onnx"
    artifacts.build(path)
    return PICTURES % (str(builds.HERE), str(builds.ROOT / "tests"), str(path))


@needs_kernels
def test_maps_classes_and_boxes_of_the_localizer(folder, prelude):  # noqa: F811
    python(
        prelude
        + """
with load(path, device="cpu") as reference, resident(max_batch=5) as one:
    size = one.manifest.input.height, one.manifest.input.width
    pictures.append(picture(*size))  # nothing to resample
    for some in (pictures[:5], pictures[1:4], pictures[5:]):
        want = reference.batch(some)
        maps = reference.pipeline.run([reference.pipeline.prepare(p) for p in some])["map8"][:, 0]
        got = one(some, maps=True)
        np.testing.assert_array_equal(got.maps, maps)
        assert got.class_ids.tolist() == [r.class_id for r in want]
        assert got.boxes == tuple(r.box for r in want), (got.boxes, [r.box for r in want])
        np.testing.assert_allclose(got.scores, [r.score for r in want], rtol=1e-6)
        np.testing.assert_array_equal(got.thresholds, np.float32([r.threshold for r in want]))
        on_device = one([Array(p) for p in some], maps=True)
        np.testing.assert_array_equal(on_device.maps, maps)
        assert one(some).maps is None
    try:
        one(pictures)
    except Exception as error:
        assert type(error).__name__ == "InputError" and "1 to 5 pictures" in str(error), error
    else:
        raise AssertionError
assert not api.blocks and not api.streams and not api.hosts
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_refined_as_on_the_cpu(folder, prelude):  # noqa: F811
    python(
        prelude
        + """
with load(path, device="cpu") as reference, resident(refine="psa", max_batch=3) as one:
    some = pictures[:3]
    some[1] = np.full_like(some[1], 7)  # its map is constant, its mask empty: nothing to refine
    want = reference.batch(some, refine="psa-fast")
    got = one(some, maps=True)
    assert got.thresholds.tolist() == [127.0] * 3
    refined = [r.map for r in want]
    for i, box in enumerate(got.boxes):
        assert (box is None) == (want[i].box is None), i
        if box:
            assert np.abs(np.subtract(box, want[i].box)).max() <= 1, (i, box, want[i].box)
        else:
            assert not got.maps[i].any()
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_after_an_error_it_serves_on_and_memory_is_bounded(folder, prelude):  # noqa: F811
    python(
        prelude
        + """
from lidcam_gpu import pictures as loading
from lidcam_rt.errors import BackendError, InputError

def raises(kind, says, call):
    try:
        call()
    except kind as error:
        assert says in str(error), error
    else:
        raise AssertionError(says)

loading._TABLES = 6
with load(path, device="cpu") as reference, resident(max_batch=2) as one:
    for side in range(20, 60):
        some = [picture(side, side + 3)]
        assert one(some).boxes[0] == reference(some[0]).box
    assert len([name for name in one._memory._buffers if name.startswith("weights")]) <= 6
    raises(InputError, "uint8 [H, W, 3]", lambda: one([some[0].astype(np.float32)]))
    raises(InputError, "up to 32768 pixels a side", lambda: one([np.zeros((40000, 1, 3), np.uint8)]))
    waits = []
    wait, api.cudaStreamSynchronize = api.cudaStreamSynchronize, lambda stream: (waits.append(stream), wait(stream))[1]
    session, one._session = one._session, type("", (), {"io_binding": lambda s: 1 / 0})()
    raises(ZeroDivisionError, "", lambda: one(some))
    assert waits  # the copy from pinned memory is over before the next call writes there
    one._session = session
    assert one(some).boxes[0] == reference(some[0]).box
    loading.columns_first = lambda *a: None  # a Pillow with arithmetic of its own
    assert one(some).boxes[0] == reference(some[0]).box
    raises(InputError, "pass it in host memory", lambda: one([Array(some[0])]))
    one.manifest = one.manifest.model_copy(update={"class_names": ("red",)})
    assert one([np.full((9, 9, 3), (255, 0, 0), np.uint8)]).class_ids.tolist() == [0]
    raises(BackendError, "returned class 2", lambda: one([np.full((9, 9, 3), (0, 0, 255), np.uint8)]))
assert not api.blocks and not api.streams and not api.hosts
api.memory = 1000
raises(BackendError, "out of memory", lambda: resident())
assert not api.blocks and not api.streams and not api.hosts
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("before", "after"),
    [((37, 53), (20, 31)), ((20, 30), (64, 48)), ((1, 1), (4, 9)), ((60, 13), (22, 24)), ((13, 60), (22, 24))],
)
def test_tables_give_pillows_bits(before, after, interpolation):
    picture = np.random.default_rng(1).integers(0, 256, (*before, 3), np.uint8)
    got = picture.astype(np.int64)
    x_first = columns_first(before, after, interpolation)
    for axis in (1, 0) if x_first else (0, 1):
        bounds, weights = resample_tables(before[axis], after[axis], interpolation)
        whole = np.zeros((after[axis], before[axis]), np.int64)
        for i, (first, count) in enumerate(bounds):
            whole[i, first : first + count] = weights[i, :count]
        got = np.clip((np.moveaxis(np.tensordot(whole, got, (1, axis)), 0, axis) + (1 << 21)) >> 22, 0, 255)
    kind = getattr(Image.Resampling, interpolation.upper())
    np.testing.assert_array_equal(got, np.asarray(Image.fromarray(picture).resize(after[::-1], kind)))


def test_what_does_not_fit_is_refused(prelude, tmp_path):
    import artifacts

    path = artifacts.build(tmp_path / "tiny.onnx")
    with pytest.raises(InputError, match="runs on cuda or cuda:INDEX, got 'cpu'"):
        ResidentLocalizer(path, device="cpu")
    with pytest.raises(InputError, match="network's size"):
        ResidentLocalizer(path, refine="psa@original")
    with pytest.raises(InputError, match="max_batch must be 1 to 4096"):
        ResidentLocalizer(path, max_batch=0)
    with pytest.raises(BackendError, match=r"cuda-python|no NVIDIA GPU"):
        ResidentLocalizer(path)
