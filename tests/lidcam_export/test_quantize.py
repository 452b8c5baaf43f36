"""Artifacts of lower precision: what is quantized, what stays in float32, the gate, and who runs them."""

import json
import re
from collections import Counter

import numpy as np
import onnx
import pytest
from lidcam_bench.data.records import Record
from lidcam_export.precision.gate import Gate, Outcome, Results, compare_results, most_to_blame
from lidcam_export.precision.int8 import compute_layers, in_float, to_int8
from lidcam_export.precision.pictures import split
from lidcam_export.precision.quantize import QuantizeOptions, parse_gate, quantize_artifact
from onnx import TensorProto, numpy_helper
from PIL import Image
from typer.testing import CliRunner

import lidcam_rt
from lidcam_cli.app import build_app
from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends import choose
from lidcam_rt.errors import ExportError, InputError
from lidcam_rt.files import file_sha256
from lidcam_rt.image import decode, network_input
from lidcam_rt.pas import pas_reference

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 pictures of coarse colours."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(24):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((90, 70), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    return folder


def feeds_of(path, photos, count=4):
    manifest = read_manifest(path)
    labels = np.full((1, manifest.top_k), -1)
    images = [network_input(decode(p).pixels, manifest.input) for p in sorted(photos.iterdir())[:count]]
    return [{"image": image[None], "labels": labels} for image in images]


@pytest.fixture(scope="module")
def made(tiny, photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("int8") / "tiny_int8.onnx"
    manifest, outcome = quantize_artifact(tiny[0], output, QuantizeOptions(calibration=photos, pictures=8))
    return output, manifest, outcome


def constants_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_network_is_in_8_bits_and_the_head_is_not(tiny, made):
    model, full = onnx.load(str(made[0])), onnx.load(str(tiny[0]))
    constants, makers = constants_of(model), {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 4
    for node in convolutions:
        data, weight = (makers[name] for name in node.input[:2])
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert constants[data.input[2]].dtype == np.uint8 and constants[data.input[2]].size == 1
        values, scales = (constants[name] for name in weight.input[:2])
        assert values.dtype == np.int8 and scales.shape == (values.shape[0],)  # a scale per output channel
    head = [node for node in model.graph.node if node.op_type in ("MatMul", "ReduceMean", "Softmax", "TopK")]
    assert len(head) == 5
    for node in head:
        sources = [makers[name] for name in node.input if name in makers]
        assert all(s.op_type != "DequantizeLinear" or constants_or_features(s, makers) for s in sources)
    assert model.functions == full.functions and model.graph.output == full.graph.output
    pas = next(node for node in model.graph.node if node.op_type == "PaS")
    assert pas == next(node for node in full.graph.node if node.op_type == "PaS")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18, "lidcam": 1}


def constants_or_features(node, makers):
    """The head reads the features, which the network's last node gave in 8 bits."""
    return makers[node.input[0]].op_type == "QuantizeLinear"


def test_the_manifest_records_precision_and_calibration(tiny, made, photos):
    path, manifest, outcome = made
    assert read_manifest(path) == manifest and manifest.arithmetic == "int8"
    spec = manifest.precision
    assert spec.made_of == file_sha256(tiny[0]) and spec.weight_bits == 8 and spec.float_layers == ()
    assert (spec.calibration, spec.calibration_pictures) == ("minmax", 8) and len(spec.calibration_sha256) == 64
    assert spec.agreement == outcome.to_dict() and outcome.pictures == 16 and outcome.mask_iou > 0.9
    report = json.loads(path.with_name(path.name + ".quantize.json").read_text())
    assert report["artifact_sha256"] == file_sha256(path)
    assert manifest.nodes.written == len(onnx.load(str(path)).graph.node)
    same = {"precision": None, "nodes": None}
    assert manifest.model_copy(update=same) == read_manifest(tiny[0]).model_copy(update=same)


def test_calibration_goes_through_the_artifact_s_own_preprocessing(tiny, made, photos):
    """The scale of the first activation is that of the pixels after the mean is subtracted."""
    model = onnx.load(str(made[0]))
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    assert first.input[0] == "pixels"
    spec = read_manifest(made[0]).input
    chosen, _ = split(sorted(photos.iterdir()), 8)
    centred = np.stack([network_input(decode(p).pixels, spec) for p in chosen]) - np.float32(spec.mean)
    low, high = min(float(centred.min()), 0), max(float(centred.max()), 0)
    assert constants_of(model)[first.input[1]] == pytest.approx((high - low) / 255, rel=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_run_it_and_say_what_they_run(made, tiny, photos, backend):
    pytest.importorskip(backend)
    picture = min(photos.iterdir())
    with lidcam_rt.load(made[0], backend=backend) as low, lidcam_rt.load(tiny[0]) as full:
        assert low.backend.precision == "int8" and full.backend.precision == "fp32"
        got, want = low(picture), full(picture)
        assert got.engine.endswith("on cpu, int8") and got.class_id == want.class_id
        outputs = low.pipeline.run([low.pipeline.prepare(picture)], outputs=("cam", "map8", "threshold"))
        spec = low.manifest.input
        want_pas = pas_reference(outputs["cam"], (spec.height, spec.width), low.manifest.pas)
        np.testing.assert_array_equal(outputs["threshold"], want_pas.threshold)  # PaS in float32, of its own cam
    with pytest.raises(InputError, match="precision fp32 was requested, but the engine has int8"):
        lidcam_rt.load(made[0], backend=backend, precision="fp32")


def test_auto_takes_the_engine_that_was_measured_faster(monkeypatch):
    pytest.importorskip("openvino")
    from lidcam_rt import backends

    monkeypatch.setattr(backends, "_has_gpu_build", lambda: False)
    assert choose("m.onnx").name == "onnxruntime" and choose("m.onnx", arithmetic="int8").name == "openvino"
    assert choose("m.onnx", arithmetic="int8", backend="onnxruntime").name == "onnxruntime"
    assert choose("m.onnx", arithmetic="int8", device="cuda").name == "onnxruntime"
    monkeypatch.setattr(backends, "_has_gpu_build", lambda: True)
    assert choose("m.onnx", arithmetic="int8").name == "onnxruntime"
    assert choose("m.onnx", arithmetic="int8", device="cpu").name == "openvino"
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert choose("m.onnx", arithmetic="int8", device="cpu").name == "onnxruntime"


def test_gates_of_squeeze_and_excitation_are_in_float_unless_asked_for(tiny, photos):
    full, feeds = onnx.load(str(tiny[0])), feeds_of(tiny[0], photos)
    for gates in (False, True):
        model = to_int8(full, feeds, gates=gates)
        makers = {name: node.op_type for node in model.graph.node for name in node.output}
        product = next(node for node in model.graph.node if node.op_type == "Mul")
        assert [makers[name] == "DequantizeLinear" for name in product.input].count(True) == (2 if gates else 1)


def test_a_processor_without_vnni_is_told_of(made, tmp_path, monkeypatch, caplog):
    from lidcam_rt import backends

    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags : fpu avx2 fma\n")
    assert backends._lacks_vnni(info) and not backends._lacks_vnni(tmp_path / "none")
    info.write_text("processor : 0\nflags : fpu avx2 avx_vnni\n")
    assert not backends._lacks_vnni(info)
    info.write_text("processor : 0\nFeatures : asimd\n")
    assert not backends._lacks_vnni(info)
    monkeypatch.setattr(backends, "_lacks_vnni", lambda: True)
    lidcam_rt.load(made[0], device="cpu", backend="onnxruntime").close()
    assert "has no VNNI" in caplog.text and "--reduce-range" in caplog.text


def test_layers_in_float_are_those_of_the_artifact(tiny, made, photos):
    full, low = onnx.load(str(tiny[0])), onnx.load(str(made[0]))
    layers = compute_layers(full)
    every = in_float(low, full, layers)
    originals = {node.name: node for node in full.graph.node}
    constants, known = constants_of(every), constants_of(full)
    for node in every.graph.node:
        if node.name in layers:
            np.testing.assert_array_equal(constants[node.input[1]], known[originals[node.name].input[1]])
    assert "DequantizeLinear" not in {n.op_type for n in every.graph.node if n.output[0] in
                                      {i for m in every.graph.node if m.name in layers for i in m.input}}  # fmt: skip
    one = in_float(low, full, layers[1:2])
    counts = [Counter(n.op_type for n in m.graph.node)["DequantizeLinear"] for m in (low, one, every)]
    assert counts[0] > counts[1] > counts[2]
    with pytest.raises(ExportError, match="has no layer nothing; it has 4"):
        in_float(low, full, ["nothing"])


def test_the_layer_to_blame_is_the_one_that_was_spoiled(tiny, photos):
    """One layer's weights are turned around; it is named first."""
    full = onnx.load(str(tiny[0]))
    feeds = feeds_of(tiny[0], photos)
    low = to_int8(full, feeds)
    victim = compute_layers(full)[1]
    node = next(n for n in low.graph.node if n.name == victim)
    reader = next(n for n in low.graph.node if n.output[0] == node.input[1])
    for tensor in low.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name == reader.input[0]:
            tensor.CopyFrom(numpy_helper.from_array(-values, tensor.name))
    (name, share), *_ = most_to_blame(full, low, feeds)
    assert name == victim and share > 0.3


def test_seven_bits_for_processors_without_vnni(tiny, photos):
    """Two products of 255 and 127 exceed 16 bits; of 255 and 64 they do not."""
    feeds = feeds_of(tiny[0], photos)
    weights = [v for v in constants_of(to_int8(onnx.load(str(tiny[0])), feeds, reduce_range=True)).values()
               if v.dtype == np.int8 and v.ndim == 4]  # fmt: skip
    assert weights and max(np.abs(v.astype(int)).max() for v in weights) * 255 * 2 < 2**15
    weights = [
        v for v in constants_of(to_int8(onnx.load(str(tiny[0])), feeds)).values() if v.dtype == np.int8 and v.ndim == 4
    ]
    assert max(np.abs(v.astype(int)).max() for v in weights) * 255 * 2 > 2**15


def test_a_broken_gate_writes_nothing_and_names_layers(tiny, photos, tmp_path):
    options = QuantizeOptions(calibration=photos, pictures=8, gate=Gate(mask_iou=1.0))
    says = (
        r"mean mask IoU is 0\.\d+, the gate is 1; nothing was written.*"
        r"Most to blame: node_\w+ \(.*% of the error\).*--float-worst \d"
    )
    with pytest.raises(ExportError, match=says):
        quantize_artifact(tiny[0], tmp_path / "q.onnx", options)
    assert not list(tmp_path.iterdir())


def test_worst_layers_are_left_in_float(tiny, made, photos, tmp_path):
    layers = compute_layers(onnx.load(str(tiny[0])))
    options = QuantizeOptions(calibration=photos, pictures=8, float_layers=(layers[0],), float_worst=3)
    manifest, outcome = quantize_artifact(tiny[0], tmp_path / "q.onnx", options)
    assert manifest.precision.float_layers == layers  # in the order of the network
    assert outcome.mask_iou > 0.9


def test_half_precision(tiny, photos, tmp_path):
    options = QuantizeOptions(precision="fp16", held_out=photos, gate=Gate(0.0, 0.98))
    manifest, outcome = quantize_artifact(tiny[0], tmp_path / "half.onnx", options)
    assert manifest.precision.network == "fp16" and manifest.precision.calibration is None
    assert outcome.pictures == 24 and outcome.mask_iou > 0.99
    kinds = {tensor.data_type for tensor in onnx.load(str(tmp_path / "half.onnx")).graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    with lidcam_rt.load(tmp_path / "half.onnx") as localizer:
        assert localizer(min(photos.iterdir())).engine.endswith("fp16")


def test_a_lowered_artifact_is_not_lowered_again(made, photos, tmp_path):
    with pytest.raises(ExportError, match=r"is in int8 already\. Give the float32 artifact"):
        quantize_artifact(made[0], tmp_path / "q.onnx", QuantizeOptions(calibration=photos))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("top1=2", "top1=0.02"),
        ("iou=0.9", "give top1, mask_iou, one or several"),
        ("mask_iou", "values of 0 to 1"),
        ("top1=nan", "values of 0 to 1"),
        ("miou=0.01", "miou does not go with a network with activation maps, whose gates are top1, mask_iou"),
    ],
)
def test_a_gate_of_another_form_is_refused(tiny, text, says):
    with pytest.raises(InputError, match=says):
        parse_gate(text, read_manifest(tiny[0]))


def test_the_gate_counts_accuracy_where_there_are_labels(tiny):
    assert parse_gate("top1=0.02,mask_iou=0.9", read_manifest(tiny[0])) == Gate(0.02, 0.9)
    plain = Outcome(100, 0.05, None, 0.95, 0.96)
    labelled = Outcome(100, 0.05, (0.86, 0.85), 0.95, 0.96)
    assert Gate(0.02, 0.9).faults(labelled) == []
    assert Gate(0.02).faults(plain) == ["5.00% of the pictures change their class, the gate is 2%"]
    assert Gate(0.005).faults(labelled) == ["1.00% of top-1 accuracy are lost, the gate is 0.5%"]


def test_outcomes_against_numpy(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 40, 30)) > 0.5
    records = [Record(image=tmp_path / str(i), labels=(1,)) for i in range(4)]
    empty = np.zeros(0, np.uint8)
    one = Results([1, 1, 2, -1], [*map(np.packbits, a), empty])
    two = Results([1, 2, 2, -1], [*map(np.packbits, b), empty])
    got = compare_results(records, one, two, (0, 1))
    ious = (a & b).sum((1, 2)) / (a | b).sum((1, 2))
    assert got.pictures == 3 and got.changed == pytest.approx(1 / 3) and got.top1 == (2 / 3, 1 / 3)
    assert got.mask_iou == pytest.approx(ious.mean()) and got.mask_iou_same_class == pytest.approx(ious[[0, 2]].mean())


def test_labels_are_those_of_the_model(tmp_path):
    """Top-1 goes by the name of a class: the data may number them otherwise, and have some that the model lacks."""
    records = [Record(image=tmp_path / str(i), labels=(i % 3,)) for i in range(6)]
    masks = [np.packbits(np.ones((4, 4), bool))] * 6
    results = Results([7, 0, 5, 7, 1, 7], masks)
    assert compare_results(records, results, results, (7, 0, -1)).top1 == (0.75, 0.75)
    assert compare_results(records, results, results, (-1, -1, -1)).top1 is None
    assert compare_results(records, results, results, None).top1 is None


def test_a_data_set_of_another_order_of_classes(tiny, photos, tmp_path):
    names = list(reversed(read_manifest(tiny[0]).class_names))
    (tmp_path / "d" / "images").mkdir(parents=True)
    rows = ["file,label"]
    with lidcam_rt.load(tiny[0], device="cpu") as localizer:
        for number, photo in enumerate(sorted(photos.iterdir())[:4]):
            (tmp_path / "d" / "images" / f"{number}.png").write_bytes(photo.read_bytes())
            rows.append(f"{number}.png,{localizer(photo).class_name}")
    (tmp_path / "d" / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "d" / "classes.txt").write_text("\n".join(names))
    options = QuantizeOptions(precision="fp16", held_out=tmp_path / "d")
    _, outcome = quantize_artifact(tiny[0], tmp_path / "half.onnx", options)
    assert outcome.top1 == (1.0, 1 - outcome.changed)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 24, 100])
def test_calibration_and_comparison_share_no_picture(count):
    records = [Record(image=i) for i in range(24)]
    one, two = split(records, count)
    assert len(one) == min(count, 12) and len(one) + len(two) == 24
    assert not {r.image for r in one} & {r.image for r in two}


def test_the_command(tiny, photos, tmp_path):
    output = tmp_path / "q.onnx"
    line = ["quantize", str(tiny[0]), "--calibration", str(photos), "--pictures", "8", "-o", str(output)]
    done = CliRunner().invoke(build_app(), [*line, "--gate", "mask_iou=0.5"])
    assert done.exit_code == 0, done.output
    assert "against float32 on 16 held-out pictures" in done.output and output.is_file()
    shown = CliRunner().invoke(build_app(), ["inspect", str(output)]).output
    assert "int8, weights of 8 bits, minmax of 8 pictures; mask IoU" in shown.replace("\n", " ")
    assert re.search(r"\d+ nodes, \d+ as traced", shown)
    named = CliRunner().invoke(build_app(), ["quantize", str(tiny[0]), "--list-layers"]).output.split()
    assert tuple(named) == compute_layers(onnx.load(str(tiny[0])))


def test_tensorrt_takes_the_float32_artifact(made, tmp_path):
    """Its 8-bit form has other zero points."""
    from lidcam_export.tensorrt.builder import BuildOptions, build_engine

    with pytest.raises(ExportError, match=r"is in int8, for ONNX Runtime and OpenVINO\. Build the engine from"):
        build_engine(made[0], tmp_path / "m.engine", BuildOptions())
