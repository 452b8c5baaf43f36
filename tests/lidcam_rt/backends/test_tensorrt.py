"""The TensorRT backend on stand-ins: an "engine" that ONNX Runtime runs on the addresses it is given."""

import contextlib
import json
import threading

import artifacts
import numpy as np
import onnx
import pytest
import tensorrt_standin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_mutation import ODD, mutations
from lidcam_export.tensorrt.engine_writer import write_engine

import lidcam_rt
from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends.cuda_runtime import CudaRuntime
from lidcam_rt.backends.engine_file import (
    EngineSpec,
    Profile,
    TensorSpec,
    check_engine,
    read_sidecar,
    sidecar_path,
)
from lidcam_rt.backends.gpu_turns import GPU_TURNS
from lidcam_rt.backends.tensorrt import open_backend
from lidcam_rt.errors import ArtifactError, BackendError, InputError, MissingExtraError, OutputError, RebuildError
from lidcam_rt.files import file_sha256


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return artifacts.build(tmp_path_factory.mktemp("artifact") / "tiny.onnx")


@pytest.fixture
def engine(artifact, tmp_path):
    """The tiny artifact as an "engine" of TensorRT 11.4 for batches of 1 to 4."""
    model = onnx.load(str(artifact))
    names = [v.name for v in (*model.graph.input, *model.graph.output)]
    plan = tensorrt_standin.plan_bytes({"model": artifact.read_bytes(), "names": names, "layers": "{}"})
    path = tmp_path / "tiny.engine"
    manifest = read_manifest(artifact)
    dtypes = {"image": "uint8", "labels": "int64", "class_ids": "int64", "map8": "uint8", "mask": "uint8"}

    def shape(value):
        return value.type.tensor_type.shape.dim

    def tensors(values):
        return tuple(
            TensorSpec(name=v.name, dtype=dtypes.get(v.name, "float32"), shape=(-1,) * len(shape(v)))
            for v in values
        )

    import hashlib

    spec = EngineSpec(
        engine_bytes=len(plan), engine_sha256=hashlib.sha256(plan).hexdigest(), artifact=artifact.name,
        artifact_sha256=file_sha256(artifact), flavour="tensorrt", version="11.4.0.106", compute_capability=("8.9",),
        precision="fp32", built={"float32": 1}, evidence="network", pas="body",
        profile={"image": Profile(min=(1, 64, 64, 3), opt=(2, 64, 64, 3), max=(4, 64, 64, 3)),
                 "labels": Profile(min=(1, 1), opt=(2, 1), max=(4, 1))},
        inputs=tensors(model.graph.input), outputs=tensors(model.graph.output), manifest=manifest.to_metadata(),
        package_version="0.1.0",
    )  # fmt: skip
    write_engine(path, plan, spec)
    return path


def opened(path, trt=None, api=None, **options):
    api = api or tensorrt_standin.Cuda()
    manifest = read_sidecar(path).read_manifest(path)
    trt = trt or tensorrt_standin.module()
    return open_backend(path, manifest, trt=trt, cuda=CudaRuntime(api), **options), trt, api


def batch(n, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    return image, np.full((n, 1), -1, np.int64)


def test_gives_what_the_artifact_gives(engine, artifact):
    backend, trt, api = opened(engine)
    manifest = read_manifest(artifact)
    reference = lidcam_rt.backends.open_backend(artifact, manifest, device="cpu")
    names = ["logits", "class_ids", "scores", "cam", "map8", "mask", "threshold"]
    for seed, n in enumerate((1, 3, 4, 2, 1)):  # growing and shrinking: buffers are kept and replaced
        image, labels = batch(n, seed)
        got, want = backend.run(image, labels, names), reference.run(image, labels, names)
        assert list(got) == names
        for name in names:
            assert got[name].dtype == want[name].dtype and got[name].shape == want[name].shape
            np.testing.assert_array_equal(got[name], want[name])
    assert backend.run(image, labels, ["map8"]).keys() == {"map8"}
    assert len(trt.log.contexts) == 1 and trt.log.contexts[0].runs == 6
    assert backend.name == "tensorrt 11.4.0.106" and backend.precision == "fp32" and backend.device == "cuda:0"
    assert backend.for_streams() == (backend, 2)
    assert [entry["name"] for entry in backend.inputs] == ["image", "labels"] and len(backend.outputs) == 7
    backend.close()
    backend.close()
    assert not api.blocks and not api.streams
    with pytest.raises(InputError, match="closed"):
        backend.run(image, labels, names)


@pytest.mark.parametrize("use", ["open", "run", "close"])
def test_it_waits_while_a_graph_is_captured(engine, monkeypatch, use):
    backend = opened(engine)[0]
    uses = {"open": lambda: opened(engine), "run": lambda: backend.run(*batch(1), ["map8"]), "close": backend.close}
    settled, done = threading.Event(), []
    wait_for = GPU_TURNS._changed.wait_for

    def waiting(ready):
        if not ready():
            settled.set()
        return wait_for(ready)

    def work():
        uses[use]()
        done.append(use)
        settled.set()

    monkeypatch.setattr(GPU_TURNS._changed, "wait_for", waiting)
    thread = threading.Thread(target=work)
    with GPU_TURNS.alone():
        thread.start()
        settled.wait()
        assert not done
    thread.join()
    assert done == [use]


def test_threads_never_share_a_context(engine):
    backend, trt, api = opened(engine)
    barrier, wrong = threading.Barrier(4), []
    expected = {seed: backend.run(*batch(2, seed), ["logits"])["logits"] for seed in range(4)}

    def work(seed):
        barrier.wait()
        for _ in range(8):  # the stand-in asserts that one call at a time uses a context
            if not np.array_equal(backend.run(*batch(2, seed), ["logits"])["logits"], expected[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and 1 <= len(trt.log.contexts) <= 4
    assert sum(context.runs for context in trt.log.contexts) == 4 * 8 + 4
    assert {context.profile for context in trt.log.contexts} == {0}
    backend.close()
    assert not api.blocks and not api.streams


@pytest.mark.parametrize("fail", ["context", "execute", "memory"])
def test_a_failure_says_what_failed_and_gives_everything_back(engine, fail):
    backend, trt, api = opened(engine, api=tensorrt_standin.Cuda(memory=1000 if fail == "memory" else 1 << 30))
    image, labels = batch(2)
    if fail != "memory":
        trt.log.fail = fail
    says = {"memory": r"cudaMalloc.*out of memory", "context": "context", "execute": "batch of 2"}[fail]
    with pytest.raises(BackendError, match=says):
        backend.run(image, labels, ["logits"])
    assert not api.blocks and not api.streams
    trt.log.fail, api.memory = None, 1 << 30
    assert np.isfinite(backend.run(image, labels, ["logits"])["logits"]).all()
    backend.close()
    assert not api.blocks


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda image, labels: (np.zeros((5, 64, 64, 3), np.uint8), np.zeros((5, 1), np.int64)), r"\(4, 64, 64, 3\)"),
        (lambda image, labels: (image[:, :32], labels), "lidcam build"),
        (lambda image, labels: (image.astype(np.float32), labels), "float32"),
        (lambda image, labels: (image, None), "inputs image, labels"),
        (lambda image, labels: (image, labels.astype(np.int32)), "int32"),
    ],
)
def test_what_the_engine_does_not_take_is_refused(engine, change, says):
    backend, _, _ = opened(engine)
    with pytest.raises(InputError, match=says):
        backend.run(*change(*batch(2)), ["logits"])
    with pytest.raises(InputError, match="outputs"):
        backend.run(*batch(2), ["heat"])
    backend.close()


def edit(path, **changes):
    sidecar = sidecar_path(path)
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | changes))


def test_stale_engines_are_refused_before_they_are_loaded(engine, monkeypatch):
    trt = tensorrt_standin.module()
    monkeypatch.setattr(trt, "Runtime", None)  # deserialising would fail
    intact = engine.read_bytes()
    engine.write_bytes(intact[:-7])
    with pytest.raises(RebuildError, match="bytes, but its sidecar says"):
        opened(engine, trt)
    engine.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    with pytest.raises(RebuildError, match="SHA-256"):
        opened(engine, trt)
    engine.write_bytes(intact)
    with pytest.raises(RebuildError, match=r"built by tensorrt 11\.4.*but tensorrt 10\.8\.0\.43 is installed"):
        opened(engine, tensorrt_standin.module("10.8.0.43"))
    with pytest.raises(RebuildError, match="but tensorrt-rtx"):
        opened(engine, tensorrt_standin.module("11.4.0.106", name="tensorrt_rtx"))
    with pytest.raises(RebuildError, match=r"compute capability 8\.9, but this GPU has 9\.0"):
        opened(engine, trt, tensorrt_standin.Cuda(capability=(9, 0)))
    edit(engine, schema_version=99)
    with pytest.raises(RebuildError, match="schema 99"):
        opened(engine, trt)
    edit(engine, schema_version=1, engine_sha256="abc")
    with pytest.raises(RebuildError, match="engine_sha256"):
        opened(engine, trt)
    sidecar_path(engine).write_text("{")
    with pytest.raises(RebuildError, match="cannot be read"):
        opened(engine, trt)
    sidecar_path(engine).unlink()
    with pytest.raises(ArtifactError, match="no sidecar"):
        lidcam_rt.load(engine)


@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:12])
def test_sidecars_of_another_form(engine, text):
    sidecar_path(engine).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RebuildError, match=r"tiny\.engine\.json"):
        lidcam_rt.load(engine)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_sidecar_is_valid_or_refused(engine, data):
    original = engine.with_name("original.json")
    if not original.exists():
        original.write_bytes(sidecar_path(engine).read_bytes())
    sidecar_path(engine).write_text(data.draw(mutations(json.loads(original.read_text()))))
    with contextlib.suppress(ArtifactError, InputError, MissingExtraError, BackendError):
        opened(engine)


def test_a_huge_sidecar_is_not_read(engine, monkeypatch):
    monkeypatch.setattr("lidcam_rt.backends.engine_file._MAX_SIDECAR", 100)
    with pytest.raises(RebuildError, match="cannot be read"):
        read_sidecar(engine)


def test_an_engine_that_tensorrt_refuses(engine):
    trt = tensorrt_standin.module()
    trt.log.fail = "deserialize"
    with pytest.raises(RebuildError, match="rejects it"):
        opened(engine, trt)


def test_an_engine_of_other_tensors_is_refused(engine):
    sidecar = json.loads(sidecar_path(engine).read_text())
    edit(engine, outputs=sidecar["outputs"][:-1])
    with pytest.raises(RebuildError, match="threshold"):
        opened(engine)


def test_the_localizer_runs_an_engine(engine, artifact, monkeypatch):
    """`lidcam_rt.load` on an .engine: the same answers as the artifact, in calls and in streams."""
    trt, api = tensorrt_standin.module(), tensorrt_standin.Cuda()
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", trt)
    monkeypatch.setattr("lidcam_rt.backends.tensorrt.open_runtime", lambda index: CudaRuntime(api, index))
    pictures = [artifacts.picture("red"), artifacts.picture("blue", (10, 10, 60, 50)), artifacts.picture("green")]
    with lidcam_rt.load(engine) as fast, lidcam_rt.load(artifact, device="cpu") as slow:
        assert "tensorrt 11.4.0.106 on cuda:0, fp32" in repr(fast)
        for got, want in zip(fast.stream(pictures), (slow(p) for p in pictures), strict=True):
            assert (got.box, got.class_name) == (want.box, want.class_name)
            np.testing.assert_array_equal(got.mask, want.mask)
    assert not api.blocks and not api.streams


def test_the_verbs_take_an_engine(engine, tmp_path, monkeypatch, capsys):
    """`lidcam inspect` shows the sidecar without a GPU; `lidcam localize` runs the engine."""
    from lidcam_cli.main import main

    def run(*line):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, line)])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    status, text, _ = run("inspect", engine, "--json")
    facts = json.loads(text)
    assert status == 0 and facts["built_from"]["artifact"] == "tiny.onnx" and facts["operator"] == "standard operators"
    status, text, _ = run("inspect", engine)
    assert status == 0 and "tensorrt 11.4.0.106 for compute capability 8.9" in text and "[4, 64, 64, 3]" in text
    api = tensorrt_standin.Cuda()
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", tensorrt_standin.module())
    monkeypatch.setattr("lidcam_rt.backends.tensorrt.open_runtime", lambda index: CudaRuntime(api, index))
    import cv2

    cv2.imwrite(str(tmp_path / "red.png"), artifacts.picture("red")[..., ::-1])
    status, text, errors = run("localize", engine, tmp_path / "red.png", "-o", tmp_path / "out")
    assert status == 0, errors
    assert '"red"' in (tmp_path / "out" / "results.json").read_text() and not api.blocks


def test_what_is_missing_is_named(engine, artifact, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"lidcam-rt\[tensorrt\]"):
        lidcam_rt.load(engine)
    manifest = read_manifest(artifact)
    with pytest.raises(InputError, match=r"tensorrt loads \.engine files: make one with `lidcam build`"):
        lidcam_rt.backends.open_backend(artifact, manifest, backend="tensorrt")
    with pytest.raises(InputError, match=r"onnxruntime loads \.onnx files"):
        lidcam_rt.load(engine, backend="onnxruntime")
    with pytest.raises(InputError, match="tensorrt runs it on cuda, but device cpu"):
        lidcam_rt.load(engine, device="cpu")
    with pytest.raises(RebuildError, match="manifest"):
        open_backend(engine, manifest.model_copy(update={"top_k": 2}))


@pytest.mark.parametrize(("count", "index", "says"), [(0, 0, "driver version is insufficient"), (2, 2, "has 2 GPU")])
def test_no_driver_and_no_such_gpu(count, index, says):
    with pytest.raises(BackendError, match=says):
        CudaRuntime(tensorrt_standin.Cuda(count), index)


def test_a_broken_off_write_leaves_nothing_usable(engine, monkeypatch):
    """A stop between engine and sidecar: the pair does not fit, and is refused."""
    spec, plan = read_sidecar(engine), engine.read_bytes()
    changed = plan + b"newer"
    renames = []

    def replace(self, target):
        renames.append(target)
        if len(renames) == 2:
            raise OSError(28, "No space left on device")
        return type(self)(__import__("os").rename(self, target) or target)

    monkeypatch.setattr(type(engine), "replace", replace)
    with pytest.raises(OutputError, match="No space left"):
        write_engine(engine, changed, spec.model_copy(update={"engine_bytes": len(changed)}))
    assert sorted(p.name for p in engine.parent.iterdir()) == ["tiny.engine", "tiny.engine.json"]
    with pytest.raises(RebuildError, match="bytes, but its sidecar says"):
        check_engine(engine, read_sidecar(engine), flavour="tensorrt", version="11.4.0.106", capability="8.9")


def test_the_steps_of_a_call_are_told_with_their_stream(engine):
    backend, _, _ = opened(engine)
    entered = []

    def stage(name, stream=None):
        entered.append((name, stream))
        return contextlib.nullcontext()

    backend.observe(stage)
    backend.run(*batch(1), ["logits"])
    assert [name for name, _ in entered] == ["upload", "graph", "download"]
    assert len({stream for _, stream in entered}) == 1 and entered[0][1] is not None
