"""An artifact whose network computes in 8-bit integers: Q/DQ nodes, made by `onnxruntime.quantization`.

Activations are uint8 with one scale and zero point per tensor, weights int8 with a scale per output channel: what VNNI
and AMX multiply. The nodes from the first convolution to the last feature map are quantized; normalisation, pooling,
logits, the activation map and PaS stay in float32, and the features are read back into float32 before them. In
segmentation the convolution of the logits, their resize, label map and scores stay in float32.
Background: Jacob et al., CVPR 2018; Nagel et al., arXiv:2106.08295.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from lidcam_export.graph.operator import DOMAIN
from lidcam_export.graph.simplify import drop_unused
from lidcam_export.precision.half import network_nodes
from lidcam_rt.errors import ExportError

__all__ = ["Feed", "compute_layers", "in_float", "to_int8"]

Feed = dict[str, npt.NDArray[Any]]

_GATES = ("Mul", "Sigmoid", "HardSigmoid")
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class _Reader:
    """Inputs of the graph, one picture each, as `onnxruntime.quantization` asks for them."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next one, or None."""
        return next(self._feeds, None)


def compute_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the network's convolutions and matrix products, in order."""
    return tuple(node.name for i in network_nodes(model) if (node := model.graph.node[i]).op_type in _LAYERS)


def to_int8(
    model: onnx.ModelProto, feeds: Iterable[Feed], *, reduce_range: bool = False, gates: bool = False
) -> onnx.ModelProto:
    """Quantize the network of an artifact; inputs, outputs and manifest do not change.

    Args:
        model: a float32 artifact.
        feeds: inputs of the graph for calibration, at least one. Activations get the range from their lowest to their
            highest value. (onnxruntime's other methods hold every activation of every picture in memory.)
        reduce_range: weights of 7 bits. Processors without VNNI add pairs of products in 16 bits, which 8 bits of
            weights can saturate: wrong values, without any message.
        gates: the gates of squeeze-and-excitation blocks (sigmoid and product) in 8 bits too. On seresnet50 this is
            faster in ONNX Runtime and slower in OpenVINO, which is the faster of the two (benchmarks/README.md).

    Raises:
        ExportError: the network cannot be located, or onnxruntime cannot quantize it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    plain, taken = _without_pas(model)
    nodes = [plain.graph.node[i] for i in network_nodes(plain)]
    names = [node.name for node in nodes if gates or node.op_type not in _GATES]
    if not compute_layers(plain) or "" in names or len(set(names)) != len(names):
        raise ExportError("the network's nodes cannot be told apart by name: export the artifact with `lidcam export`")
    with tempfile.TemporaryDirectory(prefix="lidcam-quantize-") as folder, _quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(plain, str(source))
        try:
            quantize_static(
                str(source),
                str(target),
                _Reader(feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=names,
                calibrate_method=CalibrationMethod.MinMax,
                # Activations that a clamp to 8 bits makes needless: engines leave them out, `in_float` needs them.
                extra_options={"QDQKeepRemovableActivations": True},
            )
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ExportError(f"onnxruntime cannot quantize the network ({reason})") from error
        quantized = onnx.load(str(target))
    return _with_pas(quantized, model, taken)


def _without_pas(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """The artifact as a model of standard operators alone, without PaS, and the nodes taken away."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    taken = [node for node in plain.graph.node if node.domain == DOMAIN]
    kept = [node for node in plain.graph.node if node.domain != DOMAIN]
    made = {name for node in taken for name in node.output}
    outputs = [value for value in plain.graph.output if value.name not in made]
    domains = [entry for entry in plain.opset_import if entry.domain != DOMAIN]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in taken]
    for field, values in (
        (plain.graph.node, kept),
        (plain.graph.output, outputs),
        (plain.opset_import, domains),
        (plain.functions, []),
    ):
        copied = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copied)
    return plain, copies


def _with_pas(quantized: onnx.ModelProto, model: onnx.ModelProto, taken: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Put back what `_without_pas` took away, and remove names and opsets that the quantizer left behind."""
    out = onnx.ModelProto()
    out.CopyFrom(quantized)
    out.graph.node.extend(taken)
    del out.graph.output[:], out.graph.value_info[:], out.functions[:], out.metadata_props[:]
    out.graph.output.extend(model.graph.output)
    out.functions.extend(model.functions)
    out.metadata_props.extend(model.metadata_props)
    del out.opset_import[:]
    out.opset_import.extend(model.opset_import)
    used = {node.domain for node in out.graph.node} | {""}
    out.opset_import.extend(
        entry
        for entry in quantized.opset_import
        if entry.domain in used - {known.domain for known in model.opset_import}
    )
    out.ir_version = model.ir_version
    out.producer_name, out.producer_version = model.producer_name, model.producer_version
    onnx.checker.check_model(out)
    return out


def in_float(quantized: onnx.ModelProto, model: onnx.ModelProto, layers: Sequence[str]) -> onnx.ModelProto:
    """The quantized artifact with some layers restored: their inputs and weights are not rounded.

    Args:
        quantized: from `to_int8`.
        model: the float32 artifact.
        layers: names of nodes, from `compute_layers`.

    Raises:
        ExportError: there is no such layer.
    """
    known = compute_layers(model)
    if unknown := [name for name in layers if name not in known]:
        raise ExportError(
            f"the network has no layer {unknown[0]}; it has {len(known)}: {', '.join(known[:3])}, ... (all: "
            "`lidcam quantize --list-layers`)"
        )
    out = onnx.ModelProto()
    out.CopyFrom(quantized)
    originals = {node.name: node for node in model.graph.node}
    makers = {name: node for node in out.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    present: set[str] = set()
    for node in out.graph.node:
        if node.name not in layers:
            continue
        for place, name in enumerate(originals[node.name].input):
            if name in constants:
                node.input[place] = f"{name}__float"
                if name not in present:
                    present.add(name)
                    out.graph.initializer.append(constants[name])
                    out.graph.initializer[-1].name = f"{name}__float"
            elif (reader := makers.get(node.input[place])) is not None and reader.op_type == "DequantizeLinear":
                node.input[place] = makers[reader.input[0]].input[0]
    drop_unused(out.graph)
    onnx.checker.check_model(out)
    return out


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer's advice (on the root logger) to do a preparation that the exporter has done."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
