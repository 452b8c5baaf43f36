"""The cache of engines: one build per key, whoever asks, and nothing loaded that does not fit its sidecar."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorrt_standin as standin
from lidcam_export.tensorrt import builder as pipeline
from lidcam_export.tensorrt.builder import build_engine
from lidcam_export.tensorrt.engine_cache import EngineCache
from lidcam_export.tensorrt.options import BuildOptions

import lidcam_rt
from lidcam_rt.backends.cuda_runtime import CudaRuntime
from lidcam_rt.backends.engine_file import read_sidecar, sidecar_path
from lidcam_rt.errors import BackendError, ExportError, InputError, MissingExtraError, RebuildError
from lidcam_rt.files import file_sha256, locked

pytestmark = pytest.mark.slow  # not in make quick

OPTIONS = BuildOptions(batch=(1, 1, 2))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, the user's of this test, on a machine with a GPU of compute capability 8.9."""
    monkeypatch.setenv("LIDCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "compare_half", lambda full, half, manifest: {"top1": 1.0})
    monkeypatch.setattr(pipeline, "compute_capability", lambda index=0: "8.9")
    return EngineCache.default()


@pytest.fixture
def trt():
    return standin.module()


def built(trt):
    return len(trt.log.networks)


def test_one_build_per_key(resnet10, tmp_path, cache, trt):
    first = build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    again = build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    assert (first.source, again.source, built(trt)) == ("built", "cache", 1) and first.path == again.path
    assert first.path.parent == cache.folder == tmp_path / "cache" / "engines"
    assert first.spec == read_sidecar(again.path)
    # A file elsewhere is a copy: neither hangs on the other.
    output = tmp_path / "m.engine"
    copied = build_engine(resnet10, output, OPTIONS, cache=cache, trt=trt)
    assert (copied.source, built(trt)) == ("cache", 1) and copied.spec == read_sidecar(output) == first.spec
    assert file_sha256(output) == first.spec.engine_sha256 and not output.samefile(first.path)
    assert build_engine(resnet10, output, OPTIONS, cache=cache, trt=trt).source == "up to date"
    forced = BuildOptions(batch=(1, 1, 2), force=True)
    assert build_engine(resnet10, output, forced, cache=cache, trt=trt).source == "built"
    names = {path.name for path in cache.folder.iterdir()}
    assert names == {first.path.name, f"{first.path.name}.json"}, "locks and temporary files are gone"


@pytest.mark.parametrize(
    ("other", "version"),
    [
        (BuildOptions(batch=(1, 1, 4)), "11.4.0.106"),
        (BuildOptions(batch=(1, 1, 2), size=(192, 224)), "11.4.0.106"),
        (BuildOptions(batch=(1, 1, 2), precision="fp16"), "11.4.0.106"),
        (OPTIONS, "11.5.0.1"),
    ],
)
def test_what_differs_is_built_apart(resnet10, cache, trt, other, version):
    first = build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    second = build_engine(resnet10, options=other, cache=cache, trt=standin.module(version))
    assert second.source == "built" and first.path != second.path
    assert build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt).source == "cache"
    assert {entry.path for entry in cache.entries()} == {first.path, second.path}


def test_another_gpu_and_another_artifact_are_built_apart(resnet10, tmp_path, cache, trt, monkeypatch):
    build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    import onnx

    model = onnx.load(str(resnet10))
    model.doc_string = "another file"
    onnx.save(model, str(tmp_path / resnet10.name))
    assert build_engine(tmp_path / resnet10.name, options=OPTIONS, cache=cache, trt=trt).source == "built"
    monkeypatch.setattr(pipeline, "compute_capability", lambda index=0: "9.0")
    assert build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt).source == "built"
    assert len(cache.entries()) == 3


def _flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _of_another_engine(path):
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(sidecar | {"artifact_sha256": "0" * 64}))


DAMAGE = {
    "a byte is flipped": _flip_a_byte,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "replaced": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "the sidecar of another engine": _of_another_engine,
    "no sidecar": lambda path: sidecar_path(path).unlink(),
    "a sidecar that is no JSON": lambda path: sidecar_path(path).write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_does_not_fit_is_built_again_and_never_read(resnet10, cache, trt, damage, caplog, monkeypatch):
    good = build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    damage(good.path)
    read = []
    monkeypatch.setattr(standin, "read_plan", lambda data: read.append(data))
    with monkeypatch.context() as broken:  # nothing but the check sees it, also where no new one can be built
        broken.setattr(trt.log, "fail", "build")
        with pytest.raises(ExportError, match="no kernel"):
            build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    assert not read and "does not fit its sidecar" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(pipeline, "compute_capability", lambda index=0: "8.9")
    again = build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    assert again.source == "built" and file_sha256(again.path) == good.spec.engine_sha256


BUILDER = """
import sys, time
from pathlib import Path
import tensorrt_standin as standin
from lidcam_export.tensorrt import builder
from lidcam_export.tensorrt.engine_cache import EngineCache
from lidcam_export.tensorrt.options import BuildOptions

builder.compute_capability = lambda index=0: "8.9"
folder, trt = Path(sys.argv[2]), standin.module()
build = trt.Builder.build_serialized_network

def slow(self, network, config):
    with (folder / "builds").open("a") as file:
        file.write("x")
    print("builds", flush=True)
    sys.stdin.readline()
    return build(self, network, config)

trt.Builder.build_serialized_network = slow
done = builder.build_engine(
    Path(sys.argv[1]), options=BuildOptions(batch=(1, 1, 2)), cache=EngineCache.default(), trt=trt
)
print(done.source, flush=True)
"""


def start(resnet10, folder):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(resnet10), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(standin.__file__).parent)},
    )  # fmt: skip


@pytest.mark.parametrize("killed", [False, True])
def test_of_two_builders_one_builds(resnet10, tmp_path, cache, killed):
    first = start(resnet10, tmp_path)
    second = None
    try:
        assert first.stdout.readline() == "builds\n"
        second = start(resnet10, tmp_path)
        assert any("waiting for it" in line for line in iter(second.stderr.readline, ""))
        if killed:  # the lock ends with its process: the one that waits builds
            first.kill()
            assert second.stdout.readline() == "builds\n"
            second.stdin.write("\n")
            second.stdin.flush()
        else:
            first.stdin.write("\n")
            first.stdin.flush()
            assert first.stdout.readline() == "built\n"
        assert second.stdout.readline() == ("built\n" if killed else "cache\n")
        assert (tmp_path / "builds").read_text() == ("xx" if killed else "x")
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()
    (entry,) = cache.entries()
    assert not entry.fault and file_sha256(entry.path) == entry.spec.engine_sha256


def test_clear_removes_what_a_killed_builder_left_and_nothing_that_is_being_written(cache):
    cache.open()
    left, written = (cache.folder / f".{digit * 64}.engine{end}.part" for digit, end in (("a", ""), ("b", ".json")))
    other = cache.folder / "notes.txt"
    for path in (left, written, other):
        path.write_text("x")
    with locked(cache.lock("b" * 64)):
        assert cache.clear() == ([], [])
        assert {path.name for path in cache.folder.iterdir()} == {
            written.name, other.name, cache.lock("b" * 64).name
        }  # fmt: skip
    cache.clear()
    assert [path.name for path in cache.folder.iterdir()] == [other.name]


def test_a_cache_of_another_user_is_refused(resnet10, cache, trt, monkeypatch):
    build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    cache.folder.chmod(0o777)
    with pytest.raises(InputError, match=r"everyone can write.*chmod o-w"):
        build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    cache.folder.chmod(0o700)
    owner = cache.folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 4321)
    if owner != 0:
        with pytest.raises(InputError, match="belongs to another user"):
            build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)


def test_neither_file_nor_cache(resnet10, trt):
    with pytest.raises(InputError, match="a file"):
        build_engine(resnet10, trt=trt)


def test_load_takes_an_artifact_to_its_engine(resnet10, cache, trt, monkeypatch):
    api = standin.Cuda()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr("lidcam_rt.backends.tensorrt.open_runtime", lambda index: CudaRuntime(api, index))
    for _ in range(2):
        with lidcam_rt.load(resnet10, backend="tensorrt") as localizer:
            assert localizer.path.parent == cache.folder and localizer.backend.name.startswith("tensorrt 11.4")
    assert built(trt) == 1
    _flip_a_byte(localizer.path)
    engine = localizer.path
    with pytest.raises(RebuildError, match=r"SHA-256|bytes"):
        lidcam_rt.load(engine)
    with lidcam_rt.load(resnet10, backend="tensorrt", precision="fp16") as half:
        assert half.path != engine
    with pytest.raises(InputError, match="fp32 and fp16"):
        lidcam_rt.load(resnet10, backend="tensorrt", precision="bf16")
    monkeypatch.setitem(sys.modules, "lidcam_export.tensorrt.builder", None)
    with pytest.raises(MissingExtraError, match=r"an engine of .*lidcam-rt\[export\]"):
        lidcam_rt.load(resnet10, backend="tensorrt")


def test_load_without_a_gpu_says_so(resnet10, cache, monkeypatch):
    monkeypatch.setattr(pipeline, "compute_capability", lambda index=0: None)
    with pytest.raises(BackendError, match="no NVIDIA GPU 1"):
        lidcam_rt.load(resnet10, backend="tensorrt", device="cuda:1")


def lidcam(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", "from lidcam_cli.main import main; main()", *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "80", "TERM": "dumb"}, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_verb_lists_and_clears(resnet10, cache, trt):
    assert lidcam("cache", "list")[1].startswith("0 engines, 0.0 MB, in ")
    first = build_engine(resnet10, options=OPTIONS, cache=cache, trt=trt)
    second = build_engine(resnet10, options=BuildOptions(precision="fp16"), cache=cache, trt=trt)
    key = first.path.stem
    status, text, errors = lidcam("cache", "list")
    assert status == 0 and not errors and all(len(line) <= 80 for line in text.splitlines()[:-1])
    row = next(line for line in text.splitlines() if line.startswith(key[:12]))
    assert all(word in row for word in ("resnet10t.onnx", "8.9", "fp32", "1..2 224x224")), text
    assert "1..32 224x224" in text and text.splitlines()[-1].startswith("2 engines, ")
    listed = json.loads(lidcam("cache", "list", "--json")[1])
    assert listed["folder"] == str(cache.folder)
    assert [(e["key"], e["precision"], e["version"], e["artifact_sha256"]) for e in listed["engines"]] == [
        (entry.stem, precision, "11.4.0.106", file_sha256(resnet10))
        for entry, precision in ((second.path, "fp16"), (first.path, "fp32"))
    ]
    sidecar_path(second.path).unlink()
    assert "not usable" in lidcam("cache", "list")[1]
    status, _, errors = lidcam("cache", "clear", "0000")
    assert status == 2 and "no engine in the cache has a key that begins like this" in errors
    with locked(cache.lock(key)):  # being built: it stays
        status, text, errors = lidcam("cache", "clear", key[:8], "--json")
        assert status == 0 and json.loads(text) == {"folder": str(cache.folder), "removed": [], "in_use": [key]}
        assert key[:12] in lidcam("cache", "clear", key[:8])[2]
    status, text, errors = lidcam("cache", "clear", key[:8])
    assert status == 0 and text.startswith("1 engines removed") and not first.path.exists() and second.path.exists()
    assert re.match(r"1 engines removed, \d", lidcam("cache", "clear")[1])
    assert not list(cache.folder.iterdir())
    shutil.rmtree(cache.folder)
    assert lidcam("cache", "clear")[1].startswith("0 engines removed")
