"""The traced graph in the form that engines run fast, with the same values up to rounding.

torch.onnx folds BatchNorm into convolutions and constants into each other; this module does what it leaves undone:

- The division by the standard deviation goes into the weights of the first convolution. The subtraction of the mean
  stays: convolutions pad the normalised picture with zeros, which a bias cannot imitate at the border.
- A mean over all pixels becomes GlobalAveragePool, as in squeeze-and-excitation (Hu et al., CVPR 2018): ONNX Runtime
  keeps its blocked memory layout across it and has a form of it for 8-bit integers, unlike for ReduceMean.
- The shape of the maps is read from the features; the trace computes it from the size of the picture in a chain of
  nodes through all strides.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["drop_unused", "simplify"]


def simplify(model: onnx.ModelProto) -> None:
    """Rewrite a traced graph in place; its inputs and outputs keep their names."""
    for step in (_fold_std, _pool_globally, _ask_features):
        step(model.graph)
        drop_unused(model.graph)
    del model.graph.value_info[:]


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _users(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]


def _fold_std(graph: onnx.GraphProto) -> None:
    """Pixels = (x - mean) / std, whose users are all convolutions: divide their weights instead."""
    node = _makers(graph).get("pixels")
    constants = _constants(graph)
    if node is None or node.op_type != "Div" or node.input[1] not in constants:
        return
    std = numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
    users = _users(graph, "pixels")
    for user in users:
        grouped = any(a.name == "group" and a.i != 1 for a in user.attribute)
        if user.op_type != "Conv" or user.input[0] != "pixels" or user.input[1] not in constants or grouped:
            return
    for user in users:
        weight = numpy_helper.to_array(constants[user.input[1]])
        name = f"{user.input[1]}__over_std"
        if name not in _constants(graph):
            divided = (weight.astype(np.float64) / std.reshape(1, -1, 1, 1)).astype(weight.dtype)
            graph.initializer.append(numpy_helper.from_array(divided, name))
        user.input[1] = name
    _makers(graph)[node.input[0]].output[0] = "pixels"
    graph.node.remove(node)


def _pool_globally(graph: onnx.GraphProto) -> None:
    """ReduceMean over height and width that keeps its dimensions."""
    constants = _constants(graph)
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = sorted(int(axis) % 4 for axis in numpy_helper.to_array(constants[node.input[1]]))
        keeps = all(a.i == 1 for a in node.attribute if a.name == "keepdims")
        if axes == [2, 3] and keeps:
            replaced = helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), name=node.name)
            node.CopyFrom(replaced)


def _ask_features(graph: onnx.GraphProto) -> None:
    """Cam = Reshape(rows @ Reshape(features)), where the two shapes are computed."""
    makers, constants = _makers(graph), _constants(graph)
    product = _maker(makers, makers.get("cam"), "Reshape", 0)
    flat = _maker(makers, product, "MatMul", 1)
    if product is None or flat is None or flat.op_type != "Reshape":
        return
    if {flat.input[1], makers["cam"].input[1]} <= set(constants):
        return  # a fixed size: constants already
    features = flat.input[0]
    names = {"flat": "features_flat_shape", "k": "features_shape", "nk": "class_ids_shape", "cam": "cam_shape"}
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1], np.int64), names["flat"]))
    flat.input[1] = names["flat"]
    del flat.attribute[:]  # allowzero, under which 0 would not mean "unchanged"
    makers["cam"].input[1] = names["cam"]
    shapes = [
        helper.make_node("Shape", ["class_ids"], [names["nk"]], name=names["nk"]),
        helper.make_node("Shape", [features], [names["k"]], name=names["k"], start=2),
        helper.make_node("Concat", [names["nk"], names["k"]], [names["cam"]], name=names["cam"], axis=0),
    ]
    place = next(i for i, node in enumerate(graph.node) if "cam" in node.output)
    for shape in reversed(shapes):
        graph.node.insert(place, shape)


def _maker(
    makers: dict[str, onnx.NodeProto], node: onnx.NodeProto | None, kind: str, place: int
) -> onnx.NodeProto | None:
    """The node that makes an input of a node, if it is of the expected kind."""
    return makers.get(node.input[place]) if node is not None and node.op_type == kind else None


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that no output needs."""
    used = {value.name for value in graph.output}
    for index in reversed(range(len(graph.node))):  # nodes are in topological order
        node = graph.node[index]
        if used.isdisjoint(node.output):
            del graph.node[index]
        else:
            used.update(node.input)
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(tensors) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(tensors)
