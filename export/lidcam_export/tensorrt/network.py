"""The form of an artifact's graph that TensorRT's parsers take.

TensorRT allows uint8 at the network's inputs and outputs alone, next to a cast from or to float: not inside a function
body, not into a transpose, not from a boolean (its header NvInferRuntimeBase.h, DataType::kUINT8). So the function is
written out, casts are put where they are allowed, and names, dtypes and shapes of inputs and outputs stay as they are.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from lidcam_export.graph.operator import DOMAIN, write_out
from lidcam_rt.errors import ExportError

__all__ = ["cut_pas", "fix_size", "for_tensorrt", "pas_node_of"]


def pas_node_of(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The artifact's PaS node, or None where the graph spells the operator out."""
    found = [node for node in model.graph.node if node.domain == DOMAIN and node.op_type == "PaS"]
    if len(found) > 1:
        raise ExportError(f"the artifact has {len(found)} PaS nodes, one is expected: export it again")
    return found[0] if found else None


def fix_size(model: onnx.ModelProto, height: int, width: int) -> onnx.ModelProto:
    """The artifact with its free height and width replaced by numbers, so that the builder folds shapes.

    Args:
        model: an artifact; its batch stays free.
        height: rows of the input, pixels.
        width: columns of the input, pixels.
    """
    fixed = _copy(model)
    sizes = {"height": height, "width": width}
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    del fixed.graph.value_info[:]  # the old shapes
    return fixed


def for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """The artifact with its function written out and its uint8 casts where TensorRT allows them."""
    flat = write_out(model)
    _cast_inputs_first(flat.graph)
    _cast_outputs_last(flat.graph)
    onnx.checker.check_model(flat)
    return flat


def cut_pas(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, str], dict[str, object]]:
    """The artifact without its PaS node, so that a plugin layer can take its place.

    Returns:
        The model, whose outputs are those that the network makes; the names of the node's two inputs (both are
        outputs of the model then); the node's attributes.

    Raises:
        ExportError: the graph has no PaS node.
    """
    node = pas_node_of(model)
    if node is None:
        raise ExportError(
            "the artifact spells PaS out in standard operators, so a plugin cannot replace it: build with --pas body"
        )
    flat = _copy(model)
    kept = [n for n in flat.graph.node if not (n.domain == DOMAIN and n.op_type == "PaS")]
    del flat.graph.node[:]
    flat.graph.node.extend(kept)
    del flat.functions[:]
    domains = [entry for entry in flat.opset_import if entry.domain != DOMAIN]
    del flat.opset_import[:]
    flat.opset_import.extend(domains)
    outputs = [value for value in flat.graph.output if value.name not in node.output]
    inputs = (node.input[0], node.input[1])
    known = {value.name for value in (*outputs, *flat.graph.input)}
    outputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", f"{name}_1", f"{name}_2", f"{name}_3"])
        for name in inputs
        if name not in known
    ]
    del flat.graph.output[:]
    flat.graph.output.extend(outputs)
    _cast_inputs_first(flat.graph)
    onnx.checker.check_model(flat)
    return flat, inputs, {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _cast_inputs_first(graph: onnx.GraphProto) -> None:
    """Cast uint8 inputs to float before anything else; later casts to float are then without effect."""
    nodes = list(graph.node)
    first: list[onnx.NodeProto] = []
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        users = [node for node in nodes if value.name in node.input]
        if all(node.op_type == "Cast" for node in users):
            continue
        name = f"{value.name}__float"
        first.append(helper.make_node("Cast", [value.name], [name], name=name, to=TensorProto.FLOAT))
        for node in users:
            for k, entry in enumerate(node.input):
                if entry == value.name:
                    node.input[k] = name
    if first:
        del graph.node[:]
        graph.node.extend([*first, *nodes])
        del graph.value_info[:]


def _cast_outputs_last(graph: onnx.GraphProto) -> None:
    """Every cast to uint8 takes a float and gives an output of the graph."""
    nodes: list[onnx.NodeProto] = []
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None) if node.op_type == "Cast" else None
        if to == TensorProto.UINT8:
            if node.output[0] not in outputs:
                raise ExportError(
                    f"the graph computes in uint8 ({node.name or node.output[0]}), which TensorRT does not: "
                    "export the artifact with `lidcam export`"
                )
            name = f"{node.output[0]}__float"
            nodes.append(helper.make_node("Cast", [node.input[0]], [name], name=name, to=TensorProto.FLOAT))
            node.input[0] = name
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
