"""The registry of engines: what is chosen for a file and a device, and that nothing else is loaded for it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import artifacts
import pytest

import lidcam_rt
from lidcam_rt import backends
from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends import BACKENDS, choose, manifest_of
from lidcam_rt.backends.base import Backend
from lidcam_rt.errors import InputError


@pytest.mark.parametrize("engine", BACKENDS, ids=lambda engine: engine.name)
def test_every_entry_is_complete(engine):
    assert callable(importlib.import_module(engine.module).open_backend)
    module, _, function = engine.manifest.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert engine.suffix.startswith(".") and engine.devices and engine.precisions and engine.imports
    assert set(engine.devices) <= {"cpu", "cuda"} and engine.made_by.startswith("lidcam ")


def test_no_two_engines_of_one_priority():
    assert len({engine.priority for engine in BACKENDS}) == len({engine.name for engine in BACKENDS}) == len(BACKENDS)


def another(monkeypatch, **changes):
    """A second engine for artifacts, on the CPU only."""
    engine = replace(BACKENDS[0], name="other", devices=("cpu",), imports=("json",), **changes)
    monkeypatch.setattr(backends, "BACKENDS", (*BACKENDS, engine))
    return engine


def test_auto_takes_the_highest_priority_that_is_installed(monkeypatch):
    assert choose("m.onnx").name == choose("m.onnx", device="cuda:1").name == "onnxruntime"
    assert choose("m.engine").name == choose("M.ENGINE").name == "tensorrt"
    another(monkeypatch, priority=1)
    assert choose("m.onnx").name == "onnxruntime" and choose("m.onnx", backend="other").name == "other"
    another(monkeypatch, priority=99)
    assert choose("m.onnx").name == "other" and choose("m.onnx", device="cuda").name == "onnxruntime"
    monkeypatch.setitem(sys.modules, "json", None)
    assert choose("m.onnx").name == "onnxruntime"
    assert choose("m.onnx", backend="other").name == "other"  # and its opener says what to install


def test_a_new_engine_is_a_file_and_an_entry(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "other_engine.py").write_text(
        "from lidcam_rt.backends.onnxruntime import open_backend as inner\n"
        "def open_backend(path, manifest, *, device, threads, precision):\n"
        "    return inner(path, manifest, device=device, threads=threads)\n"
    )
    another(monkeypatch, module="other_engine", priority=99)
    with lidcam_rt.load(artifacts.build(tmp_path / "m.onnx")) as localizer:
        assert localizer(artifacts.picture("red")).class_name == "red"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("m.onnx", "caffe", "auto"), "backend must be one of auto, onnxruntime"),
        (("m.onnx", None, "auto"), "backend must be one of"),
        (("m.onnx", "tensorrt", "auto"), "m.onnx: tensorrt loads .engine files: make one with `lidcam build`"),
        (("m.engine", "onnxruntime", "auto"), "m.engine: onnxruntime loads .onnx files: make one with `lidcam export`"),
        (("m.engine", "auto", "cpu"), "m.engine: tensorrt runs it on cuda, but device cpu was requested"),
        (("m.onnx", "auto", "gpu"), "device must be auto, cpu, cuda or cuda:INDEX"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, says):
    path, backend, device = arguments
    with pytest.raises(InputError, match=says.replace(".", r"\.")):
        choose(path, backend=backend, device=device)


def test_an_artifact_visits_no_code_of_engines(model):
    code = (
        f"import sys, lidcam_rt; lidcam_rt.load({str(model)!r})\n"
        "print([name for name in sys.modules if name.startswith(('lidcam_gpu', 'lidcam_rt.backends.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().count("lidcam_rt") == 3 and "engine_file" not in done.stdout, done.stdout
    assert "gpu" not in done.stdout and "cuda" not in done.stdout and "tensorrt" not in done.stdout
    assert manifest_of(model) == read_manifest(model)


def test_onnxruntime_is_a_backend(localizer):
    backend: Backend = localizer.backend
    assert [entry["name"] for entry in backend.inputs] == ["image", "labels"]
    assert {"logits", "map8", "cam"} <= {entry["name"] for entry in backend.outputs}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_file_whose_name_is_not_utf8(model, tmp_path, backend):
    pytest.importorskip(backend)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.onnx"))
    try:
        odd.write_bytes(model.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    with lidcam_rt.load(odd, backend=backend) as localizer:
        assert localizer(artifacts.picture("red")).class_name == "red"


def test_only_another_gpu_than_the_first_is_named():
    """ONNX Runtime 1.31 warns at every start where one is."""
    from lidcam_rt.backends.onnxruntime import cuda_options

    assert "device_id" not in cuda_options(0) and cuda_options(1)["device_id"] == "1"
    assert all(options["use_tf32"] == "0" for options in map(cuda_options, (0, 1)))
