"""Several GPUs: a pool over stand-ins for two devices; kernels run on the CPU."""

from __future__ import annotations

import pytest
from test_launch import folder, needs_kernels, python  # noqa: F401
from test_resident_on_cpu import prelude  # noqa: F401

from lidcam_gpu.pool import ResidentPool
from lidcam_rt.backends import cuda_runtime
from lidcam_rt.errors import BackendError, InputError

TWO = """
import threading
from lidcam_gpu.pool import ResidentPool
from lidcam_rt.errors import BackendError, InputError

api = tensorrt_standin.Cuda(count=2)
calls = []

class Counted(ResidentLocalizer):
    def _infer(self, n):
        calls.append((self.device, n))
        super()._infer(n)

def opened(path, device, **options):
    session = ort.InferenceSession(path, session_options(read_manifest(path), 1), providers=["CPUExecutionProvider"])
    runtime = CudaRuntime(api, int(device.partition(":")[2]))
    return Counted(path, device=device, runtime=runtime, session=session, **options)

def pool(devices=("cuda:0", "cuda:1"), **options):
    return ResidentPool(path, devices=devices, open=opened, **options)

def raises(kind, says, call):
    try:
        call()
    except kind as error:
        assert says in str(error), error
    else:
        raise AssertionError(says)

def same(a, b):
    np.testing.assert_array_equal(a.maps, b.maps)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert a.boxes == b.boxes and a.class_ids.tolist() == b.class_ids.tolist()
"""


@needs_kernels
@pytest.mark.parametrize("refine", ["None", pytest.param("'psa'", marks=pytest.mark.slow)])
def test_results_of_one_gpu_in_the_order_of_the_batches(folder, prelude, refine):  # noqa: F811
    python(
        prelude
        + TWO
        + f"""
batches = [[picture(20 + i, 30 + 2 * i), picture(40, 25)][: 1 + i % 2] for i in range(9)]
with opened(path, "cuda:0", refine={refine}) as one:
    want = [one(batch, maps=True) for batch in batches]
calls.clear()
with pool(refine={refine}) as both:
    for got, expected in zip(both.stream(iter(batches), maps=True), want, strict=True):
        same(got, expected)
    assert {{device for device, _ in calls}} == {{"cuda:0", "cuda:1"}} == set(both.devices) and len(calls) == 9
    same(both(batches[1], maps=True), want[1])
    assert list(both.stream([])) == []
assert not api.blocks and not api.streams and not api.hosts
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_two_calls_run_at_once_and_a_third_waits(folder, prelude):  # noqa: F811
    python(
        prelude
        + TWO
        + """
meet, go = threading.Barrier(2), threading.Event()  # one after the other, the first would wait for ever

class Meeting(Counted):
    def _infer(self, n):
        if not go.is_set():
            meet.wait(60)
            go.set()
        super()._infer(n)

Counted = Meeting
some = [picture(30, 40)]
with pool() as both, opened(path, "cuda:0") as one:
    both_done = []
    threads = [threading.Thread(target=lambda: both_done.append(both(some))) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(both_done) == 2 and {device for device, _ in calls} == {"cuda:0", "cuda:1"}
    assert [result.boxes for result in both_done] == [one(some).boxes] * 2
    # All GPUs are busy: a call waits until one is given back, and close lets it end with an error.
    taken = [both._idle.popleft(), both._idle.popleft()]
    found, waits = [], threading.Event()
    wait_for = both._changed.wait_for
    both._changed.wait_for = lambda ready: (waits.set(), wait_for(ready))[1]
    def call():
        try:
            both(some)
        except InputError as error:
            found.append(str(error))
    late = threading.Thread(target=call)
    late.start()
    waits.wait()
    assert late.is_alive()
    both.close()
    late.join()
    assert "closed" in found[0]
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_an_error_comes_at_its_batch_and_the_pool_serves_on(folder, prelude):  # noqa: F811
    python(
        prelude
        + TWO
        + """
good = [picture(30, 40)]
asked = []
def batches():
    for i in range(40):
        asked.append(i)
        yield [np.zeros((3, 3), np.uint8)] if i == 3 else good
with pool() as both:
    stream, got = both.stream(batches()), []
    raises(InputError, "uint8 [H, W, 3]", lambda: got.extend(stream) if False else [got.append(r) for r in stream])
    assert len(got) == 3 and len(asked) <= 3 + 4 + 1, "batches are asked for as they are needed"
    for _ in range(4):
        assert both(good).boxes == got[0].boxes
    stopped = both.stream(good for _ in range(9))  # left before its end
    next(stopped)
    stopped.close()
    assert len(both._idle) == 2
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_pictures_on_a_gpu_are_localized_there(folder, prelude):  # noqa: F811
    python(
        prelude
        + TWO
        + """
from lidcam_rt._kernels import cuda

places = {}
known = cuda.device_of
cuda.device_of = lambda address: places.get(address, -1)
def on(place, array):
    array = Array(array)
    places[array.__cuda_array_interface__["data"][0]] = place
    return array
first, second, third = (on(place, picture(30, 40)) for place in (0, 1, 2))
with pool() as both:
    for place, some in ((0, first), (1, second), (1, second), (0, first)):
        calls.clear()
        both([some, picture(20, 20)])
        assert calls == [(f"cuda:{place}", 2)]
    raises(InputError, "one GPU, got cuda:0, cuda:1", lambda: both([first, second]))
    raises(InputError, "on cuda:2, this pool has cuda:0, cuda:1", lambda: both([third]))
    assert len(both._idle) == 2
with opened(path, "cuda:1") as one:
    raises(InputError, "on cuda:0, this localizer on cuda:1", lambda: one([first]))
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_nothing_is_left_where_one_gpu_cannot_be_opened(folder, prelude):  # noqa: F811
    python(
        prelude
        + TWO
        + """
raises(BackendError, "cuda:2 was asked for", lambda: pool(("cuda:0", "cuda:1", "cuda:2")))
assert not api.blocks and not api.streams and not api.hosts
with pool(("cuda:1", "cuda:1")) as twice:
    assert len(list(twice.stream([[picture(20, 20)]] * 3))) == 3 and {d for d, _ in calls} == {"cuda:1"}
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@pytest.mark.parametrize("devices", ["cuda:0", (), []])
def test_devices_are_a_list(devices):
    with pytest.raises(InputError, match="must be a list such as"):
        ResidentPool("m.onnx", devices=devices)


def test_all_gpus_of_the_machine_are_taken(monkeypatch):
    import tensorrt_standin

    api, opened = tensorrt_standin.Cuda(count=3), []
    monkeypatch.setattr(cuda_runtime, "open_runtime", lambda index=0: cuda_runtime.CudaRuntime(api, index))

    class Opened:
        def __init__(self, path, device, **options):
            self.device = device
            opened.append((device, options))

        def close(self):
            opened.remove(next(entry for entry in opened if entry[0] == self.device))

    with ResidentPool("m.onnx", open=Opened, refine="psa") as pool:
        assert opened == [(f"cuda:{i}", {"refine": "psa"}) for i in range(3)] and len(pool.devices) == 3
    assert not opened
    api.count = 0
    with pytest.raises(BackendError, match="no NVIDIA GPU answers"):
        ResidentPool("m.onnx")
