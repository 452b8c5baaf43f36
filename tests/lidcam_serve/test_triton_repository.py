"""Model repositories of other names, of engines, and when a request goes wrong in an unforeseen way."""

from __future__ import annotations

import hashlib
import re
import shutil

import artifacts
import pytest
from servers import png
from test_triton import config, triton  # noqa: F401

from lidcam_rt.artifact import read_manifest
from lidcam_rt.errors import InputError
from lidcam_rt.files import file_sha256
from lidcam_serve.triton.repository import RepositoryOptions, write_repository


@pytest.mark.parametrize(
    ("stem", "name"),
    [("my model", "my_model"), ("modèle", "mod_le"), ("a=b", "a_b"), ("a:1", "a_1"), ("-x", "x"), ("é", "unnamed")],
)
def test_any_file_has_a_name_in_the_repository(tmp_path, model, stem, name):
    path = shutil.copy(model, tmp_path / f"{stem}.onnx")
    write_repository(path, tmp_path / "r", RepositoryOptions())
    assert config(tmp_path / "r" / name).name == name
    with pytest.raises(InputError, match=r"--name \S+: use up to 128 letters"):
        write_repository(path, tmp_path / "s", RepositoryOptions(name="a=b"))


@pytest.mark.parametrize("name", ["123", "null", "on", "1e5", "Model_", "a" * 128, "a..b", "2024-x", "No"])
def test_names_are_text_and_kubernetes_takes_them(tmp_path, model, name):
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    write_repository(model, tmp_path / "r", RepositoryOptions(name=name))
    (kserve,) = yaml.safe_load_all((tmp_path / "r" / "kserve.yaml").read_text())
    deployment, service = yaml.safe_load_all((tmp_path / "r" / "kubernetes.yaml").read_text())
    template = deployment["spec"]["template"]
    names = {
        kserve["metadata"]["name"], deployment["metadata"]["name"], service["metadata"]["name"],
        service["spec"]["selector"]["app"], template["metadata"]["labels"]["app"],
        template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"].removesuffix("-models"),
    }  # fmt: skip
    (dns,) = names
    assert isinstance(dns, str) and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", dns) and len(dns) <= 63
    assert kserve["spec"]["predictor"]["triton"]["storageUri"] == f"pvc://models/{name}"


def engine(tmp_path, model, *, flavour: str = "tensorrt", batch: int = 4, side: int = 96):
    """An engine of the artifact at another size; its bytes are none."""
    from lidcam_export.tensorrt.engine_writer import write_engine

    from lidcam_rt.backends.engine_file import EngineSpec, Profile, TensorSpec

    manifest = read_manifest(model)
    size = manifest.input.model_copy(update={"height": side, "width": side, "dynamic_size": False})
    manifest = manifest.model_copy(update={"input": size})
    plan, path = b"plan", tmp_path / "model.engine"
    shapes = {"image": (side, side, 3), "labels": (1,)}
    spec = EngineSpec(
        engine_bytes=len(plan), engine_sha256=hashlib.sha256(plan).hexdigest(), artifact=model.name,
        artifact_sha256=file_sha256(model), flavour=flavour, version="10.9.0", compute_capability=("8.9",),
        precision="fp32", built={"float32": 1}, evidence="network", pas="body",
        profile={name: Profile(min=(1, *s), opt=(1, *s), max=(batch, *s)) for name, s in shapes.items()},
        inputs=[TensorSpec(name=n, dtype="uint8" if n == "image" else "int64", shape=(-1, *s))
                for n, s in shapes.items()],
        outputs=[TensorSpec(name=n, dtype=d, shape=s) for n, d, s in (
            ("logits", "float32", (-1, 4)), ("class_ids", "int64", (-1, 1)), ("threshold", "float32", (-1, 1)),
            ("map8", "uint8", (-1, 1, side, side)))],
        manifest=manifest.to_metadata(), package_version="0.1.0",
    )  # fmt: skip
    write_engine(path, plan, spec)
    return path


@pytest.fixture
def artifact(tmp_path):
    return artifacts.build(tmp_path / "tiny.onnx")


def test_an_engine_is_described_as_it_was_built(tmp_path, artifact):
    pytest.importorskip("lidcam_export", reason="the package that writes engines is not installed")
    path = engine(tmp_path, artifact)
    write_repository(artifact, tmp_path / "r", RepositoryOptions(engine=path, max_batch=4))
    told = config(tmp_path / "r" / "tiny")
    assert {entry.name: list(entry.dims) for entry in told.input} == {"image": [96, 96, 3], "labels": [1]}
    assert {entry.name: list(entry.dims) for entry in told.output} == {
        "logits": [4], "class_ids": [1], "threshold": [1], "map8": [1, 96, 96],
    }  # fmt: skip
    assert told.platform == "tensorrt_plan" and (tmp_path / "r" / "tiny" / "1" / "model.plan").read_bytes() == b"plan"


@pytest.mark.parametrize(
    ("options", "why"),
    [({"batch": 2}, "batches of up to 2: use --max-batch 2"), ({"flavour": "tensorrt-rtx"}, "TensorRT for RTX")],
)
def test_an_engine_that_triton_could_not_load_is_refused(tmp_path, artifact, options, why):
    pytest.importorskip("lidcam_export", reason="the package that writes engines is not installed")
    path = engine(tmp_path, artifact, **options)
    with pytest.raises(InputError, match=why):
        write_repository(artifact, tmp_path / "r", RepositoryOptions(engine=path, max_batch=4))
    assert not (tmp_path / "r").exists()


def test_one_request_that_breaks_costs_no_other(tmp_path, artifact, triton, monkeypatch):  # noqa: F811
    from lidcam_serve.triton import backend

    write_repository(artifact, tmp_path / "r", RepositoryOptions())
    call = triton(tmp_path / "r", "tiny_pictures")
    answer = backend.PicturesModel._answer

    def breaks(self, request):
        if request.tensors["picture"].as_numpy()[0] == b"bad":
            raise ZeroDivisionError("/secret/path")
        return answer(self, request)

    monkeypatch.setattr(backend.PicturesModel, "_answer", breaks)
    good, bad = call(png(), b"bad")
    assert not good.has_error() and bad.error().message() == "an error in the server; its log says which"
