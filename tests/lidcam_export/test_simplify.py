"""The written graph: fewer nodes than the traced one, in the forms that engines fuse, with the same values."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from lidcam_export.agreement import relative_difference
from onnx import numpy_helper

from lidcam_rt.artifact import read_manifest

pytestmark = pytest.mark.slow  # not in make quick


def test_no_node_is_left_that_an_engine_would_run_for_nothing(tiny):
    path, _ = tiny
    model = onnx.load(str(path))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds == {
        "Cast": 1, "Transpose": 1, "Sub": 1,  # normalisation: the division is in the weights
        "Conv": 4, "Relu": 3, "GlobalAveragePool": 1, "Sigmoid": 1, "Mul": 1,  # two layers and their SE block
        "ReduceMean": 1, "MatMul": 2, "Add": 1, "TopK": 1, "Less": 1, "Where": 1, "Softmax": 1, "GatherElements": 1,
        "Unsqueeze": 1, "GatherND": 1, "Reshape": 2, "Shape": 2, "Concat": 1,  # logits, classes, maps
        "PaS": 1,
    }  # fmt: skip
    nodes = read_manifest(path).nodes
    assert nodes.written == len(model.graph.node) < nodes.traced / 2
    named = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= named


def test_same_padding_is_an_attribute_of_the_convolution(tiny):
    """A padding of its own would cost engines two changes of memory layout."""
    convolutions = [node for node in onnx.load(str(tiny[0])).graph.node if node.op_type == "Conv"]
    modes = [a.s for node in convolutions for a in node.attribute if a.name == "auto_pad"]
    assert modes[:2] == [b"SAME_UPPER", b"SAME_UPPER"]


@pytest.mark.parametrize("size", [(48, 64), (47, 61), (33, 80)])
def test_the_values_are_those_of_pytorch_in_every_batch_and_size(tiny, size):
    path, graph = tiny
    image = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    labels = np.array([[-1, -1], [2, -1], [-1, 4]])
    session = ort.InferenceSession(str(path))
    got = session.run(["logits", "class_ids", "scores", "cam"], {"image": image, "labels": labels})
    with torch.inference_mode():
        logits, ids, scores, cam, _ = graph(torch.tensor(image), torch.tensor(labels))
    np.testing.assert_array_equal(got[1], ids.numpy())
    for a, b in zip((got[0], got[2], got[3]), (logits, scores, cam), strict=True):
        assert a.shape == tuple(b.shape)
        assert relative_difference(a, b.numpy()) < 64 * np.finfo(np.float32).eps  # rounding in sums of another order


def test_the_division_by_the_standard_deviation_is_in_the_weights(tiny):
    path, graph = tiny
    model = onnx.load(str(path))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    conv, norm = graph.network.stem[0].conv, graph.network.stem[1]
    folded = conv.weight * (norm.weight / torch.sqrt(norm.running_var + norm.eps)).view(-1, 1, 1, 1)
    want = folded / torch.tensor(graph.manifest.input.std).view(1, -1, 1, 1)
    np.testing.assert_allclose(weights[first.input[1]], want.detach().numpy(), rtol=1e-5)
