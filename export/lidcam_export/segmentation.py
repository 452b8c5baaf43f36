"""Export of a segmentation network: uint8 picture in; label map, logits at the decoder's stride and scores out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from lidcam_training.segmentation.checkpoint import SegmentationCheckpoint, load_segmentation
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from lidcam_export.agreement import export_record, relative_difference, sample_pictures
from lidcam_export.graph.operator import OPSET
from lidcam_export.graph.padding import replace_same_convolutions
from lidcam_rt.artifact import InputSpec, Manifest, SegmentationSpec, SourceSpec
from lidcam_rt.backends.onnxruntime import session_source
from lidcam_rt.errors import ExportError
from lidcam_rt.files import replacing
from lidcam_rt.image import network_input
from lidcam_rt.version import __version__

__all__ = ["SegmentationAgreement", "export_segmentation"]

_MULTIPLE = 32
_NAMES = ["logits", "label_map", "scores"]


@dataclass(frozen=True)
class SegmentationAgreement:
    """How far the file in ONNX Runtime is from PyTorch.

    Attributes:
        pictures: how many, and whether they are photos.
        logits: largest absolute difference over the largest absolute logit.
        flipped: share of the pixels whose label differs.
    """

    pictures: str
    logits: float
    flipped: float

    @property
    def holds(self) -> bool:
        """Whether the file may be written."""
        return self.logits <= 1e-3 and self.flipped <= 1e-4


class _Graph(nn.Module):
    """Image uint8 [N, H, W, 3] to logits [N, L, h, w], label map uint8 [N, H, W] and scores [N, L - 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, checkpoint: SegmentationCheckpoint) -> None:
        super().__init__()
        self.network = checkpoint.network
        replace_same_convolutions(self.network)
        self.stride = checkpoint.network.stride
        self.register_buffer("mean", torch.tensor(checkpoint.meta.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(checkpoint.meta.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.network((image.float().permute(0, 3, 1, 2) - self.mean) / self.std)
        large = functional.interpolate(logits, scale_factor=float(self.stride), mode="bilinear", align_corners=False)
        label_map = large.argmax(1).to(torch.uint8)
        scores = logits.softmax(1).amax((2, 3))[:, 1:]
        return logits, label_map, scores


def export_segmentation(
    path: Path,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    dynamic_size: bool = True,
    weights_license: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Manifest, SegmentationAgreement]:
    """Export a checkpoint of a segmentation network as an artifact.

    Args:
        path: the checkpoint folder.
        output: the .onnx file; `output.export.json` beside it records the comparison.
        size: (height, width) of the input, multiples of 32 pixels; None: as it was trained.
        dynamic_size: leave height and width free (multiples of 32).
        weights_license: recorded in the manifest.
        note: called with a message for each step.

    Raises:
        ExportError: the size is not possible, or the file does not agree with PyTorch.
        DataError: the checkpoint cannot be read.
        OutputError: the file cannot be written.
    """
    checkpoint = load_segmentation(path)
    meta = checkpoint.meta
    height, width = size or meta.size
    if height % _MULTIPLE or width % _MULTIPLE:
        raise ExportError(f"--size {height}x{width}: a segmentation network needs sides in multiples of {_MULTIPLE}")
    graph = _Graph(checkpoint).eval()
    if height == width == _MULTIPLE and any(isinstance(module, nn.GroupNorm) for module in graph.modules()):
        raise ExportError(
            f"--size {height}x{width}: the network's coarsest map would have one cell, too few for its group "
            f"normalization: one side must be {2 * _MULTIPLE} or more"
        )

    def manifest(free: bool) -> Manifest:
        return Manifest(
            schema_version=2,
            task="segmentation",
            input=InputSpec(
                height=height, width=width, dynamic_size=free, mean=meta.mean, std=meta.std,
                interpolation=meta.interpolation,
            ),
            class_names=meta.class_names,
            labels_input=False,
            segmentation=SegmentationSpec(stride=graph.stride, multiple=_MULTIPLE),
            source=SourceSpec(
                name=path.name, weights="model.safetensors", weights_sha256=checkpoint.weights_sha256
            ),
            weights_license=weights_license,
            package_version=__version__,
            opset=OPSET,
        )  # fmt: skip

    for free in (True, False) if dynamic_size else (False,):
        note(f"tracing, {'free' if free else 'fixed'} height and width")
        try:
            return _write(graph, manifest(free), output, note)
        except ExportError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            if not free:
                raise ExportError(f"{path}: torch.onnx cannot trace it ({reason}); nothing was written") from error
            note(f"height and width stay fixed: with free ones, torch.onnx cannot trace it ({reason})")
    raise AssertionError


def _write(
    graph: _Graph, manifest: Manifest, output: Path, note: Callable[[str], None]
) -> tuple[Manifest, SegmentationAgreement]:
    model = _traced(graph, manifest)
    beside = output.with_name(output.name + ".export.json")
    with replacing(output) as temporary, replacing(beside) as figures:
        onnx.save(model, str(temporary))
        note("comparing the file with PyTorch")
        agreement = _compare(temporary, graph, manifest)
        if not agreement.holds:
            raise ExportError(f"the exported graph does not agree with PyTorch ({agreement}); nothing was written")
        figures.write_text(export_record(temporary, agreement))
    return manifest, agreement


def _traced(graph: _Graph, manifest: Manifest) -> onnx.ModelProto:
    spec, labels = manifest.input, 1 + len(manifest.class_names)
    shape = (2, spec.height, spec.width, 3)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dims: dict[int, Any] = {0: Dim("batch", min=1)}
    if spec.dynamic_size:
        dims |= {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph, (image,), None, dynamo=True, dynamic_shapes=(dims,), input_names=["image"], output_names=_NAMES,
            opset_version=OPSET, external_data=False, verbose=False, optimize=True,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    height, width = ("height", "width") if spec.dynamic_size else (spec.height, spec.width)
    values = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels, "map_height", "map_width"]),
        helper.make_tensor_value_info("label_map", TensorProto.UINT8, ["batch", height, width]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", labels - 1]),
    ]
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])
    )
    del model.graph.output[:]
    model.graph.output.extend(values)
    for node in model.graph.node:  # torch.onnx's stack traces, with the paths of this machine
        del node.metadata_props[:]
    model.producer_name, model.producer_version = "lidcam_export", manifest.package_version
    del model.metadata_props[:]
    helper.set_model_props(model, manifest.to_metadata())
    onnx.checker.check_model(model)
    return model


def _compare(path: Path, graph: _Graph, manifest: Manifest) -> SegmentationAgreement:
    """The worst of: all pictures at the declared size; where that is free, one at another size; one alone."""
    pictures, kind = sample_pictures()
    session = ort.InferenceSession(session_source(path), providers=["CPUExecutionProvider"])
    specs = [(manifest.input, pictures), (manifest.input, pictures[:1])]
    if manifest.input.dynamic_size:
        side = {"height": manifest.input.height + _MULTIPLE, "width": manifest.input.width + 2 * _MULTIPLE}
        specs.append((manifest.input.model_copy(update=side), pictures[:2]))
    worst, flipped = 0.0, 0.0
    for spec, chosen in specs:
        images = np.stack([network_input(picture, spec) for picture in chosen])
        logits, labels, _ = session.run(_NAMES, {"image": images})
        with torch.no_grad():
            expected = graph(torch.from_numpy(images))
        worst = max(worst, relative_difference(logits, expected[0].numpy()))
        flipped = max(flipped, float((labels != expected[1].numpy()).mean()))
    return SegmentationAgreement(kind, worst, flipped)
