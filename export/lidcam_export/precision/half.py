"""A half-precision form of an artifact: the network in float16, the CAM head and PaS in float32.

Strongly typed engines (TensorRT 11, TensorRT for RTX) take their precision from the graph: float16 means a graph with
casts (docs/gpu.md). The casts go around the part that costs time, from the first convolution to the last feature
map. Normalisation, pooling, logits, the activation map and PaS stay in float32: a sum over pixels, a min-max and a
percentile lose digits in float16 that decide bytes of the map.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lidcam_rt.artifact import MANIFEST_KEY, Manifest
from lidcam_rt.errors import ExportError

__all__ = ["find_features", "network_nodes", "to_half"]

_COMPUTE = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_SHAPE_ONLY = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose", "Cast"}
#: Inputs that ONNX wants in float32 whatever the data's type is.
_ALWAYS_FLOAT32 = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
#: Ops whose constants are bounds: one beyond float16's range can be clipped to it.
_BOUNDS = {"Clip", "Pad", "Max", "Min", "Where", "MaxPool"}
_TOP = float(np.finfo(np.float16).max)


def find_features(model: onnx.ModelProto) -> str:
    """Name of the last feature map [N, C, h, w], found from the output backwards.

    With activation maps it is the factor of cam = rows @ features; in segmentation the input of the convolution that
    gives the logits.

    Raises:
        ExportError: `cam` or the logits are not made that way, as in artifacts with a linearized head.
    """
    if any(value.name == "label_map" for value in model.graph.output):
        return _segmentation_features(model)
    if _head(model) == "linearized":
        raise ExportError(
            "the maps of a linearized head come from a gradient, whose graph has no point after the network from which "
            "float32 could be kept: build this artifact in fp32"
        )
    producers: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}
    name: str = "cam"
    node = producers.get(name)
    while node is not None and node.op_type in _SHAPE_ONLY:
        name = node.input[0]
        node = producers.get(name)
    if node is None or node.op_type != "MatMul":
        raise ExportError(
            "the output cam is not the product of class weights and features, so the end of the network cannot be "
            "found: export the artifact with `lidcam export`"
        )
    name = node.input[1]
    node = producers.get(name)
    while node is not None and node.op_type in _SHAPE_ONLY - {"Cast"}:
        name = node.input[0]
        node = producers.get(name)
    return name


def _segmentation_features(model: onnx.ModelProto) -> str:
    node = next((node for node in model.graph.node if "logits" in node.output), None)
    if node is None or node.op_type != "Conv":
        raise ExportError(
            "the output logits does not come from a convolution, so the end of the network cannot be found: export the "
            "artifact with `lidcam export`"
        )
    return str(node.input[0])


def _head(model: onnx.ModelProto) -> str:
    """Head of the artifact's manifest; linear where there is no manifest."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if MANIFEST_KEY not in metadata:
        return "linear"
    cam = Manifest.from_metadata(metadata, "the artifact").cam
    return "linear" if cam is None else cam.head


def network_nodes(model: onnx.ModelProto) -> list[int]:
    """Indices of the nodes between the first convolution (or matrix product) and the last feature map."""
    nodes = model.graph.node
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needed: set[int] = set()
    pending = [find_features(model)]
    while pending:
        index = maker.get(pending.pop())
        if index is not None and index not in needed:
            needed.add(index)
            pending += list(nodes[index].input)
    inside: list[int] = []
    reached: set[str] = set()
    for i, node in enumerate(nodes):  # a model's nodes are in topological order
        if i not in needed or node.op_type in ("Shape", "Size"):
            continue
        if node.op_type in _COMPUTE or any(name in reached for name in node.input):
            inside.append(i)
            reached.update(node.output)
    return inside


def _float32_tensors(model: onnx.ModelProto) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    typed = [*inferred.input, *inferred.value_info, *inferred.output]
    names = {v.name for v in typed if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {t.name for t in inferred.initializer if t.data_type == TensorProto.FLOAT}


def _half_constant(tensor: onnx.TensorProto, name: str, op: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    beyond = np.isfinite(values) & (np.abs(values) > _TOP)
    if beyond.any():
        if op not in _BOUNDS:
            raise ExportError(
                f"a constant of {op} ({tensor.name or name}) holds {values[beyond][0]:.3g}, beyond float16 "
                f"({_TOP:.0f}): build this artifact in fp32"
            )
        values = np.clip(values, -_TOP, _TOP)
    return numpy_helper.from_array(values.astype(np.float16), name)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same artifact with its network in float16; inputs, outputs and manifest do not change.

    Args:
        model: an artifact.

    Raises:
        ExportError: its network cannot be located, has control flow, or holds weights beyond float16.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    floats = _float32_tensors(out)
    inside = network_nodes(out)
    if not inside:
        raise ExportError("the artifact has no convolution or matrix product before its features: build it in fp32")
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    nodes = list(graph.node)
    made = {name for i in inside for name in nodes[i].output if name in floats}
    outside = {name for i, node in enumerate(nodes) if i not in set(inside) for name in node.input}
    outside |= {value.name for value in graph.output}
    new_constants: dict[str, onnx.TensorProto] = {}
    cast_down: set[str] = set()
    result: list[onnx.NodeProto] = []
    members = set(inside)
    for i, node in enumerate(nodes):
        if i not in members:
            result.append(node)
            continue
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise ExportError(f"the network has control flow ({node.op_type} {node.name}): build it in fp32")
        for k, name in enumerate(node.input):
            if name not in floats or (node.op_type, k) in _ALWAYS_FLOAT32:
                continue
            half = f"{name}__half"
            if name in constants:
                if half not in new_constants:
                    new_constants[half] = _half_constant(constants[name], half, node.op_type)
            elif name not in made and name not in cast_down:
                cast_down.add(name)
                result.append(helper.make_node("Cast", [name], [half], name=half, to=TensorProto.FLOAT16))
            node.input[k] = half
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        _retype_value(node)
        result.append(node)
        for k, name in enumerate(node.output):
            if name in made:
                node.output[k] = f"{name}__half"
                if name in outside:
                    result.append(
                        helper.make_node(
                            "Cast", [node.output[k]], [name], name=f"{name}__float", to=TensorProto.FLOAT
                        )
                    )
    del graph.node[:]
    graph.node.extend(result)
    graph.initializer.extend(new_constants.values())
    _drop_unused(graph)
    del graph.value_info[:]
    onnx.checker.check_model(out)
    return out


def _retype_value(node: onnx.NodeProto) -> None:
    """A constant inside ConstantOfShape or Constant becomes float16 with its output."""
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_half_constant(attribute.t, attribute.t.name, node.op_type))


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [n for n in graph.node if n.op_type != "Constant" or n.output[0] in used]
    del graph.node[:]
    graph.node.extend(nodes)
