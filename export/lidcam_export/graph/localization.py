"""The graph of the artifact: from a source and a manifest to an ONNX model with its PaS node (docs/artifact.md)."""

from __future__ import annotations

import warnings
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim

from lidcam_export.graph.operator import OPSET, attach, pas_node
from lidcam_export.graph.padding import replace_same_convolutions
from lidcam_export.graph.simplify import simplify
from lidcam_export.heads import HEADS
from lidcam_export.sources.source import Source
from lidcam_rt.artifact import Manifest, NodeCounts

__all__ = ["LocalizationGraph", "build_model", "example_inputs"]

_NAMES = ["logits", "class_ids", "scores", "cam", "pixels"]


class LocalizationGraph(nn.Module):
    """Pictures to logits, chosen classes, their scores and activation maps, and the normalised pixels.

    Args:
        source: the classifier.
        manifest: of the artifact.

    Attributes:
        head: how logits and maps are formed.
        manifest: of the artifact.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, source: Source, manifest: Manifest) -> None:
        super().__init__()
        replace_same_convolutions(source.module)
        self.network = source.module
        assert manifest.cam is not None
        self.head = HEADS[manifest.cam.head](source.structure, manifest)
        self.manifest = manifest
        self.register_buffer("mean", torch.tensor(manifest.input.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(manifest.input.std).view(1, 3, 1, 1))

    def normalise(self, image: Tensor) -> Tensor:
        """Image uint8 [N, H, W, 3] to float [N, 3, H, W]; a float image has that form already."""
        if self.manifest.input.dtype == "float32":
            return image
        # Cast before the transpose: TensorRT allows a uint8 input to feed nothing but a cast.
        return (image.float().permute(0, 3, 1, 2) - self.mean) / self.std

    def forward(self, image: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Image as in the manifest; labels int64 [N, K], -1 for the predicted class."""
        pixels = self.normalise(image)
        features, logits = self.head.classify(pixels)
        ranked = torch.topk(logits, self.manifest.top_k, dim=1).indices
        class_ids = ranked if labels is None else torch.where(labels < 0, ranked, labels)
        probability = logits.sigmoid() if self.manifest.task == "multilabel" else logits.softmax(dim=1)
        scores = probability.gather(1, class_ids)
        return logits, class_ids, scores, self.head.maps(features, class_ids), pixels


def example_inputs(manifest: Manifest, batch: int = 2) -> tuple[Tensor, ...]:
    """Inputs of the right shapes and dtypes."""
    spec = manifest.input
    generator = torch.Generator().manual_seed(0)
    if spec.dtype == "uint8":
        shape = (batch, spec.height, spec.width, 3)
        image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    else:
        image = torch.randn(batch, 3, spec.height, spec.width, generator=generator)
    if not manifest.labels_input:
        return (image,)
    return image, torch.full((batch, manifest.top_k), -1, dtype=torch.int64)


def build_model(graph: LocalizationGraph, *, dynamic_size: bool) -> tuple[onnx.ModelProto, Manifest]:
    """Trace the network, add the PaS node with its function body, and name the dimensions.

    Args:
        graph: in eval mode.
        dynamic_size: whether height and width are free, as the batch is.

    Returns:
        The model, and the manifest that it carries, with the numbers of nodes.
    """
    manifest = graph.manifest
    h, w = (1, 2) if manifest.input.dtype == "uint8" else (2, 3)
    dims: dict[int, Any] = {0: Dim("batch", min=1)}
    if dynamic_size:
        dims |= {h: Dim.DYNAMIC, w: Dim.DYNAMIC}
    shapes: dict[str, Any] = {"image": dims}
    names = ["image"]
    if manifest.labels_input:
        shapes["labels"] = {0: Dim("batch", min=1)}
        names.append("labels")
    with torch.no_grad(), warnings.catch_warnings():
        # image and labels share the batch: the exporter warns that it uses one name for both
        warnings.filterwarnings("ignore", message=".*shares the same shape constraints.*")
        program = torch.onnx.export(
            graph,
            example_inputs(manifest),
            None,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=names,
            output_names=_NAMES,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            optimize=False,
        )
        assert program is not None
        traced = program.model.graph.num_nodes()
        program.optimize()
    model = program.model_proto
    for value, name in zip(model.graph.input, names, strict=True):  # a float input is the output pixels, with its name
        for node in model.graph.node:
            node.input[:] = [name if entry == value.name else entry for entry in node.input]
        value.name = name
    simplify(model)
    counts = NodeCounts(traced=traced + 1, written=len(model.graph.node) + 1)
    manifest = manifest.model_copy(update={"nodes": counts})
    return _with_pas(model, manifest, dynamic_size), manifest


def _with_pas(model: onnx.ModelProto, manifest: Manifest, dynamic_size: bool) -> onnx.ModelProto:
    height: int | str = "height" if dynamic_size else manifest.input.height
    width: int | str = "width" if dynamic_size else manifest.input.width
    graph, k = model.graph, manifest.top_k
    graph.node.append(pas_node(("cam", "pixels"), ("map8", "mask", "threshold"), manifest.pas))
    attach(model, manifest.pas)
    for value in graph.input:
        shape: list[int | str] = ["batch", k]
        if value.name == "image":
            nhwc = manifest.input.dtype == "uint8"
            shape = ["batch", height, width, 3] if nhwc else ["batch", 3, height, width]
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    if manifest.input.dtype == "float32":
        graph.node[-1].input[1] = "image"
    cam_shape: list[Any] = ["batch", k, "cam_height", "cam_width"]
    outputs = [
        ("logits", TensorProto.FLOAT, ["batch", len(manifest.class_names)]),
        ("class_ids", TensorProto.INT64, ["batch", k]),
        ("scores", TensorProto.FLOAT, ["batch", k]),
        ("cam", TensorProto.FLOAT, cam_shape),
        ("map8", TensorProto.UINT8, ["batch", k, height, width]),
        ("mask", TensorProto.UINT8, ["batch", k, height, width]),
        ("threshold", TensorProto.FLOAT, ["batch", k]),
    ]
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(*entry) for entry in outputs)
    for node in graph.node:  # torch.onnx's stack traces, with the paths of this machine
        del node.metadata_props[:]
    model.producer_name = "lidcam_export"
    model.producer_version = manifest.package_version
    del model.metadata_props[:]
    helper.set_model_props(model, manifest.to_metadata())
    onnx.checker.check_model(model)
    return model
