"""Which TensorRT a module is, and how to ask it for networks, precision and plugins.

Everything takes the module as an argument, so that stand-ins test it where TensorRT is not installed. Every supported
version is strongly typed, so that fp16 is a graph with casts.

| flavour | network | plugins |
|---|---|---|
| TensorRT for RTX 1.x | strongly typed | none |
| TensorRT 11 and newer | strongly typed, always | ahead of time |
| TensorRT 10 | strongly typed, by a flag | ahead of time, where tensorrt.plugin has it |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from lidcam_rt.errors import ExportError

__all__ = ["Flavour", "flavour_of", "set_capabilities"]

Name = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class Flavour:
    """What a TensorRT module can do.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`.
        version: its version.
        typing: strongly typed `always`, or by a `flag` at creation.
        ahead_of_time: whether a Python plugin can bake its kernel into an engine.
        offline: whether an engine can be built without a GPU.
    """

    name: Name
    version: str
    typing: Literal["always", "flag"]
    ahead_of_time: bool
    offline: bool

    def network_flags(self, trt: Any) -> int:
        """Flags for `Builder.create_network`."""
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if self.typing == "flag" else 0

    def disable_tf32(self, trt: Any, config: Any) -> None:
        """Clear the builder flag TF32, which rounds the inputs of a convolution to 10 bits and would not be fp32."""
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)


def flavour_of(trt: Any) -> Flavour:
    """The flavour of a module.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.

    Raises:
        ExportError: its version is not recognised or not supported.
    """
    version = str(getattr(trt, "__version__", ""))
    match = re.match(r"(\d+)\.", version)
    if match is None:
        raise ExportError(f"{trt.__name__} reports version {version!r}: install a released one")
    major = int(match[1])
    if trt.__name__.startswith("tensorrt_rtx"):
        by_flag = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        return Flavour("tensorrt-rtx", version, "flag" if by_flag else "always", ahead_of_time=False, offline=True)
    if major < 10:
        raise ExportError(f"tensorrt {version} is too old: pip install 'lidcam-rt[tensorrt]' brings 10 or newer")
    ahead = hasattr(trt, "QuickPluginCreationRequest")
    return Flavour("tensorrt", version, "always" if major >= 11 else "flag", ahead_of_time=ahead, offline=False)


def set_capabilities(trt: Any, flavour: Flavour, config: Any, capabilities: tuple[str, ...]) -> None:
    """Say for which GPUs an engine is (TensorRT for RTX).

    Args:
        trt: the module.
        flavour: what it is.
        config: the builder's configuration.
        capabilities: compute capabilities, such as ("8.9", "12.0").

    Raises:
        ExportError: this version cannot build for them.
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
