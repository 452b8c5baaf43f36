"""Segmentation networks in 8 bits: what is quantized, what stays in float32, the gates, and who runs them."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lidcam_bench.data import ImageSet, open_data
from lidcam_bench.data.records import Record
from lidcam_export.precision.gate import Gate, most_to_blame
from lidcam_export.precision.half import find_features, network_nodes
from lidcam_export.precision.int8 import compute_layers, to_int8
from lidcam_export.precision.label_gate import LabelGate, LabelOutcome, compare_label_maps
from lidcam_export.precision.quantize import QuantizeOptions, parse_gate, quantize_artifact
from lidcam_export.segmentation import export_segmentation
from lidcam_training.segmentation.checkpoint import SegmentationMeta, save_segmentation
from lidcam_training.segmentation.network import build_network
from lidcam_training.segmentation.spec import NetworkSpec
from onnx import TensorProto, numpy_helper
from PIL import Image
from typer.testing import CliRunner

import lidcam_rt
from lidcam_cli.app import build_app
from lidcam_rt.artifact import read_manifest
from lidcam_rt.errors import ExportError, InputError
from lidcam_rt.files import file_sha256
from lidcam_rt.image import decode, network_input

pytestmark = pytest.mark.slow  # not in make quick

CLASSES = ("cat", "dog", "bird", "boat")
NETWORKS = {
    "deeplabv3plus": "tf_efficientnet_lite0",
    "unet": "test_resnet",
    "fpn": "test_resnet",
    "torchvision_deeplabv3": "mobilenet_v3_large",
}
#: Correlation of the logits in 8 bits with those in float32, with random weights; a fault is far below.
ALIKE = 0.85


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """16 pictures of coarse colours."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(16):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((90, 70), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, photos):
    """The float32 artifact of a network, made when first asked for."""
    made = {}

    def artifact(name):
        if name not in made:
            torch.manual_seed(0)
            spec = NetworkSpec(architecture=name, encoder=NETWORKS[name], channels=32, num_labels=5)
            network = build_network(spec)
            meta = SegmentationMeta(spec, CLASSES, (64, 96), (120.0, 121.0, 122.0), (60.0, 61.0, 62.0))
            for module in network.modules():  # statistics of the pictures, else every pixel has one label
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 0.5
            pictures = [np.asarray(Image.open(p).resize((96, 64))) for p in sorted(photos.iterdir())]
            x = (torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2) - 121) / 61
            with torch.no_grad():
                for _ in range(6):
                    network.train()(x)
                logits = network.eval()(x)
                head = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 5][-1]
                head.bias = torch.nn.Parameter((0 if head.bias is None else head.bias) - logits.mean((0, 2, 3)))
            folder = tmp_path_factory.mktemp(name)
            checkpoint = save_segmentation(network, meta, folder / "checkpoint")
            manifest, _ = export_segmentation(checkpoint, folder / "model.onnx")
            assert manifest.input.dynamic_size
            made[name] = folder / "model.onnx"
        return made[name]

    return artifact


@pytest.fixture(scope="module")
def quantized(artifacts, photos):
    """The 8-bit artifact of a network, its manifest and outcome."""
    made = {}

    def of(name):
        if name not in made:
            source = artifacts(name)
            path = source.with_name("int8.onnx")
            made[name] = (path, *quantize_artifact(source, path, QuantizeOptions(calibration=photos, pictures=8)))
        return made[name]

    return of


def inputs_of(path, photos, count=4, size=None):
    spec = read_manifest(path).input
    if size is not None:
        spec = spec.model_copy(update={"height": size[0], "width": size[1]})
    return np.stack([network_input(decode(p).pixels, spec) for p in sorted(photos.iterdir())[-count:]])


def outputs_of(path, images, **options):
    with lidcam_rt.load(path, device="cpu", **options) as segment:
        return segment.backend.run(images, None, ["logits", "label_map", "scores"])


def constants_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_in_8_bits_and_its_end_is_not(quantized, name):
    model = onnx.load(str(quantized(name)[0]))
    constants = constants_of(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    end = makers["logits"]
    for node in convolutions:
        data, weight = makers.get(node.input[0]), makers.get(node.input[1])
        if node is end:
            assert weight is None and constants[node.input[1]].dtype == np.float32
            continue
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert constants[data.input[2]].dtype == np.uint8 and constants[data.input[2]].size == 1
        values, scales = (constants[entry] for entry in weight.input[:2])
        assert values.dtype == np.int8 and scales.shape == (values.shape[0],)  # a scale per output channel
    behind = {"logits"}
    for node in model.graph.node:  # they are in topological order
        if behind & set(node.input):
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear"), node.name
            behind.update(node.output)
    assert {"label_map", "scores"} <= behind


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", NETWORKS)
def test_engines_run_it_at_every_batch(artifacts, quantized, photos, name, backend):
    pytest.importorskip(backend)
    path = quantized(name)[0]
    images = inputs_of(path, photos)
    full = outputs_of(artifacts(name), images, backend="onnxruntime")
    low = outputs_of(path, images, backend=backend)
    assert len(np.unique(full["label_map"])) > 2
    assert np.corrcoef(low["logits"].ravel(), full["logits"].ravel())[0, 1] > ALIKE
    # label map and scores are of float32 logits: no step of 1/255 between them
    large = torch.nn.functional.interpolate(
        torch.from_numpy(low["logits"]), size=images.shape[1:3], mode="bilinear", align_corners=False
    )
    assert (low["label_map"] != large.argmax(1).numpy()).mean() < 1e-3
    scores = torch.from_numpy(low["logits"]).softmax(1).amax((2, 3))[:, 1:].numpy()
    np.testing.assert_allclose(low["scores"], scores, atol=1e-5)
    one = outputs_of(path, images[:1], backend=backend)
    assert (one["label_map"][0] != low["label_map"][0]).mean() < 0.01
    with lidcam_rt.load(path, backend=backend, device="cpu") as segment:
        assert segment.backend.precision == "int8" and segment.manifest.arithmetic == "int8"
    with pytest.raises(InputError, match="precision fp32 was requested, but the engine has int8"):
        lidcam_rt.load(path, backend=backend, device="cpu", precision="fp32")


@pytest.mark.parametrize("name", NETWORKS)
def test_height_and_width_stay_free(artifacts, quantized, photos, name):
    path = quantized(name)[0]
    assert read_manifest(path).input.dynamic_size
    for size in ((32, 64), (128, 96), (160, 192)):
        images = inputs_of(path, photos, 2, size)
        full, low = (
            onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, {"image": images})
            for p in (artifacts(name), path)
        )
        assert low[1].shape == (2, *size)
        # random weights take ranges badly to other sizes; a trained network does not mind (docs/track1.md)
        assert np.corrcoef(low[0].ravel(), full[0].ravel())[0, 1] > 0.5, size


def test_views_of_several_sizes(artifacts, quantized, photos):
    """`augment` calls the network at half to twice the size that the ranges were taken at."""
    picture = max(photos.iterdir())
    with lidcam_rt.load(artifacts("unet")) as full, lidcam_rt.load(quantized("unet")[0], backend="onnxruntime") as low:
        one, other = (segment(picture, augment="ms-flip").labels for segment in (full, low))
    assert (one != other).mean() < 0.1


def test_the_manifest_records_precision_calibration_and_agreement(artifacts, quantized):
    path, manifest, outcome = quantized("deeplabv3plus")
    spec = manifest.precision
    assert read_manifest(path) == manifest and manifest.task == "segmentation"
    assert (spec.network, spec.weight_bits, spec.calibration, spec.calibration_pictures) == ("int8", 8, "minmax", 8)
    assert spec.made_of == file_sha256(artifacts("deeplabv3plus")) and len(spec.calibration_sha256) == 64
    assert isinstance(outcome, LabelOutcome) and outcome.miou is None and outcome.pictures == 8
    assert spec.agreement == outcome.to_dict() and set(spec.agreement) == {"pictures", "flipped", "label_iou"}
    report = json.loads(path.with_name(path.name + ".quantize.json").read_text())
    assert report["artifact_sha256"] == file_sha256(path) and report["precision"]["agreement"] == spec.agreement
    same = {"precision": None, "nodes": None}
    assert manifest.model_copy(update=same) == read_manifest(artifacts("deeplabv3plus")).model_copy(update=same)


def test_calibration_goes_through_the_artifact_s_own_preprocessing(quantized, photos):
    """The scale of the first activation is that of the normalised pixels."""
    model = onnx.load(str(quantized("deeplabv3plus")[0]))
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    spec = read_manifest(quantized("deeplabv3plus")[0]).input
    chosen = sorted(photos.iterdir())[::2]
    x = np.stack([network_input(decode(p).pixels, spec) for p in chosen]).astype(np.float32)
    x = (x - np.float32(spec.mean)) / np.float32(spec.std)
    assert constants_of(model)[first.input[1]] == pytest.approx((x.max() - x.min()) / 255, rel=1e-5)


def test_half_precision(artifacts, photos, tmp_path):
    for name in ("deeplabv3plus", "fpn"):
        options = QuantizeOptions(precision="fp16", held_out=photos, gate=LabelGate(flipped=0.02, label_iou=0.95))
        manifest, outcome = quantize_artifact(artifacts(name), tmp_path / f"{name}.onnx", options)
        assert manifest.precision.network == "fp16" and outcome.pictures == 16
        model = onnx.load(str(tmp_path / f"{name}.onnx"))
        head = next(node for node in model.graph.node if "logits" in node.output)
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        assert kinds[head.input[1]] == TensorProto.FLOAT and TensorProto.FLOAT16 in kinds.values()


# what is compared


def data_set(folder, segment, photos, count=6):
    """Pictures with label maps of our own network, of classes in another order, one unknown to it, and 255."""
    images, labels = folder / "images", folder / "labelmaps"
    images.mkdir(parents=True)
    labels.mkdir()
    (folder / "classes.txt").write_text("\n".join(("fish", *reversed(CLASSES))))
    for number, photo in enumerate(sorted(photos.iterdir())[:count]):
        (images / f"{number}.png").write_bytes(photo.read_bytes())
        found = segment(photo).labels
        true = np.where(found > 0, 6 - found, 0).astype(np.uint8)
        true[:10] = 0
        true[-5:, :20] = 255
        true[20:25, 40:60] = 1  # the fish
        Image.fromarray(true).save(labels / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(artifacts, photos, tmp_path_factory):
    with lidcam_rt.load(artifacts("unet"), device="cpu") as segment:
        return data_set(tmp_path_factory.mktemp("data") / "d", segment, photos)


def test_outcomes_against_numpy(artifacts, quantized, labelled):
    full, low = artifacts("unet"), quantized("unet")[0]
    data = open_data(str(labelled), "test")
    outcome = compare_label_maps(full, low, data)
    options = {"backend": "onnxruntime", "device": "cpu"}
    with lidcam_rt.load(full, **options) as one, lidcam_rt.load(low, **options) as two:
        a, b = (np.stack([s(r.image).labels for r in data.records]).ravel() for s in (one, two))
    true = np.stack([np.asarray(Image.open(labelled / "labelmaps" / f"{n}.png")) for n in range(6)]).ravel()

    def mean_iou(x, y, labels, kept=slice(None)):
        x, y = x[kept], y[kept]
        unions = [((x == k) | (y == k)).sum() for k in labels]
        return np.mean([((x == k) & (y == k)).sum() / u for k, u in zip(labels, unions, strict=True) if u])

    assert outcome.pictures == 6 and outcome.flipped == pytest.approx((a != b).mean())
    assert 0 < outcome.flipped < 0.2
    assert outcome.label_iou == pytest.approx(mean_iou(a, b, range(5)))
    table = np.array([0, 5, 4, 3, 2])  # cat, dog, bird, boat in the data's order
    for got, labels in zip(outcome.miou, (a, b), strict=True):
        assert got == pytest.approx(mean_iou(table[labels], true, range(6), true != 255))
    assert outcome.miou[0] > outcome.miou[1]
    assert outcome.to_dict() == {
        "pictures": 6.0, "flipped": outcome.flipped, "label_iou": outcome.label_iou,
        "miou_fp32": outcome.miou[0], "miou": outcome.miou[1],
    }  # fmt: skip


def test_label_maps_of_other_classes_are_no_truth(artifacts, quantized, labelled, tmp_path):
    data = open_data(str(labelled), "test")
    strange = ImageSet(data.name, ("a", "b", "c", "d", "e"), data.records)
    assert compare_label_maps(artifacts("unet"), quantized("unet")[0], strange).miou is None
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(InputError, match="none of the held-out pictures can be read"):
        compare_label_maps(artifacts("unet"), quantized("unet")[0], ImageSet("x", (), (Record(broken),)))


def test_gates():
    outcome = LabelOutcome(10, 0.05, 0.85, (0.5, 0.48))
    assert LabelGate(0.05, 0.85, 0.02).faults(outcome) == []
    assert LabelGate(0.01, 0.9, 0.01).faults(outcome) == [
        "5.00% of the pixels change their label, the gate is 1%",
        "the mean IoU of the label maps with float32's is 0.8500, the gate is 0.9",
        "2.00 points of mean IoU are lost, the gate is 1",
    ]
    assert LabelGate(miou=0.0).faults(LabelOutcome(10, 0.05, 0.85, (0.48, 0.5))) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("top1=0.02", "top1 does not go with a segmentation network, whose gates are flipped, label_iou, miou"),
        ("miou=0.01,mask_iou=0.9", "mask_iou does not go with"),
        ("miou=2", "give flipped, label_iou, miou, one or several, with values of 0 to 1"),
        ("iou=0.9", "such as miou=0.01,label_iou=0.9"),
        ("label_iou=nan", "values of 0 to 1"),
    ],
)
def test_a_gate_of_another_task_is_refused_by_name(artifacts, tiny, text, says):
    manifest = read_manifest(artifacts("unet"))
    assert parse_gate("miou=0.01,label_iou=0.9,flipped=0.1", manifest) == LabelGate(0.1, 0.9, 0.01)
    with pytest.raises(InputError, match=says):
        parse_gate(text, manifest)
    with pytest.raises(InputError, match="label_iou does not go with a network with activation maps, whose gates are"):
        parse_gate("top1=0.1,label_iou=0.9", read_manifest(tiny[0]))


def test_a_gate_of_another_task_or_without_truth_is_refused_before_anything_runs(artifacts, tiny, photos, tmp_path):
    for source, gate, says in (
        (artifacts("unet"), Gate(mask_iou=0.5), "task segmentation, which a Gate does not go with: LabelGate"),
        (tiny[0], LabelGate(0.5), "task localization, which a LabelGate does not go with"),
        (artifacts("unet"), LabelGate(miou=0.01), "miou needs true label maps .* data set with label maps in --held"),
    ):
        heard = []
        with pytest.raises(InputError, match=says):
            quantize_artifact(
                source, tmp_path / "q.onnx", QuantizeOptions(calibration=photos, gate=gate), note=heard.append
            )
        assert not heard and not list(tmp_path.iterdir())


def test_a_broken_gate_writes_nothing_and_names_layers(artifacts, labelled, photos, tmp_path):
    gate = LabelGate(miou=0.0, label_iou=1.0)
    options = QuantizeOptions(calibration=photos, pictures=4, held_out=labelled, gate=gate)
    says = (
        r"mean IoU of the label maps with float32's is 0\.\d+, the gate is 1; .*points of mean IoU are lost.*; nothing "
        r"was written.*Most to blame: node_\w+ \(.*% of the error\).*--float-worst \d"
    )
    with pytest.raises(ExportError, match=says):
        quantize_artifact(artifacts("unet"), tmp_path / "q.onnx", options)
    assert not list(tmp_path.iterdir())


def test_the_layer_to_blame_is_the_one_that_was_spoiled(artifacts, photos):
    full = onnx.load(str(artifacts("unet")))
    feeds = [{"image": image[None]} for image in inputs_of(artifacts("unet"), photos, 2)]
    low = to_int8(full, feeds)
    layers = compute_layers(full)
    end = next(node for node in full.graph.node if "logits" in node.output)
    assert end.name not in layers and find_features(full) == end.input[0]
    assert len(layers) + 1 == sum(node.op_type == "Conv" for node in full.graph.node)
    victim = layers[-2]
    node = next(n for n in low.graph.node if n.name == victim)
    reader = next(n for n in low.graph.node if n.output[0] == node.input[1])
    for tensor in low.graph.initializer:
        if tensor.name == reader.input[0]:
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    (name, share), *_ = most_to_blame(full, low, feeds)
    assert name == victim and share > 0.3


def test_layers_in_float_bring_it_back(artifacts, quantized, photos, tmp_path):
    """With every layer in float32 only what lies between them is rounded."""
    source = artifacts("unet")
    layers = compute_layers(onnx.load(str(source)))
    options = QuantizeOptions(
        calibration=photos, pictures=8, float_layers=(layers[0],), float_worst=2, held_out_pictures=8
    )
    manifest, _ = quantize_artifact(source, tmp_path / "q.onnx", options)
    assert len(manifest.precision.float_layers) == 3 and layers[0] in manifest.precision.float_layers
    every = QuantizeOptions(calibration=photos, pictures=8, float_layers=layers)
    _, exact = quantize_artifact(source, tmp_path / "r.onnx", every)
    assert exact.flipped < quantized("unet")[2].flipped


def test_a_network_whose_end_is_not_known_is_refused(artifacts):
    model = onnx.load(str(artifacts("unet")))
    node = next(node for node in model.graph.node if "logits" in node.output)
    node.output[0] = "raw"
    model.graph.node.append(onnx.helper.make_node("Relu", ["raw"], ["logits"], name="end"))
    with pytest.raises(ExportError, match="the output logits does not come from a convolution"):
        network_nodes(model)


def test_engines_in_float16_are_refused(artifacts, tmp_path):
    from lidcam_export.tensorrt.builder import BuildOptions, build_engine

    with pytest.raises(ExportError, match="segmentation network cannot be built in fp16"):
        build_engine(artifacts("unet"), tmp_path / "m.engine", BuildOptions(precision="fp16"), trt=object())


# the verbs


def run(*arguments):
    return CliRunner().invoke(build_app(arguments[0]), [str(a) for a in arguments])


def test_the_commands(artifacts, labelled, photos, tmp_path):
    low = tmp_path / "q.onnx"
    line = ("quantize", artifacts("unet"), "--calibration", photos, "--pictures", "8", "--held-out", labelled)
    line = (*line, "-o", low)
    done = run(*line, "--gate", "miou=0.2,label_iou=0.5,flipped=0.2")
    assert done.exit_code == 0, (done.output, done.exception)
    words = " ".join(done.output.split())
    assert re.search(r"against float32 on 6 held-out pictures: \d+\.\d+% of the pixels change their label", words)
    assert re.search(r"mean IoU \d+\.\d+% in float32, \d+\.\d+% now", words)
    refused = run(*line, "--gate", "top1=0.02")
    assert refused.exit_code == 2 and "top1 does not go with a segmentation network" in " ".join(refused.output.split())
    shown = " ".join(run("inspect", low).output.split())
    says = r"int8, weights of 8 bits, minmax of 8 pictures; label IoU 0\.\d+ with fp32, \d+\.\d+% of labels differ"
    assert re.search(says, shown), shown
    named = run("quantize", artifacts("unet"), "--list-layers").output.split()
    assert tuple(named) == compute_layers(onnx.load(str(artifacts("unet"))))
    done = run("localize", low, labelled / "images", "-o", tmp_path / "l", "--backend", "onnxruntime")
    assert done.exit_code == 0, (done.output, done.exception)
    with lidcam_rt.load(low, backend="onnxruntime") as segment, Image.open(tmp_path / "l" / "0_labels.png") as file:
        np.testing.assert_array_equal(np.asarray(file), segment(labelled / "images" / "0.png").labels)
    done = run("eval", low, "--data", labelled, "--metrics", "track1", "--backend", "onnxruntime", "-o", tmp_path / "e")
    assert done.exit_code == 0, (done.output, done.exception)
    scores = json.loads((tmp_path / "e" / "results.json").read_text())["rows"]["predicted class"]["track1"]["scores"]
    assert scores["mean_iou"] == pytest.approx(100 * read_manifest(low).precision.agreement["miou"])


def test_it_is_compared_with_float32(artifacts, quantized, labelled, tiny, tmp_path):
    full, low = artifacts("unet"), quantized("unet")[0]
    line = ("compare", full, low, "--data", labelled, "-o", tmp_path / "c.json", "--backend-a", "onnxruntime",
            "--backend-b", "onnxruntime")  # fmt: skip
    done = run(*line, "--label-iou", "0.3", "--flipped", "20", "--metric", "20")
    assert done.exit_code == 0 and "Within the tolerance" in done.output, (done.output, done.exception)
    total = json.loads((tmp_path / "c.json").read_text())["total"]
    outcome = compare_label_maps(full, low, open_data(str(labelled), "test"))
    assert total["pictures"] == 6 and total["flipped_percent"] == pytest.approx(100 * outcome.flipped)
    assert total["label_iou"] == pytest.approx(outcome.label_iou) and total["label_iou_least"] < 1
    assert total["delta track1 mean_iou"] == pytest.approx(100 * (outcome.miou[1] - outcome.miou[0]))
    done = run(*line, "--label-iou", "1", "--flipped", "0")
    words = " ".join(done.output.split())
    assert done.exit_code == 1 and "label_iou is 0." in words and "flipped_percent is" in words
    done = run("compare", full, full, "--data", labelled, "--backend-b", "openvino")
    assert done.exit_code == 0, (done.output, done.exception)
    for pair in ((full, tiny[0]), (tiny[0], full), (full, full.with_name("checkpoint"))):
        done = run("compare", *pair, "--data", labelled)
        words = " ".join(done.output.split())
        assert done.exit_code == 2 and "is a segmentation network and" in words and "give two artifacts" in words


def test_it_is_measured_beside_float32(artifacts, quantized, labelled, tmp_path):
    result = run(
        "bench", artifacts("unet"), quantized("unet")[0], "--images", labelled / "images", "--data", labelled,
        "--engine", "onnxruntime,openvino", "--pipeline", "track1", "--scenario", "offline", "--cold-starts", "0",
        "--duration", "0.05", "--no-floor", "-o", tmp_path / "o",
    )  # fmt: skip
    assert result.exit_code in (0, 8), (result.output, result.exception)
    runs = json.loads((tmp_path / "o" / "results.json").read_text())["runs"]
    assert not any(entry["error"] for entry in runs)
    kinds = [(entry["variant"]["engine"], entry["variant"]["precision"]) for entry in runs]
    assert [engine.split()[0] for engine, _ in kinds].count("openvino") == 2
    assert [precision for _, precision in kinds].count("int8") == 2
    for entry in runs[1:]:
        assert entry["accuracy"]["agreement"]["flipped_percent"] < 20
        assert entry["accuracy"]["scores"]["miou"] > 0.3
