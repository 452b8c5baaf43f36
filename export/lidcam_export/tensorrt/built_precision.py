"""Which precision an engine was really built in, read from the engine where that is possible.

Asking for fp16 and getting fp32 in silence is the oldest complaint about engines (docs/gpu.md). Three witnesses,
best first: the loaded engine's inspector (needs a driver); the text that TensorRT for RTX keeps inside the engine file
(tensors of its compiler's graph with their types); the strongly typed network, whose types the builder must keep.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from lidcam_rt.errors import ExportError

__all__ = ["check_precision", "types_from_inspector", "types_in_network", "types_in_plan"]

_NAMES = {"half": "float16", "fp16": "float16", "float": "float32", "fp32": "float32"}
_CONSTANT = re.compile(rb"const_payload_size=(\d+) dims=\{((?: \d+)+) \}[^\n]{0,400}? type=([a-z0-9]+) \}")
_SMALLEST = 512  # bytes of a convolution's weights; smaller ones are folded normalisation and bounds


def types_in_plan(plan: bytes | memoryview) -> dict[str, int]:
    """Weights of convolutions in an engine file by type; empty where the file has no such text.

    Four dimensions, more than one channel in or out: PaS has rows of constants [1, 1, 1, 255].
    """
    counts: Counter[str] = Counter()
    for size, dims, kind in _CONSTANT.findall(bytes(plan)):
        shape = dims.split()
        weights = len(shape) == 4 and shape[:2] != [b"1", b"1"] and int(size) >= _SMALLEST
        if weights and kind.decode() in _NAMES:
            counts[_NAMES[kind.decode()]] += 1
    return dict(counts)


def types_in_network(trt: Any, network: Any) -> dict[str, int]:
    """Convolutions of a network definition by the type of their output."""
    kinds = {trt.LayerType.CONVOLUTION}
    if hasattr(trt.LayerType, "DECONVOLUTION"):
        kinds.add(trt.LayerType.DECONVOLUTION)
    names = {trt.float32: "float32", trt.float16: "float16"}
    counts: Counter[str] = Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type in kinds:
            kind = layer.get_output(0).dtype
            counts[names.get(kind, str(kind))] += 1
    return dict(counts)


def types_from_inspector(text: str) -> dict[str, int]:
    """Convolutions of a loaded engine by type, from its inspector's JSON; empty where it names none.

    Args:
        text: `EngineInspector.get_engine_information(LayerInformationFormat.JSON)` of an engine built with detailed
            profiling verbosity.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers:
        if not isinstance(layer, dict) or "conv" not in str(layer.get("LayerType", "")).lower():
            continue
        for output in layer.get("Outputs", [])[:1]:
            words = re.findall(r"[a-z0-9]+", str(output.get("Format/Datatype", "")).lower())
            kind = next((_NAMES[word] for word in words if word in _NAMES), None)
            if kind:
                counts[kind] += 1
    return dict(counts)


def check_precision(precision: str, built: dict[str, int], evidence: str) -> None:
    """Compare what was requested with what was built.

    Args:
        precision: `fp32` or `fp16`.
        built: convolutions by type.
        evidence: where that was read, for the message.

    Raises:
        ExportError: fp16 was requested and convolutions are in float32, or the other way round.
    """
    wanted, other = ("float16", "float32") if precision == "fp16" else ("float32", "float16")
    if built.get(other, 0) or not built.get(wanted, 0):
        counts = ", ".join(f"{number} in {name}" for name, number in sorted(built.items())) or "none found"
        raise ExportError(
            f"{precision} was requested, but the engine's convolutions are {counts} (read from the {evidence}): "
            "nothing was written; build with "
            f"--precision {'fp32' if precision == 'fp16' else 'fp16'}, or report this network"
        )
