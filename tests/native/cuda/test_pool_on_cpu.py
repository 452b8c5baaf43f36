"""Several GPUs: a pool over stand-ins for two devices; kernels run on the CPU."""

from __future__ import annotations

import pytest
from test_launch import folder, needs_kernels, python  # noqa: F401
from test_resident_on_cpu import prelude  # noqa: F401

from lidcam_gpu.pool import ResidentPool
from lidcam_rt.backends import cuda_runtime
from lidcam_rt.errors import BackendError, InputError

pytestmark = pytest.mark.slow  # not in make quick

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
            meet.wait(300)
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
    raises(InputError, "on cuda:2, but this pool has cuda:0, cuda:1", lambda: both([third]))
    assert len(both._idle) == 2
with opened(path, "cuda:1") as one:
    raises(InputError, "on cuda:0, but this localizer is on cuda:1", lambda: one([first]))
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
raises(BackendError, "cuda:2 was requested", lambda: pool(("cuda:0", "cuda:1", "cuda:2")))
assert not api.blocks and not api.streams and not api.hosts
with pool(("cuda:1", "cuda:1")) as twice:
    assert len(list(twice.stream([[picture(20, 20)]] * 3))) == 3 and {d for d, _ in calls} == {"cuda:1"}
""",
        folder,
        STAND_IN_MAJOR="8",
    )


#: A session that captures as ONNX Runtime does: graphs belong to a thread and a number, and whoever uses a GPU during a
#: capture breaks it. `during` is called in the middle of each capture; `broken` lists what other threads did meanwhile.
CAPTURING = """
import contextlib
from lidcam_rt.backends import gpu_turns
from lidcam_rt.backends.gpu_turns import GPU_TURNS

captures, broken, capturing = [], [], []
during = lambda: None

class Runtime(CudaRuntime):
    def _call(self, name, *arguments):
        if capturing and capturing[0] is not self:
            broken.append(name)
        return super()._call(name, *arguments)

class Options:
    def __init__(self):
        self.options, self.entries = RunOptions(), {}
    def __setattr__(self, name, value):
        if name == "log_severity_level":
            self.options.log_severity_level = value
        else:
            super().__setattr__(name, value)
    def add_run_config_entry(self, key, value):
        self.entries[key] = value

class Session:
    def __init__(self, session, runtime):
        self.session, self.runtime, self.captured = session, runtime, set()
    def get_providers(self):
        return self.session.get_providers()
    def io_binding(self):
        return self.session.io_binding()
    def run_with_iobinding(self, binding, how):
        graph = how.entries.get("gpu_graph_id")
        key = threading.get_ident(), graph
        if graph is None or key in self.captured:
            return self.session.run_with_iobinding(binding, how.options)
        assert not capturing, "two at once"
        capturing.append(self.runtime)
        self.session.run_with_iobinding(binding, how.options)
        during()
        capturing.remove(self.runtime)
        if broken:
            raise RuntimeError(SAYS)
        self.captured.add(key)
        captures.append((id(self), *key))

RunOptions, ort.RunOptions = ort.RunOptions, Options
SAYS = (
    "Error in execution: Non-zero status code returned while running Conv node. Name:'/conv' Status Message: "
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, onnxruntime::"
    "common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const char*, int) "
    "[with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, void, onnxruntime::"
    "common::Status> = void] CUDA failure 901: operation failed due to a previous error during capture ; GPU=0 ; "
    "hostname=node (7) ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_graph.cc ; line=97 ; "
    "expr=cudaStreamEndCapture(stream_, &graph); "
)

def opened(path, device, **options):
    session = ort.InferenceSession(path, session_options(read_manifest(path), 1), providers=["CPUExecutionProvider"])
    runtime = Runtime(api, int(device.partition(":")[2]))
    return ResidentLocalizer(path, device=device, runtime=runtime, session=Session(session, runtime), **options)

class Other:
    '''Something that another thread does in the middle of a capture: it waits until the capture is over.'''
    def __init__(self, act):
        self.act, self.settled, self.done = act, threading.Event(), False
        self.thread = threading.Thread(target=self.run)
        self.wait_for = GPU_TURNS._changed.wait_for
    def run(self):
        GPU_TURNS._changed.wait_for = self.waiting
        try:
            self.act()
        finally:
            self.done = True
            self.settled.set()
    def waiting(self, ready):
        if threading.current_thread() is self.thread and not ready():
            self.settled.set()
        return self.wait_for(ready)
    def __call__(self):
        global during
        during = lambda: None
        self.thread.start()
        self.settled.wait()
        self.early = self.done
"""


@needs_kernels
def test_graphs_are_captured_alone_and_once(folder, prelude):  # noqa: F811
    python(
        prelude
        + TWO
        + CAPTURING
        + """
batches = [[picture(20 + i, 30 + 2 * i), picture(40, 25)][: 1 + i % 2] for i in range(8)]
with opened(path, "cuda:0") as one:
    want = [one(batch, maps=True) for batch in batches]
    assert not captures, "without graphs"
for devices in (("cuda:0", "cuda:0"), ("cuda:0", "cuda:1")):
    captures.clear()
    with pool(devices, graph=True) as both:
        during = other = Other(lambda: both(batches[0]))
        got = list(both.stream(batches[:1], maps=True))
        other.thread.join()
        assert other.done and not other.early
        for _ in range(3):  # each with threads of its own
            got = list(both.stream(batches, maps=True))
            for a, b in zip(got, want, strict=True):
                same(a, b)
        both.warm_up([1, 2])
    # Two sizes on two localizers, whichever threads called; each localizer's on one thread.
    assert len(captures) == 4 and len({(session, graph) for session, _, graph in captures}) == 4
    assert len({(session, thread) for session, thread, _ in captures}) == 2
    assert not broken
assert not api.blocks and not api.streams and not api.hosts
""",
        folder,
        STAND_IN_MAJOR="8",
    )


#: What of this package uses a GPU, on another localizer or none.
USES = {
    "call": "one = opened(path, 'cuda:1')\nact = lambda: one([picture(20, 30)])",
    "open": "act = lambda: opened(path, 'cuda:1').close()",
    "close": "one = opened(path, 'cuda:1')\nact = one.close",
    "kernel": """
from lidcam_gpu import kernels
cam, out = np.zeros((1, 1, 4, 4), np.float32), [np.zeros((1, 1, 8, 8), np.uint8) for _ in range(2)]
out.append(np.zeros((1, 1), np.float32))
act = lambda: kernels.pas(Array(cam), tuple(map(Array, out)))
""",
    "warm_up": "from lidcam_gpu import kernels\nact = lambda: kernels.warm_up(Array(np.zeros(4, np.float32)))",
    "devices": "from lidcam_gpu import kernels\nact = kernels.devices",
    "onnxruntime": """
from lidcam_rt.backends.onnxruntime import OrtBackend
session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
host = OrtBackend(type("", (), {"RunOptions": RunOptions, "__version__": "1"}), session, "cuda:0")
side = read_manifest(path).input
feed = [np.zeros((1, side.height, side.width, 3), np.uint8), np.full((1, 1), -1, np.int64)][: len(host.inputs)]
act = lambda: host.run(*feed, *[None] * (2 - len(feed)), ["scores"])
""",
    "onnxruntime closes": """
from lidcam_rt.backends.onnxruntime import OrtBackend
host = OrtBackend(ort, ort.InferenceSession(path, providers=["CPUExecutionProvider"]), "cuda:0")
act = host.close
""",
    "onnxruntime opens": """
from lidcam_rt.backends import onnxruntime as backend
act = lambda: backend._start(ort, path, read_manifest(path), 1, [("CUDAExecutionProvider", {}), "CPUExecutionProvider"])
""",
}


@needs_kernels
@pytest.mark.parametrize("use", USES)
def test_whatever_uses_a_gpu_waits_for_a_capture(folder, prelude, use):  # noqa: F811
    python(
        prelude
        + TWO
        + CAPTURING
        + USES[use]
        + """
with opened(path, "cuda:0", graph=True) as capturer:
    during = other = Other(act)
    capturer([picture(30, 40)])
    other.thread.join()
    assert other.done and not other.early, "it did not wait"
    capturer([picture(30, 40)])  # a replay
    assert len(captures) == 1 and not broken
""",
        folder,
        STAND_IN_MAJOR="8",
    )


@needs_kernels
def test_a_capture_that_a_foreign_thread_breaks_says_so(folder, prelude):  # noqa: F811
    python(
        prelude
        + TWO
        + CAPTURING
        + """
def during():
    thread = threading.Thread(target=lambda: Runtime(api, 1).wait(0))  # a user's own, which knows of no turns
    thread.start()
    thread.join()

some = [picture(30, 40)] * 2
with opened(path, "cuda:0", graph=True) as one, opened(path, "cuda:0", graph=True) as two:
    raises(BackendError, "the CUDA graph of a batch of 2 could not be captured (Error in execution: Non-zero status "
        "code returned while running Conv node. Name:'/conv' Status Message: CUDA failure 901: operation failed due to "
        "a previous error during capture (cudaStreamEndCapture(stream_, &graph))): another thread of this process used "
        "a GPU meanwhile (PyTorch, say)", lambda: one(some))
    raises(BackendError, "call warm_up([2]) before other threads use a GPU, or open the artifact with graph=False",
        lambda: two(some))
    broken.clear()
    during = lambda: None
    assert one(some).boxes == two(some).boxes, "the next call captures"
    calls = len(captures)
    raises(InputError, "such as [1, 8], got 8", lambda: one.warm_up(8))
    raises(InputError, "such as [1, 8], got [0]", lambda: one.warm_up([0]))
    raises(InputError, "1 to 32 pictures", lambda: one.warm_up([33]))
    one.warm_up(size for size in (1, 2, 3))
    assert len(captures) == calls + 2
    SAYS = "Error in execution: Failed to allocate memory for requested buffer of size 7"
    broken.append("memory")
    raises(BackendError, "size 7). Try a smaller batch; or, if another thread", lambda: one(some * 2))
raises(InputError, "closed", lambda: one.warm_up([1]))
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
