"""Encoded pictures in the resident pipeline, over stand-ins for the driver and nvImageCodec; kernels run on the CPU."""

from __future__ import annotations

import sys

import pytest
from test_launch import folder, needs_kernels, python  # noqa: F401
from test_resident_on_cpu import prelude  # noqa: F401

from lidcam_gpu import decoding
from lidcam_rt.errors import BackendError, MissingExtraError

pytestmark = pytest.mark.slow  # not in make quick

FILES = """
import gc, io, os, tempfile, threading
from pathlib import Path
import nvimgcodec_standin
from PIL import Image
from lidcam_gpu.pool import ResidentPool
from lidcam_rt.errors import BackendError, ImageError, InputError
from lidcam_rt.image import read_image

codec = nvimgcodec_standin.module()
sys.modules["nvidia"] = sys.modules["nvidia.nvimgcodec"] = codec
removed_at_exit = tempfile.TemporaryDirectory()
place = Path(removed_at_exit.name)

def encoded(pixels, form="JPEG", mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()

def kept(name, data):
    (place / name).write_bytes(data)
    return place / name

def raises(kind, says, call):
    try:
        call()
    except kind as error:
        assert says in str(error), error
        return str(error)
    raise AssertionError(says)

def same(got, want):
    np.testing.assert_array_equal(got.maps, want.maps)
    np.testing.assert_array_equal(got.scores, want.scores)
    assert got.boxes == want.boxes and got.class_ids.tolist() == want.class_ids.tolist()

turned = Image.Exif()
turned[0x0112] = 6
a, b, c, d, e = pictures
artifact = path
"""


@pytest.fixture(scope="module")
def files(prelude):  # noqa: F811
    return prelude + FILES


@needs_kernels
@pytest.mark.parametrize("where", ["cpu", "device"])
def test_a_mixed_batch_keeps_its_order(folder, files, where):  # noqa: F811
    python(
        files
        + f"where = {where!r}\n"
        + """
some = [
    kept("a.jpg", encoded(a)), str(kept("b.png", encoded(b, "PNG"))), c, encoded(d), Array(e),
    bytearray(encoded(a, mode="L")), io.BytesIO(encoded(b, progressive=True)), encoded(c, exif=turned),
    Image.fromarray(d), encoded(e, mode="CMYK"),
]
pixels = [p if isinstance(p, np.ndarray) else e if isinstance(p, Array) else read_image(p) for p in some]
some[6].seek(0)
with load(artifact, device="cpu") as reference, resident(max_batch=10, decode=where) as one:
    want = reference.batch(pixels)
    got = one(some, maps=True)
    np.testing.assert_array_equal(
        got.maps, reference.pipeline.run([reference.pipeline.prepare(p) for p in pixels])["map8"][:, 0])
    assert got.boxes == tuple(r.box for r in want) and got.class_ids.tolist() == [r.class_id for r in want]
    there = where  # of plain JPEG; all else is the CPU's
    assert got.decoded == (there, "cpu", None, there, None, "cpu", there, "cpu", "cpu", "cpu"), got.decoded
    if where == "device":
        assert codec.log.decoders == [(0, ["HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU"], ":fancy_upsampling=1")]
        assert codec.log.batches[1:] == [([(40, 50), (90, 20), (40, 50)], one._stream)]  # at once, on our stream
        codec.log.change = np.array([-255, 255, 0])  # its pixels are the ones that are used
        assert one([encoded(np.full((30, 40, 3), (255, 0, 0), np.uint8))]).class_ids.tolist() == [1]
    else:
        assert not codec.log.batches
    assert one([a]).decoded == (None,)
    raises(InputError, "use [picture]", lambda: one("a.jpg"))
    raises(InputError, "use [picture]", lambda: one(encoded(a)))
assert not api.blocks and not api.streams and not api.hosts and not codec.log.decoders
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
@pytest.mark.parametrize("where", ["cpu", "device"])
def test_bad_pictures_are_refused_as_by_the_localizer(folder, files, where):  # noqa: F811
    python(
        files
        + f"where = {where!r}\n"
        + """
good = encoded(a)
hurt = bytearray(good)
hurt[-60:-20] = bytes(range(1, 41))  # inside the scan: the markers do not show it, the decoders notice it
bad = {
    "missing": place / "none.jpg", "empty": kept("empty.jpg", b""), "half": kept("half.jpg", good[: len(good) // 2]),
    "no end": good[:-2], "no picture": b"abc" * 50, "half a png": encoded(b, "PNG")[:-30], "hurt": bytes(hurt),
    "large": kept("large.jpg", encoded(np.zeros((300, 300, 3), np.uint8))), "text": place,
    "large png": encoded(np.zeros((300, 300, 3), np.uint8), "PNG"),
}
codec.log.refuse = lambda data: data == bytes(hurt)
tasks = []
with load(artifact, device="cpu", max_pixels=89000) as reference, \\
        resident(max_batch=4, decode=where, max_pixels=89000) as one:
    want = one([a, read_image(good)], maps=True)
    for name, picture in bad.items():
        theirs = raises(ImageError, "", lambda: reference.batch([a, good, picture]))
        before = len(codec.log.batches)
        ours = raises(ImageError, "", lambda: one([a, good, picture, good]))
        assert ours == theirs.replace("images[2]", "pictures[2]"), (name, ours, theirs)
        if name != "hurt":
            assert len(codec.log.batches) == before, "refused before anything is decoded on the device"
        got = one([a, good], maps=True)  # it serves on
        same(got, want)
    import simplejpeg
    simplejpeg.decode_jpeg = None  # limits are by the header
    raises(ImageError, "over the limit of 89,000", lambda: one([bad["large"]]))
assert not api.blocks and not api.streams and not api.hosts and not codec.log.decoders
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_what_the_device_does_not_decode_is_read_on_the_cpu(folder, files):  # noqa: F811
    python(
        files
        + """
jpegs = [encoded(p) for p in pictures]
with resident(max_batch=5) as host:
    want = host(jpegs, maps=True)
with resident(max_batch=5, decode="device") as one:
    codec.log.refuse = lambda data: data in (jpegs[1], jpegs[4])
    got = one(jpegs, maps=True)
    same(got, want)
    assert got.decoded == ("device", "cpu", "device", "device", "cpu")
    # Another size than the header's, in host memory, or with gaps between rows: not what was asked for.
    Right = nvimgcodec_standin.Image
    whole = Right.__cuda_array_interface__
    for change in ({"shape": (3, 3, 3)}, {"typestr": "<u2"}, {"strides": (512, 3, 1)}):
        Right.__cuda_array_interface__ = property(lambda self: {**whole.fget(self), **change})
        got = one(jpegs, maps=True)
        same(got, want)
        assert set(got.decoded) == {"cpu"}, change
    del Right.__cuda_array_interface__
    assert set(one(jpegs).decoded) == {"cpu"}
    Right.__cuda_array_interface__ = whole
    # Where only Pillow has Pillow's bits, a picture must be in host memory.
    from lidcam_gpu import pictures as loading
    loading.columns_first, known = lambda *a: None, loading.columns_first
    before = len(codec.log.batches)
    got = one([encoded(a)])
    assert got.decoded == ("cpu",) and len(codec.log.batches) == before
    loading.columns_first = known
    codec.log.fail["decode"] = RuntimeError("CUDA Runtime failure: '#2'")
    raises(BackendError, "nvImageCodec failed on 1 pictures (CUDA Runtime failure: '#2'): use decode='cpu'",
           lambda: one([encoded(a)]))
    del codec.log.fail["decode"]
    codec.log.refuse = lambda data: False
    same(one(jpegs, maps=True), want)
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_pixels_are_read_when_the_decoders_stream_is_done(folder, files):  # noqa: F811
    python(
        files
        + """
from lidcam_rt._kernels import cuda

jpegs = [encoded(p) for p in pictures]
with resident(max_batch=5) as host:
    want = host(jpegs, maps=True)
with resident(max_batch=5, decode="device") as one:
    codec.log.stream = 77  # a stream of the decoder's own: its pixels are there once we waited for it
    waits, wait_for = [], cuda.wait_for
    def waited(stream, other, address):
        wait_for(stream, other, address)
        assert stream == one._stream
        waits.append(other)
        for image in codec.log.images:
            if image.pixels.ctypes.data == address:
                image.finish()
    cuda.wait_for = waited
    same(one(jpegs, maps=True), want)
    assert waits == [77] * 5
    codec.log.stream = None  # ours: what follows on it comes after
    same(one(jpegs, maps=True), want)
    assert waits == [77] * 5
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_eight_threads(folder, files):  # noqa: F811
    python(
        files
        + """
makers = [lambda p: encoded(p), lambda p: encoded(p, "PNG"), lambda p: p, lambda p: encoded(p, mode="L")]
batches = [[makers[(i + k) % 4](pictures[(i * k) % 5]) for k in range(1 + i % 4)] for i in range(12)]
bad = [encoded(a), encoded(b)[:-30]]
inside = threading.Lock()
def alone():
    assert inside.acquire(blocking=False), "the decoder serves one call at a time"
    inside.release()
codec.log.before = alone
with resident(max_batch=4) as host:
    want = [host(batch, maps=True) for batch in batches]
failed = []
with resident(max_batch=4, decode="device") as one:
    def work(first):
        try:
            for i in range(first, first + 12):
                if i % 5 == 0:
                    raises(ImageError, "bytes>: truncated or damaged", lambda: one(bad))
                same(one(batches[i % 12], maps=True), want[i % 12])
        except BaseException as error:
            failed.append(error)
    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
assert not failed, failed[0]
assert not api.blocks and not api.streams and not api.hosts and not codec.log.decoders
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_the_decoder_ends_with_the_localizer(folder, files):  # noqa: F811
    python(
        files
        + """
ended = []
destroy = api.cudaStreamDestroy
api.cudaStreamDestroy = lambda stream: (ended.append(list(codec.log.decoders)), destroy(stream))[1]
one = resident(decode="device")
assert len(codec.log.decoders) == 1
reading, go = threading.Event(), threading.Event()
class Slow(io.BytesIO):  # a file that is being read when the localizer is closed
    def read(self, *size):
        reading.set()
        go.wait(300)
        return super().read(*size)
said = []
def call(picture):
    try:
        one([picture])
    except InputError as error:
        said.append(str(error))
late = threading.Thread(target=call, args=(Slow(encoded(a)),))
late.start()
reading.wait(300)
one.close()
go.set()
late.join()
one.close()
call(encoded(a))
call(a)
assert said == ["this localizer is closed; open the artifact again"] * 3, said
assert ended == [[]], "before its stream"
assert not [thread for thread in threading.enumerate() if thread.name.startswith("lidcam-decode")]
assert not api.blocks and not api.streams and not api.hosts
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_what_cannot_be_opened_leaves_nothing(folder, files):  # noqa: F811
    python(
        files
        + """
from lidcam_rt.errors import MissingExtraError

raises(InputError, "decode must be 'cpu' or 'device', got 'gpu'", lambda: resident(decode="gpu"))
raises(InputError, "max_pixels must be a positive number of pixels, got 0", lambda: resident(max_pixels=0))
codec.log.fail["open"] = RuntimeError("CUDA Runtime failure: '#35'")
raises(BackendError, "nvImageCodec cannot be used on cuda:0 (CUDA Runtime failure: '#35')",
       lambda: resident(decode="device"))
del codec.log.fail["open"]
codec.log.refuse = lambda data: True  # as without nvJPEG
raises(BackendError, "nvJPEG may be missing: pip install 'lidcam-rt[gpu-decode]'", lambda: resident(decode="device"))
gc.collect()
assert not codec.log.decoders
sys.modules["nvidia.nvimgcodec"] = None
raises(MissingExtraError, "decode='device' needs packages that are not installed (nvidia.nvimgcodec not found): "
       "pip install 'lidcam-rt[gpu-decode]'", lambda: resident(decode="device"))
assert not api.blocks and not api.streams and not api.hosts
with resident() as one:  # without the package, in threads of the CPU
    assert one([encoded(a), b]).decoded == ("cpu", None)
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_a_pool_takes_encoded_pictures(folder, files):  # noqa: F811
    python(
        files
        + """
from lidcam_rt._kernels import cuda

cuda.device_of = lambda address: -1  # the driver's stand-in has one device
two = tensorrt_standin.Cuda(count=2)
def opened(path, device, **options):
    session = ort.InferenceSession(path, session_options(read_manifest(path), 1), providers=["CPUExecutionProvider"])
    runtime = CudaRuntime(two, int(device.partition(":")[2]))
    return ResidentLocalizer(path, device=device, runtime=runtime, session=session, **options)
batches = [[encoded(p, form) for p in pictures[i:]] for i in range(4) for form in ("JPEG", "PNG")]
with resident(max_batch=5) as host:
    want = [host(batch, maps=True) for batch in batches]
with ResidentPool(artifact, devices=["cuda:0", "cuda:1"], open=opened, decode="device", max_batch=5) as both:
    assert {index for index, *_ in codec.log.decoders} == {0, 1}
    for got, expected in zip(both.stream(batches, maps=True), want, strict=True):
        same(got, expected)
    stream = both.stream([batches[0], [encoded(a)[:100]], batches[1]])
    next(stream)
    raises(ImageError, "pictures[0]: <100 bytes>: ", lambda: next(stream))
    same(both(batches[2], maps=True), want[2])
assert not two.blocks and not two.streams and not two.hosts and not codec.log.decoders
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_frames_of_a_video_decoder(folder, files):  # noqa: F811
    """As PyNvVideoCodec gives them: DLPack on the device; the array interface is in the tests of arrays."""
    python(
        files
        + """
import ctypes

pointer = ctypes.pythonapi.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)

class Frame:  # host memory that says it is on the device
    def __init__(self, pixels): self.pixels, self.streams = pixels, []
    def __dlpack_device__(self): return 2, 0
    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        capsule = self.pixels.__dlpack__()
        ctypes.c_int32.from_address(pointer(capsule, b"dltensor") + 8).value = 2  # DLTensor.device.device_type
        return capsule

frames = [Frame(p) for p in (a, b)]
with resident() as one:
    got = one([*frames, encoded(c)], maps=True)
    same(got, one([a, b, read_image(encoded(c))], maps=True))
    assert got.decoded == (None, None, "cpu")
    assert [frame.streams for frame in frames] == [[one._stream]] * 2  # the decoder makes it wait for its own
with ResidentPool(artifact, devices=["cuda:0"], open=lambda path, device, **o: resident(**o)) as pool:
    same(pool(frames, maps=True), next(iter(pool.stream([[a, b]], maps=True))))
""",
        folder,
        STAND_IN_MAJOR="8",
    )


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lidcam-rt\[gpu-decode\]'"):
        decoding.open_decoder(0, 0)


class TestTheRealPackage:
    """Its decoders on the CPU, where it is installed: the calls exist, and mean what the stand-in says."""

    @pytest.fixture
    def codec(self):
        return pytest.importorskip("nvidia.nvimgcodec")

    def test_pixels_of_the_reader(self, codec):
        import numpy as np
        from test_jpeg_headers import TAKEN

        from lidcam_rt.image import read_image

        only = codec.Backend(codec.BackendKind.CPU_ONLY)
        decoder = codec.Decoder(
            device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=[only], options=":fancy_upsampling=1"
        )
        params = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)
        streams = [codec.CodeStream(data) for data in TAKEN.values()]
        for (kind, data), image in zip(
            TAKEN.items(), decoder.decode(streams, params=params, cuda_stream=0), strict=True
        ):
            view = image.__array_interface__
            assert view["typestr"] == "|u1" and tuple(view["shape"]) == image.shape and view["strides"] is None
            np.testing.assert_array_equal(np.asarray(image), read_image(data), err_msg=kind)

    def test_opened_where_no_gpu_is(self, codec):
        try:
            decoding.DeviceDecoder(codec, 0, 0).close()
        except BackendError as error:
            assert "cuda:0" in str(error)
