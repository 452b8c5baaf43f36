"""PaS as an ahead-of-time Python plugin of TensorRT: its compiled kernel is baked into the engine.

The engine then needs no plugin library, no Python and none of this package to run. TensorRT launches one kernel with
int32 scalars between the pointers of inputs and outputs (`lidcam_pas_aot`, kernels/pas/pas_aot.cu), so percentile and
theta travel as integers, exactly as the operator reads them.

Plugin outputs may not be uint8 or bool. Map and mask leave the plugin as float32 and are cast to uint8 by the network,
so that the engine has the artifact's own outputs; the artifact's node, and with it every other engine, keeps its bytes.
The price is six bytes per pixel more, written once and read once: for 384x384 maps 0.9 MB each way per picture.

Written against the documented interface. The Python code of tensorrt.plugin accepts it on stand-ins for TensorRT's
libraries; no engine was built with it yet.
"""
# Annotations are read by tensorrt.plugin, so they must be objects: no `from __future__ import annotations` here.

import hashlib
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Tuple, Union  # noqa: UP035

from lidcam_rt.errors import ExportError, InputError
from lidcam_rt.pas import PasOptions

__all__ = ["KERNEL", "PLUGIN", "PasPlugin", "integer_attributes"]

PLUGIN = "lidcam::PaS"
KERNEL = "lidcam_pas_aot"
_THREADS = 512
_SHARED = 49152  # bytes that every GPU grants without an opt-in

#: (major compute capability) -> (PTX, blocks per map)
KernelSource = Callable[[int], tuple[bytes, int]]


def integer_attributes(attributes: dict[str, Any]) -> dict[str, int]:
    """Attributes of the PaS node as the kernel's integers (kernels/pas/pas_args.h).

    Args:
        attributes: of the node; texts may be bytes, as ONNX has them.

    Raises:
        ExportError: one is missing or not one of PaS's.
    """
    texts: dict[str, Any] = {name: v.decode() if isinstance(v, bytes) else v for name, v in attributes.items()}
    names = [field.name for field in fields(PasOptions)]
    missing = set(names) - set(texts)
    if missing:
        raise ExportError(f"the PaS node has no {', '.join(sorted(missing))}: export the artifact again")
    try:
        values = PasOptions(**{name: texts[name] for name in names}).kernel_integers()
    except InputError as error:
        raise ExportError(f"the PaS node: {error}. Export the artifact again") from None
    return dict(zip(("percentile_milli", "theta_micro", "flags"), values, strict=True))


def _built_kernel(major: int) -> tuple[bytes, int]:
    from lidcam_gpu import kernels

    return kernels.pas_ahead_of_time(major)


class PasPlugin:
    """The plugin, registered with TensorRT when this is made.

    Args:
        trt: the module `tensorrt`.
        trtp: the module `tensorrt.plugin`.
        kernel: returns the PTX for a compute capability; None: this build's kernel.

    Raises:
        BackendError: this build has no CUDA kernels.
    """

    def __init__(self, trt: Any, trtp: Any, kernel: KernelSource | None = None) -> None:
        self._trt, self._trtp = trt, trtp
        self._kernel = kernel or _built_kernel
        self._kernel(7)  # without kernels, fail before anything is registered
        namespace, name = PLUGIN.split("::")
        if not hasattr(getattr(trtp.op, namespace, None), name):
            _register(trt, trtp, self._kernel)

    def kernel_sha256(self, capability: tuple[str, ...]) -> str:
        """SHA-256 of the kernels that an engine for these GPUs may hold."""
        majors = sorted({7, *(int(entry.split(".")[0]) for entry in capability)})
        return hashlib.sha256(b"".join(self._kernel(major)[0] for major in majors)).hexdigest()

    def add_to(
        self, network: Any, inputs: tuple[str, str], attributes: dict[str, Any], capability: tuple[str, ...]
    ) -> None:
        """Add the plugin to a network whose outputs include its two inputs.

        Args:
            network: the parsed network, without its PaS node.
            inputs: names of the activation map and of the image-sized tensor.
            attributes: of the PaS node.
            capability: of the GPU that builds and runs it.

        Raises:
            ExportError: TensorRT refuses it.
        """
        trt = self._trt
        ends = [network.get_output(i) for i in range(network.num_outputs)]
        ends += [network.get_input(i) for i in range(network.num_inputs)]
        tensors = {tensor.name: tensor for tensor in ends}
        cam, like = (tensors[name] for name in inputs)
        major = max(int(entry.split(".")[0]) for entry in capability)
        namespace, name = PLUGIN.split("::")
        definition = getattr(getattr(self._trtp.op, namespace), name)
        layer = network.add_plugin(definition(cam, like, **integer_attributes(attributes), major=major))
        if layer is None:
            raise ExportError("TensorRT refused the plugin lidcam::PaS: build with --pas body")
        if inputs[1] != "image":
            network.unmark_output(like)
        for index, (output, kind) in enumerate(
            (("map8", trt.uint8), ("mask", trt.uint8), ("threshold", trt.float32))
        ):
            tensor = layer.get_output(index)
            if kind != trt.float32:
                tensor = network.add_cast(tensor, kind).get_output(0)
            tensor.name = output
            network.mark_output(tensor)


def _register(trt: Any, trtp: Any, kernel: KernelSource) -> None:
    """Register description, choices and implementation with tensorrt.plugin."""

    def describe(
        cam: trtp.TensorDesc,
        like: trtp.TensorDesc,
        percentile_milli: int,
        theta_micro: int,
        flags: int,
        major: int,
    ) -> Tuple[trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc]:  # noqa: UP006
        n, k = cam.shape_expr[0], cam.shape_expr[1]
        maps = (n, k, like.shape_expr[2], like.shape_expr[3])
        return (
            trtp.from_shape_expr(maps, trt.float32),
            trtp.from_shape_expr(maps, trt.float32),
            trtp.from_shape_expr((n, k), trt.float32),
        )

    def choices(
        cam: trtp.TensorDesc,
        like: trtp.TensorDesc,
        major: int,
        outputs: Tuple[trtp.TensorDesc],  # noqa: UP006
    ) -> list[trtp.AutoTuneCombination]:
        # Tactic 1: a block per map. Tactic 2, where the GPU has clusters: a cluster per map. TensorRT times both.
        tactics = [1, 2] if major >= 9 else [1]
        return [trtp.AutoTuneCombination("FP32, FP32, FP32, FP32, FP32", "LINEAR", tactics)]

    def implement(
        cam: trtp.TensorDesc,
        like: trtp.TensorDesc,
        percentile_milli: int,
        theta_micro: int,
        flags: int,
        major: int,
        outputs: Tuple[trtp.TensorDesc],  # noqa: UP006
        tactic: int,
    ) -> Tuple[Union[str, bytes], Union[str, bytes], trtp.KernelLaunchParams, trtp.SymExprs]:  # noqa: UP006, UP007
        ptx, blocks = kernel(major if tactic == 2 else 7)
        launch = trtp.KernelLaunchParams()
        launch.grid_x = cam.shape_expr[0] * cam.shape_expr[1] * blocks
        launch.block_x = _THREADS
        launch.shared_mem = _SHARED
        scalars = (
            cam.shape_expr[2], cam.shape_expr[3], like.shape_expr[2], like.shape_expr[3],
            percentile_milli, theta_micro, flags, _SHARED,
        )  # fmt: skip
        extra = trtp.SymIntExprs(len(scalars))
        for i, value in enumerate(scalars):
            extra[i] = trtp.SymInt32(value)
        return KERNEL, ptx.rstrip(b"\0"), launch, extra

    trtp.register(PLUGIN)(describe)
    trtp.autotune(PLUGIN)(choices)
    trtp.aot_impl(PLUGIN)(implement)
