"""Which TensorRT this is, and how a network, its precision and its plugins are asked of it.

Everything takes the module as an argument, so that stand-ins test it where TensorRT's libraries are not.

| flavour | network | fp16 | plugins |
|---|---|---|---|
| TensorRT for RTX 1.x | strongly typed | a graph with casts | none |
| TensorRT 11 and newer | strongly typed, always | a graph with casts | ahead of time |
| TensorRT 10 | strongly typed, by a flag | a graph with casts | ahead of time, where tensorrt.plugin has it |
| TensorRT 8 and 9 | weakly typed | builder flag, the head pinned to float32 | none |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lidcam_rt.errors import ExportError

__all__ = ["Flavour", "flavour_of", "pin_to_float32", "set_capabilities"]


@dataclass(frozen=True)
class Flavour:
    """What a TensorRT module can do.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`.
        version: its version.
        major: first number of that.
        typing: `always` strongly typed, by a `flag` at creation, or `weak` (precision by builder flags).
        ahead_of_time: whether a Python plugin can bake its kernel into an engine.
        offline: whether an engine can be built without a GPU.
    """

    name: str
    version: str
    major: int
    typing: str
    ahead_of_time: bool
    offline: bool

    @property
    def cast_graph(self) -> bool:
        """Whether fp16 is asked for by a graph with casts, not by a builder flag."""
        return self.typing != "weak"

    def network_flags(self, trt: Any) -> int:
        """Flags for `Builder.create_network`."""
        flags = trt.NetworkDefinitionCreationFlag
        if self.typing == "flag":
            return int(1 << int(flags.STRONGLY_TYPED))
        if self.typing == "weak" and hasattr(flags, "EXPLICIT_BATCH"):
            return int(1 << int(flags.EXPLICIT_BATCH))
        return 0

    def configure_precision(self, trt: Any, config: Any, precision: str) -> None:
        """Set builder flags where the graph alone does not decide.

        TF32 is switched off: it rounds the inputs of a convolution to 10 bits and would not be fp32.
        """
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        if self.cast_graph or precision == "fp32":
            return
        for name in ("FP16", "OBEY_PRECISION_CONSTRAINTS"):
            if not hasattr(trt.BuilderFlag, name):
                raise ExportError(
                    f"{self.name} {self.version} has no builder flag {name}: install TensorRT 10 or newer"
                )
            config.set_flag(getattr(trt.BuilderFlag, name))


def flavour_of(trt: Any) -> Flavour:
    """Tell what a module is.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.

    Raises:
        ExportError: its version is none that is known.
    """
    version = str(getattr(trt, "__version__", ""))
    match = re.match(r"(\d+)\.", version)
    if match is None:
        raise ExportError(f"{trt.__name__} says version {version!r}: install a released one")
    major = int(match[1])
    if trt.__name__.startswith("tensorrt_rtx"):
        typing = "flag" if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") else "always"
        return Flavour("tensorrt-rtx", version, major, typing, ahead_of_time=False, offline=True)
    if major < 8:
        raise ExportError(f"tensorrt {version} is too old for dynamic shapes as used here: install 10 or newer")
    ahead = hasattr(trt, "QuickPluginCreationRequest")
    typing = "always" if major >= 11 else "flag" if major == 10 else "weak"
    return Flavour("tensorrt", version, major, typing, ahead_of_time=ahead, offline=False)


def set_capabilities(trt: Any, flavour: Flavour, config: Any, capabilities: tuple[str, ...]) -> None:
    """Say for which GPUs an engine is (TensorRT for RTX).

    Args:
        trt: the module.
        flavour: what it is.
        config: the builder's configuration.
        capabilities: compute capabilities, such as ("8.9", "12.0").

    Raises:
        ExportError: this version builds for other ones only.
    """
    if not flavour.offline:
        return
    known = {}
    for name in trt.ComputeCapability.__members__:
        match = re.fullmatch(r"SM(\d+)(\d)", name)
        if match:
            known[f"{match[1]}.{match[2]}"] = getattr(trt.ComputeCapability, name)
    unknown = [entry for entry in capabilities if entry not in known]
    if unknown or not capabilities:
        raise ExportError(
            f"{flavour.name} {flavour.version} builds for compute capability {', '.join(sorted(known, key=float))}, "
            f"not for {', '.join(unknown) or 'none'}: give one with --capability"
            + (", or use TensorRT (pip install 'lidcam-rt[tensorrt]') on that GPU" if unknown else "")
        )
    config.num_compute_capabilities = len(capabilities)
    for i, entry in enumerate(capabilities):
        config.set_compute_capability(known[entry], i)


def pin_to_float32(trt: Any, network: Any, inside: set[str]) -> int:
    """In a weakly typed network, hold all layers outside the given ones in float32 (CAM head and PaS).

    Args:
        trt: the module.
        network: the parsed network.
        inside: names of the ONNX nodes that may run in float16.

    Returns:
        How many layers were pinned.
    """
    pinned = 0
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
        floats = [k for k, tensor in enumerate(outputs) if tensor is not None and tensor.dtype == trt.float32]
        if not floats or any(layer.name == name or layer.name.startswith(f"{name}_") for name in inside):
            continue
        layer.precision = trt.float32
        for k in floats:
            layer.set_output_type(k, trt.float32)
        pinned += 1
    return pinned
