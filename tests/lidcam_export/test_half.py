"""The half-precision form: which part is in float16, and that the rest gives what it gave."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from lidcam_export.precision.half import find_features, network_nodes, to_half
from lidcam_export.precision.half_check import compare_half
from lidcam_export.tensorrt.network import cut_pas, for_tensorrt, pas_node_of
from onnx import TensorProto, helper, numpy_helper

from lidcam_rt.artifact import read_manifest
from lidcam_rt.errors import ExportError
from lidcam_rt.pas import pas_reference

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture(scope="module")
def model(resnet10):
    return onnx.load(str(resnet10))


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in inferred.initializer}


def test_the_network_is_half_and_the_head_is_not(model):
    half = to_half(model)
    kinds = types(half)
    convolutions = [n for n in half.graph.node if n.op_type == "Conv"]
    assert len(convolutions) == 14
    assert all(kinds[name] == TensorProto.FLOAT16 for n in convolutions for name in (*n.input, *n.output))
    products = [n for n in half.graph.node if n.op_type in ("MatMul", "Gemm", "Softmax", "TopK", "ReduceMean")]
    assert len(products) >= 4
    assert all(kinds[n.input[0]] == TensorProto.FLOAT for n in products)
    node = pas_node_of(half)
    assert [kinds[name] for name in node.input] == [TensorProto.FLOAT, TensorProto.FLOAT]
    assert half.graph.input == model.graph.input and half.graph.output == model.graph.output
    assert half.metadata_props == model.metadata_props and half.functions == model.functions
    assert find_features(half) == find_features(model)


def test_the_half_form_agrees_with_the_artifact(model, resnet10):
    manifest = read_manifest(resnet10)
    found = compare_half(model, to_half(model), manifest)
    assert found["top1"] == 1 and 0 < found["cam"] < 1e-2 and found["mask_flipped"] < 1e-2
    assert compare_half(model, model, manifest) == {
        "logits": 0, "cam": 0, "map": 0, "mask_flipped": 0, "top1": 1,
    }  # fmt: skip


def test_pas_of_the_half_form_is_the_reference_on_its_own_cam(model):
    """The cast is where it belongs: what PaS gets is float32, not a rounded map."""
    session = ort.InferenceSession(to_half(model).SerializeToString())
    image = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    feeds = {"image": image, "labels": np.full((2, 1), -1)}
    cam, map8, threshold = session.run(["cam", "map8", "threshold"], feeds)
    assert not np.array_equal(cam, cam.astype(np.float16).astype(np.float32))
    want = pas_reference(cam, (224, 224))
    np.testing.assert_array_equal(threshold, want.threshold)
    assert np.abs(map8.astype(int) - want.map).max() <= 1


def test_weights_beyond_half_are_refused(model):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    name = next(n for n in changed.graph.node if n.op_type == "Conv").input[1]
    tensor = next(t for t in changed.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = 1e6
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    with pytest.raises(ExportError, match=r"1e\+06.*fp32"):
        to_half(changed)


def test_activations_beyond_half_are_refused(model, resnet10):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for name in [n.input[1] for n in changed.graph.node if n.op_type == "Conv"][:2]:
        tensor = next(t for t in changed.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2000), name))
    with pytest.raises(ExportError, match="overflows"):
        compare_half(model, to_half(changed), read_manifest(resnet10))


def test_a_linearized_head_is_refused_with_its_reason(model, resnet10):
    manifest = read_manifest(resnet10)
    cam = manifest.cam.model_copy(update={"head": "linearized"})
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.metadata_props[:]
    helper.set_model_props(changed, manifest.model_copy(update={"cam": cam}).to_metadata())
    with pytest.raises(ExportError, match=r"linearized head come from a gradient.*in fp32$"):
        to_half(changed)


def graph_of(nodes, constants, outputs=("cam",)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list("nchw")[: 3 if name == "cam" else 4])
            for name in outputs
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_bounds_sizes_and_scales_keep_what_they_mean():
    """Clip's open end is clamped, Resize's scales stay float32, numbers made of shapes stay float32."""
    f32 = np.float32
    constants = [
        numpy_helper.from_array(np.ones((4, 3, 1, 1), f32), "w"),
        numpy_helper.from_array(f32(0), "zero"),
        numpy_helper.from_array(f32(3.4e38), "top"),
        numpy_helper.from_array(f32([1, 1, 2, 2]), "scales"),
        numpy_helper.from_array(np.ones((1, 2, 4), f32), "rows"),
        numpy_helper.from_array(np.int64([1, 4, 256]), "flat"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Clip", ["a", "zero", "top"], ["b"]),
        helper.make_node("Resize", ["b", "", "scales"], ["c"], mode="nearest"),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Size", ["c"], ["count"]),
        helper.make_node("Cast", ["count"], ["countf"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["c", "countf"], ["d"]),
        helper.make_node("Reshape", ["d", "flat"], ["e"]),
        helper.make_node("MatMul", ["rows", "e"], ["cam"]),
    ]
    model = graph_of(nodes, constants, ("cam", "b"))
    assert find_features(model) == "d"
    half = to_half(model)
    kinds = types(half)
    assert kinds["scales"] == kinds["countf"] == TensorProto.FLOAT
    assert {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}["top__half"] == 65504
    x = np.random.default_rng(0).random((1, 3, 8, 8), f32)
    got, want = (ort.InferenceSession(m.SerializeToString()).run(None, {"x": x}) for m in (half, model))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == np.float32 and 0 < np.abs(a - b).max() < 2e-3 * np.abs(b).max()


@pytest.mark.parametrize("op", ["Relu", "missing"])
def test_a_graph_without_a_cam_head_is_refused(op):
    nodes = [helper.make_node("Relu", ["x"], ["cam" if op == "Relu" else "other"])]
    with pytest.raises(ExportError, match="lidcam export"):
        network_nodes(graph_of(nodes, [], ("cam",) if op == "Relu" else ("other",)))


def test_the_engine_form_gives_the_same_numbers(model):
    """What TensorRT's parser gets, run by ONNX Runtime: bit for bit the artifact."""
    flat = for_tensorrt(model)
    assert not flat.functions and {o.domain for o in flat.opset_import} == {""}
    image = np.random.default_rng(1).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    feeds = {"image": image, "labels": np.array([[-1], [4], [999]])}
    got, want = (ort.InferenceSession(m.SerializeToString()).run(None, feeds) for m in (flat, model))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_uint8_stands_only_next_to_a_cast(model):
    flat = for_tensorrt(model)
    kinds = types(flat)
    ends = {v.name for v in (*flat.graph.input, *flat.graph.output)}
    assert {name for name, kind in kinds.items() if kind == TensorProto.UINT8} == {"image", "map8", "mask"} < ends
    for node in flat.graph.node:
        if "image" in node.input or {"map8", "mask"} & set(node.output):
            assert node.op_type == "Cast"
            assert {kinds[n] for n in (*node.input, *node.output)} == {TensorProto.UINT8, TensorProto.FLOAT}


def test_a_plugin_takes_the_place_of_the_node(model):
    rest, inputs, attributes = cut_pas(model)
    assert inputs == ("cam", "pixels") and pas_node_of(rest) is None
    assert attributes["percentile"] == 98 and attributes["mode"] == b"threshold"
    names = [value.name for value in rest.graph.output]
    assert names[:4] == ["logits", "class_ids", "scores", "cam"] and inputs[1] in names
    image = np.random.default_rng(2).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    feeds = {"image": image, "labels": np.array([[-1]])}
    cam, pixels = ort.InferenceSession(rest.SerializeToString()).run(list(inputs), feeds)
    want = ort.InferenceSession(model.SerializeToString()).run(["cam", "map8"], feeds)
    np.testing.assert_array_equal(cam, want[0])
    assert pixels.shape == (1, 3, 224, 224) and pixels.dtype == np.float32
