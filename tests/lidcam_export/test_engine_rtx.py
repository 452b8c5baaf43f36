"""Engines of TensorRT for RTX, built from the function body on a machine without a GPU.

Loading an engine needs an NVIDIA driver, so what is built is read from the engine file, not run.
"""

import itertools
import json

import pytest
from lidcam_export.graph.operator import OPSET, attach, pas_node
from lidcam_export.tensorrt import builder as pipeline
from lidcam_export.tensorrt.builder import build_engine
from lidcam_export.tensorrt.built_precision import check_precision, types_in_plan
from lidcam_export.tensorrt.flavour import flavour_of, set_capabilities
from lidcam_export.tensorrt.network import for_tensorrt
from lidcam_export.tensorrt.options import BuildOptions
from onnx import TensorProto, helper

from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends.cuda_runtime import compute_capability
from lidcam_rt.backends.engine_file import read_sidecar, sidecar_path
from lidcam_rt.errors import BackendError, ExportError, InputError, RebuildError
from lidcam_rt.files import file_sha256
from lidcam_rt.pas import PasOptions

pytestmark = pytest.mark.slow  # not in make quick

trt = pytest.importorskip("tensorrt_rtx", reason="extra tensorrt-rtx is not installed")
FOR = ("8.9",)


def options(**changes):
    return BuildOptions(**{"flavour": "tensorrt-rtx", "capability": FOR, **changes})


@pytest.mark.parametrize("size", [224, 384, 512])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_builds_for_batch_1_to_32(resnet10, tmp_path, size, precision):
    output = tmp_path / "m.engine"
    done = build_engine(resnet10, output, options(precision=precision, size=(size, size)))
    spec, built = done.spec, done.source == "built"
    assert built and spec == read_sidecar(output)
    # The precision as built, from the engine file itself: all convolutions, none in the other type.
    kind = "float32" if precision == "fp32" else "float16"
    assert spec.evidence == "plan" and spec.built == {kind: 14}
    assert spec.built == types_in_plan(output.read_bytes())
    image, labels = spec.profile["image"], spec.profile["labels"]
    assert (image.min, image.opt, image.max) == tuple((n, size, size, 3) for n in (1, 8, 32))
    assert (labels.min, labels.max) == ((1, 1), (32, 1))
    assert {e.name: (e.dtype, e.shape) for e in spec.inputs} == {
        "image": ("uint8", (-1, size, size, 3)),
        "labels": ("int64", (-1, 1)),
    }
    assert {e.name: e.dtype for e in spec.outputs} == {
        "logits": "float32", "class_ids": "int64", "scores": "float32", "cam": "float32", "map8": "uint8",
        "mask": "uint8", "threshold": "float32",
    }  # fmt: skip
    shapes = {e.name: e.shape for e in spec.outputs}
    assert shapes["map8"] == shapes["mask"] == (-1, 1, size, size) and shapes["cam"] == (-1, 1, size // 32, size // 32)
    assert all(shape[0] == -1 for shape in shapes.values())
    assert (spec.engine_bytes, spec.engine_sha256) == (output.stat().st_size, file_sha256(output))
    assert (spec.flavour, spec.version) == ("tensorrt-rtx", trt.__version__) and spec.compute_capability == FOR
    assert spec.artifact_sha256 == file_sha256(resnet10) and spec.kernel_sha256 is None and spec.pas == "body"
    assert spec.read_manifest(output).input.height == size
    assert (spec.half_check is None) == (precision == "fp32")
    if spec.half_check:
        assert spec.half_check["top1"] == 1 and spec.half_check["mask_flipped"] < 1e-2
    assert {p.name for p in tmp_path.iterdir()} == {"m.engine", "m.engine.json"}


OPTIONS = list(
    itertools.product(("threshold", "normalize"), ("uint8", "float"), ("resized", "raw"), ("cubic", "linear"))
)


def network_of(mode, precision, where, interpolation):
    """PaS alone, written out, parsed by TensorRT for RTX for a batch and maps of any size."""
    spec = PasOptions(percentile=97.5, mode=mode, precision=precision, where=where, interpolation=interpolation)

    def value(name, channels, kind):
        return helper.make_tensor_value_info(name, kind, ["n", channels, f"{name}_h", f"{name}_w"])

    inputs = [value("cam", 1, TensorProto.FLOAT), value("like", 3, TensorProto.FLOAT)]
    outputs = [value("map8", 1, TensorProto.UINT8), value("mask", 1, TensorProto.UINT8)]
    outputs.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, ["n", 1]))
    graph = helper.make_graph([pas_node(("cam", "like"), ("map8", "mask", "threshold"), spec)], "pas", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    attach(model, spec)
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(flavour_of(trt).network_flags(trt))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(for_tensorrt(model).SerializeToString()), [
        str(parser.get_error(i)) for i in range(parser.num_errors)
    ]
    return log, builder, network, parser


@pytest.mark.parametrize("options_of_pas", OPTIONS, ids="-".join)
def test_the_function_body_of_every_combination_is_parsed(options_of_pas):
    _log, _builder, network, _parser = network_of(*options_of_pas)
    outputs = {(t := network.get_output(i)).name: t.dtype for i in range(network.num_outputs)}
    assert outputs == {"map8": trt.uint8, "mask": trt.uint8, "threshold": trt.float32}


@pytest.mark.parametrize("options_of_pas", [OPTIONS[4], OPTIONS[9]], ids="-".join)
def test_bodies_are_built_for_free_sizes(options_of_pas):
    _log, builder, network, _parser = network_of(*options_of_pas)
    config = builder.create_builder_config()
    set_capabilities(trt, flavour_of(trt), config, FOR)
    shapes = builder.create_optimization_profile()
    shapes.set_shape("cam", (1, 1, 7, 7), (8, 1, 24, 24), (32, 1, 32, 32))
    shapes.set_shape("like", (1, 3, 224, 224), (8, 3, 384, 384), (32, 3, 512, 512))
    config.add_optimization_profile(shapes)
    assert builder.build_serialized_network(network, config) is not None


def test_a_second_build_is_up_to_date_until_something_changes(resnet10, tmp_path):
    output = tmp_path / "m.engine"
    first = build_engine(resnet10, output, options())
    assert first.source == "built" and build_engine(resnet10, output, options()).source == "up to date"
    assert build_engine(resnet10, output, options(batch=(1, 1, 4))).source == "built"
    output.write_bytes(output.read_bytes()[:-1])  # a damaged one is built again
    second = build_engine(resnet10, output, options(batch=(1, 1, 4)))
    assert second.source == "built" and first.spec.artifact_sha256 == second.spec.artifact_sha256
    assert build_engine(resnet10, output, options(batch=(1, 1, 4), force=True)).source == "built"


def test_the_check_of_the_precision_can_fail(resnet10, tmp_path, monkeypatch):
    output = tmp_path / "m.engine"
    monkeypatch.setattr(pipeline, "to_half", lambda model: model)  # an fp16 that silently is fp32
    with pytest.raises(ExportError, match=r"fp16 was requested.*in float32"):
        build_engine(resnet10, output, options(precision="fp16"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ExportError, match="none found"):
        check_precision("fp32", {}, "network")


def test_the_parser_refuses_uint8_inside_a_function(resnet10, tmp_path, monkeypatch):
    """Why the graph is rewritten before it is parsed. If this fails, the parser has learnt it."""
    monkeypatch.setattr(pipeline, "for_tensorrt", lambda model: model)
    with pytest.raises(ExportError, match="UINT8"):
        build_engine(resnet10, tmp_path / "m.engine", options())


@pytest.mark.skipif(compute_capability() is not None, reason="a GPU is here")
def test_loading_without_a_driver_says_so(resnet10, tmp_path):
    import lidcam_rt

    output = tmp_path / "m.engine"
    build_engine(resnet10, output, options(batch=(1, 1, 1)))
    with pytest.raises(BackendError, match="no NVIDIA GPU answers"):
        lidcam_rt.load(output)
    with pytest.raises(InputError, match=r"capability 8\.9"):
        build_engine(resnet10, output, options(capability=()))
    sidecar = json.loads(sidecar_path(output).read_text())
    sidecar_path(output).write_text(json.dumps(sidecar | {"version": "1.0.0.1"}))
    with pytest.raises(RebuildError, match=r"built by tensorrt-rtx 1\.0\.0\.1"):
        lidcam_rt.load(output)


def test_refusals(resnet10, tmp_path):
    with pytest.raises(ExportError, match=r"builds for compute capability 7\.5.*not for 9\.0"):
        build_engine(resnet10, tmp_path / "m.engine", options(capability=("9.0",)))
    with pytest.raises(ExportError, match="cannot bake plugins"):
        build_engine(resnet10, tmp_path / "m.engine", options(pas="plugin"))
    with pytest.raises(InputError, match=r"must end in \.engine"):
        build_engine(resnet10, tmp_path / "m.plan", options())
    for wrong in ({"batch": (2, 1, 4)}, {"precision": "int8"}, {"flavour": "openvino"}, {"pas": "kernel"}):
        with pytest.raises(InputError):
            options(**wrong)
    assert read_manifest(resnet10).input.dynamic_size and not list(tmp_path.iterdir())


def test_the_verb(resnet10, tmp_path, capsys, monkeypatch):
    from lidcam_cli.main import main

    monkeypatch.setenv("LIDCAM_CACHE", str(tmp_path / "cache"))
    output, other = tmp_path / "m.engine", tmp_path / "n.engine"
    line = ["build", str(resnet10), "--flavour", "tensorrt-rtx", "--capability", "8.9,12.0"]

    def build(*options):
        with pytest.raises(SystemExit) as stop:
            main([*line, *options])
        captured = capsys.readouterr()
        return stop.value.code, captured.out + captured.err

    def says(words, *options):
        status, text = build("--batch", "1,2,4", *options)
        assert status == 0 and words in text, text

    says("m.engine: built", "-o", str(output))
    says("m.engine: up to date", "-o", str(output))
    says("n.engine: from the cache", "-o", str(other))
    assert read_sidecar(output).compute_capability == ("8.9", "12.0") and read_sidecar(output) == read_sidecar(other)
    (cached,) = (tmp_path / "cache" / "engines").glob("*.engine")
    says(f"{cached}: from the cache")
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(data)  # an engine that was tampered with is not taken
    says(f"{cached}: built")
    assert file_sha256(cached) == read_sidecar(cached).engine_sha256
    for options, words in ((("--batch", "x"), "--batch x"), (("--no-cache",), "--no-cache needs a file")):
        status, text = build(*options)
        assert status == 2 and words in text
