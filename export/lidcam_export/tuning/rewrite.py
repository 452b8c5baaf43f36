"""Other settings in an artifact's graph: the attributes of its PaS node, and the weights that form its maps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from lidcam_export.graph.operator import DOMAIN, attach, pas_node, write_out
from lidcam_rt.errors import ExportError
from lidcam_rt.pas import PasOptions

__all__ = ["MapHead", "both_maps", "find_map_head", "with_pas", "with_weights"]

_GATHERS = ("Gather", "GatherND")
#: The graph of `both_maps` has this output: maps by the other weights.
OTHER = "cam_other"


@dataclass(frozen=True, eq=False)
class MapHead:
    """Where the maps are formed: cam = Reshape(MatMul(Gather(weights, classes), features)).

    Attributes:
        weights: name of the initializer.
        nodes: the three nodes, in order.
        other: float32 [K, C]: the signed weights where the graph has the clamped ones, and the reverse.
    """

    weights: str
    nodes: tuple[onnx.NodeProto, ...]
    other: npt.NDArray[np.float32]


def find_map_head(model: onnx.ModelProto, *, nwc: bool) -> MapHead | None:
    """The nodes that form the maps; None where the maps have no single matrix of weights, or its signs are lost.

    Args:
        model: an artifact.
        nwc: whether its weights are clamped.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    tensors = {entry.name: entry for entry in model.graph.initializer}
    reshape = makers.get("cam")
    if reshape is None or reshape.op_type != "Reshape":
        return None
    product = makers.get(reshape.input[0])
    if product is None or product.op_type != "MatMul":
        return None
    gather = makers.get(product.input[0])
    if gather is None or gather.op_type not in _GATHERS or gather.input[0] not in tensors:
        return None
    weights = numpy_helper.to_array(tensors[gather.input[0]])
    if weights.ndim != 2 or weights.dtype != np.float32:
        return None
    other = _signed(weights, tensors.values()) if nwc else np.maximum(weights, 0)
    if other is None or np.array_equal(other, weights):
        return None
    return MapHead(gather.input[0], (gather, product, reshape), np.ascontiguousarray(other))


def _signed(
    clamped: npt.NDArray[np.float32], tensors: Iterable[onnx.TensorProto]
) -> npt.NDArray[np.float32] | None:
    """The classifier's weights of which these are the positive part."""
    for tensor in tensors:
        dims, wanted = tuple(tensor.dims), clamped.shape
        if tensor.data_type != onnx.TensorProto.FLOAT or dims not in (wanted, wanted[::-1]):
            continue
        values = numpy_helper.to_array(tensor)
        for matrix in (values, values.T):
            if matrix.shape == wanted and matrix.min() < 0 and np.array_equal(np.maximum(matrix, 0), clamped):
                return matrix
    return None


def both_maps(model: onnx.ModelProto, head: MapHead) -> onnx.ModelProto:
    """The model with a further output `cam_other`: the maps by the other weights."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    out.graph.initializer.append(numpy_helper.from_array(head.other, "other_weights"))
    place = {tuple(node.output): i for i, node in enumerate(out.graph.node)}[tuple(head.nodes[-1].output)] + 1
    names = {head.weights: "other_weights"}
    for offset, node in enumerate(head.nodes):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"other_{offset}"
        copy.input[:] = [names.get(name, name) for name in node.input]
        names[node.output[0]] = OTHER if node is head.nodes[-1] else f"other_value_{offset}"
        copy.output[:] = [names[node.output[0]]]
        out.graph.node.insert(place + offset, copy)
    value = onnx.ValueInfoProto()
    value.CopyFrom(next(entry for entry in out.graph.output if entry.name == "cam"))
    value.name = OTHER
    out.graph.output.append(value)
    return out


def with_weights(model: onnx.ModelProto, head: MapHead) -> None:
    """Form the maps by the other weights, in place."""
    gather = next(node for node in model.graph.node if list(node.output) == list(head.nodes[0].output))
    model.graph.initializer.append(numpy_helper.from_array(head.other, "map_weights_tuned"))
    gather.input[0] = "map_weights_tuned"
    used = {name for node in model.graph.node for name in node.input} | {entry.name for entry in model.graph.output}
    for place, tensor in reversed(list(enumerate(model.graph.initializer))):
        if tensor.name not in used:
            del model.graph.initializer[place]


def with_pas(model: onnx.ModelProto, options: PasOptions) -> onnx.ModelProto:
    """The model with PaS of other options: as a node with a function body, or written out, as it was.

    Raises:
        ExportError: it has neither a PaS node nor the tensor that such a node needs.
    """
    graph = model.graph
    node = next((entry for entry in graph.node if entry.domain == DOMAIN and entry.op_type == "PaS"), None)
    if node is not None:
        inputs, outputs = (node.input[0], node.input[1]), (node.output[0], node.output[1], node.output[2])
    else:
        inputs, outputs = ("cam", "pixels"), ("map8", "mask", "threshold")
        known = {name for entry in graph.node for name in entry.output}
        if not known.issuperset(inputs):
            raise ExportError(
                "this artifact has its own form of PaS, which cannot be given other settings: export it again with "
                "`lidcam export`"
            )
    kept = _needed(graph, {entry.name for entry in graph.output} - set(outputs))
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.node[:]
    out.graph.node.extend(kept)
    out.graph.node.append(pas_node(inputs, outputs, options))
    for place, function in reversed(list(enumerate(out.functions))):
        if function.domain == DOMAIN and function.name == "PaS":
            del out.functions[place]
    attach(out, options)
    used = {name for entry in out.graph.node for name in entry.input}
    for place, tensor in reversed(list(enumerate(out.graph.initializer))):
        if tensor.name not in used:
            del out.graph.initializer[place]
    return out if node is not None else write_out(out)


def _needed(graph: onnx.GraphProto, outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that these outputs are made of, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
