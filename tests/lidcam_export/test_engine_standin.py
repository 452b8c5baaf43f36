"""`lidcam build` on stand-ins for TensorRT 10 and 11: which strategy each gets, and what is checked."""

from dataclasses import replace

import onnx
import pytest
import tensorrt_standin as standin
from lidcam_export.tensorrt import builder as pipeline
from lidcam_export.tensorrt.builder import build_engine
from lidcam_export.tensorrt.built_precision import types_from_inspector, types_in_network
from lidcam_export.tensorrt.flavour import flavour_of, set_capabilities
from lidcam_export.tensorrt.options import BuildOptions
from lidcam_export.tensorrt.plugin import PasPlugin

from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends.engine_file import read_sidecar
from lidcam_rt.errors import BackendError, ExportError, InputError, MissingExtraError

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU of compute capability 8.9. The half form is compared in test_half.py, not here again."""
    monkeypatch.setattr(pipeline, "compare_half", lambda full, half, manifest: {"top1": 1.0})
    monkeypatch.setattr(pipeline, "compute_capability", lambda: "8.9")


@pytest.mark.parametrize(
    ("version", "typing", "flag", "ahead"),
    [("10.8.0.43", "flag", 2, True), ("11.4.0.106", "always", 0, True)],
)
def test_the_strategy_follows_the_major_version(version, typing, flag, ahead):
    trt = standin.module(version)
    flavour = flavour_of(trt)
    assert (flavour.name, flavour.typing, flavour.ahead_of_time, flavour.offline) == ("tensorrt", typing, ahead, False)
    assert flavour.network_flags(trt) == flag
    config = standin.Config()
    flavour.disable_tf32(trt, config)
    assert config.flags == set(), "TF32 is not fp32"


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "dev", ""])
def test_versions_that_are_not_supported(version):
    trt = standin.module()
    trt.__version__ = version
    with pytest.raises(ExportError, match="install"):
        flavour_of(trt)


def test_tensorrt_for_rtx_needs_no_gpu_and_no_capability_elsewhere():
    trt = standin.module("1.7.1.116", name="tensorrt_rtx")
    flavour = flavour_of(trt)
    assert flavour.offline and not flavour.ahead_of_time
    config = standin.Config()
    set_capabilities(standin.module(), flavour_of(standin.module()), config, ("8.9",))
    assert not hasattr(config, "num_compute_capabilities")


@pytest.mark.parametrize("version", ["10.8.0.43", "11.4.0.106"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_builds_what_was_asked_for(resnet10, tmp_path, gpu, version, precision):
    trt, output = standin.module(version), tmp_path / "m.engine"
    options = BuildOptions(precision=precision, workspace_mib=256)
    done = build_engine(resnet10, output, options, trt=trt)
    spec, built = done.spec, done.source == "built"
    kind = "float16" if precision == "fp16" else "float32"
    assert built and spec == read_sidecar(output)
    assert (spec.built, spec.evidence, spec.compute_capability) == ({kind: 14}, "inspector", ("8.9",))
    network, config = trt.log.networks[0], trt.log.configs[0]
    assert config.profiles == [{n: (p.min, p.opt, p.max) for n, p in spec.profile.items()}]
    assert list(config.limits.values()) == [256 << 20]
    assert types_in_network(trt, network) == {kind: 14}
    assert (spec.half_check is not None) == (precision == "fp16")
    assert build_engine(resnet10, output, options, trt=trt).source == "up to date"
    other = build_engine(resnet10, output, options, trt=standin.module("11.5.0.1"))
    assert other.source == "built", "another version, another engine"


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        ("parse", "node 7: not supported"),
        ("build", "no kernel for this network"),
        ("deserialize", "does not load the engine that it has just built"),
        ("silently fp32", r"fp16 was requested.*14 in float32 \(read from the inspector\)"),
    ],
)
def test_a_failure_writes_nothing(resnet10, tmp_path, gpu, fail, says):
    trt = standin.module()
    trt.log.fail = fail
    with pytest.raises(ExportError, match=says):
        build_engine(resnet10, tmp_path / "m.engine", BuildOptions(precision="fp16"), trt=trt)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(resnet10, tmp_path, monkeypatch, gpu):
    import sys

    output = tmp_path / "m.engine"
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"lidcam-rt\[tensorrt-rtx\]"):
        build_engine(resnet10, output)
    with pytest.raises(MissingExtraError, match=r"lidcam-rt\[tensorrt\]"):
        build_engine(resnet10, output, BuildOptions(flavour="tensorrt"))
    with pytest.raises(InputError, match="not for 9"):
        build_engine(resnet10, output, BuildOptions(capability=("9.0",)), trt=standin.module())
    with pytest.raises(ExportError, match="cannot bake plugins"):
        build_engine(resnet10, output, BuildOptions(pas="plugin"), trt=standin.module("1.7.1.116", name="tensorrt_rtx"))
    monkeypatch.setattr(pipeline, "compute_capability", lambda: None)
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        build_engine(resnet10, output, trt=standin.module())


def test_a_fixed_size_stays(resnet10, tmp_path, gpu):
    from lidcam_rt.artifact import Manifest

    model = onnx.load(str(resnet10))
    manifest = Manifest.from_metadata({p.key: p.value for p in model.metadata_props}, "m")
    fixed = manifest.model_copy(update={"input": manifest.input.model_copy(update={"dynamic_size": False})})
    onnx.helper.set_model_props(model, fixed.to_metadata())
    onnx.save(model, str(tmp_path / "fixed.onnx"))
    with pytest.raises(InputError, match="fixed at 224x224"):
        build_engine(tmp_path / "fixed.onnx", tmp_path / "m.engine", BuildOptions(size=(96, 96)), trt=standin.module())


def test_a_build_that_takes_very_long_is_announced(resnet10, caplog):
    manifest = read_manifest(resnet10)
    raw = manifest.model_copy(update={"pas": replace(manifest.pas, where="raw")})
    for version, name, warned in (
        ("1.7.1.116", "tensorrt_rtx", True), ("1.8.0.1", "tensorrt_rtx", False), ("11.4.0.106", "tensorrt", False),
    ):  # fmt: skip
        flavour = flavour_of(standin.module(version, name=name))
        pipeline._warn_of_slow_body(flavour, manifest)
        assert not caplog.records
        pipeline._warn_of_slow_body(flavour, raw)
        assert bool(caplog.records) == warned and ("--pas-where resized" in caplog.text) == warned
        caplog.clear()


def kernel(major):
    return f"// PTX for {major}\0".encode(), 8 if major >= 9 else 1


def test_the_plugin_takes_the_nodes_place_in_the_network(resnet10, tmp_path, gpu, monkeypatch):
    trt = standin.module()
    trtp = standin.plugin_module(trt)
    monkeypatch.setattr(pipeline, "_plugin", lambda module, flavour: PasPlugin(module, trtp, kernel))
    spec = build_engine(resnet10, tmp_path / "m.engine", BuildOptions(pas="plugin"), trt=trt).spec
    network = trt.log.networks[0]
    assert {t.name: t.dtype.name for t in network.outputs} == {
        "logits": "FLOAT", "class_ids": "INT64", "scores": "FLOAT", "cam": "FLOAT", "map8": "UINT8", "mask": "UINT8",
        "threshold": "FLOAT",
    }  # fmt: skip
    (plugin,) = network.plugins
    assert plugin.attributes == {"percentile_milli": 98000, "theta_micro": 350000, "flags": 0, "major": 8}
    assert spec.pas == "plugin" and spec.kernel_sha256 == PasPlugin(trt, trtp, kernel).kernel_sha256(("8.9",))
    other = PasPlugin(trt, trtp, lambda major: (b"another", 1))
    assert other.kernel_sha256(("8.9",)) != spec.kernel_sha256


def test_the_inspectors_text():
    assert types_from_inspector("not JSON") == types_from_inspector("[]") == {}
    assert types_from_inspector('{"Layers": ["conv1", {"LayerType": "Reformat"}]}') == {}
