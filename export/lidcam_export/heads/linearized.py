"""The class activation map of a head that is not linear: that of the head linearized at the picture.

Near the features F of a picture, logit_k(F') = logit_k(F) + <G_k, F' - F>, with the gradient G_k of the logit. The mean
of the map M_k = h w sum_c G_k[c] F_c and the offset logit_k - <G_k, F> add up to the logit. For pooling and one linear
layer this is the class activation map, with w = h w G; where layers after the pooling are not linear, the weights
depend on the picture. Grad-CAM (Selvaraju et al., ICCV 2017) takes the mean of G over the pixels; after average pooling
G is the same at all pixels, and the two are equal but for Grad-CAM's ReLU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from lidcam_export.heads.head import Head
from lidcam_export.structure import Structure, Tail
from lidcam_rt.artifact import Manifest

__all__ = ["LinearizedHead"]


class LinearizedHead(Head):
    """The network as it is, and the gradient of chosen logits with respect to its features as a graph."""

    def __init__(self, structure: Structure | Tail, manifest: Manifest) -> None:
        super().__init__(structure, manifest)
        assert isinstance(structure, Tail)
        self._tail = structure
        assert manifest.cam is not None
        self._nwc, self._top_k = manifest.cam.nwc, manifest.top_k
        size = (manifest.input.height, manifest.input.width)
        self.gradient = _trace_gradient(structure, size, manifest.top_k)

    def classify(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The network's own logits."""
        features, logits = self._tail.run(pixels)
        return features.float(), logits.float()

    def maps(self, features: Tensor, class_ids: Tensor) -> Tensor:
        """The gradient [N, k, C, h, w], clamped for NWC, times the features."""
        return self._maps(features, class_ids, nwc=self._nwc)

    def _maps(self, features: Tensor, class_ids: Tensor, *, nwc: bool) -> Tensor:
        features = features.contiguous()  # as in the trace
        gradient: Tensor = self.gradient(features, class_ids)
        if nwc:
            gradient = gradient.clamp(min=0)
        return (gradient * features.unsqueeze(1)).sum(2) * (features.shape[2] * features.shape[3])

    def identity_error(self, pixels: Tensor) -> float:
        """The offset by forward differentiation, which shares nothing with the traced gradient."""
        with torch.no_grad():
            features, logits = self.classify(pixels)
            class_ids = logits.topk(self._top_k, dim=1).indices
            sums = self._maps(features, class_ids, nwc=False).mean((2, 3))
        jvp: Any = torch.func.jvp
        _, along = jvp(lambda f: self._tail.classify(f, pixels), (features,), (features,))
        offset = (logits - along).gather(1, class_ids)
        error = (sums + offset - logits.gather(1, class_ids)).abs().max()
        return float(error / logits.abs().max().clamp(min=1e-12))


def _trace_gradient(tail: Tail, size: tuple[int, int], top_k: int) -> fx.GraphModule:
    """(features [N, C, h, w], class_ids int64 [N, k]) to the gradients [N, k, C, h, w] of these logits, for any N."""
    from torch._decomp import core_aten_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    x = torch.zeros(2, 3, *size)
    with torch.no_grad():
        features = tail.features(x).contiguous()

    def gradients(features: Tensor, class_ids: Tensor, x: Tensor) -> Tensor:
        vjp: Any = torch.func.vjp
        logits, pull = vjp(lambda f: tail.classify(f, x), features)
        classes = torch.arange(tail.classes)
        chosen = [(class_ids[:, j, None] == classes).to(logits.dtype) for j in range(top_k)]
        return torch.stack([pull(one)[0] for one in chosen], dim=1)

    table: Any = core_aten_decompositions()
    table[torch.ops.aten.convolution_backward.default] = _convolution_backward
    table[torch.ops.aten._adaptive_avg_pool2d_backward.default] = _adaptive_pool_backward
    trace: Any = make_fx(
        gradients,
        decomposition_table=table,
        tracing_mode="symbolic",
        _allow_non_fake_inputs=True,
    )
    graph: fx.GraphModule = trace(features, torch.zeros(2, top_k, dtype=torch.int64), x)
    return _without_pictures(graph)


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    mask: list[bool],
) -> tuple[Tensor, None, None]:
    """The gradient of a convolution with respect to its input, as a transposed convolution, which ONNX has."""
    if transposed or mask[1] or mask[2]:
        raise NotImplementedError("it has a transposed convolution, whose gradient is not written to ONNX")
    reached = [
        (grad.shape[i + 2] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[i + 2] - 1) + 1
        for i in range(len(stride))
    ]
    missing = [x.shape[i + 2] - reached[i] for i in range(len(stride))]
    convolution: Any = torch.ops.aten.convolution.default
    return convolution(grad, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _adaptive_pool_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of adaptive average pooling: rows and columns are averaged by two matrices, transposed here."""

    def averaging(cells: int, pixels: int) -> Tensor:
        start = torch.arange(cells) * pixels // cells
        end = ((torch.arange(cells) + 1) * pixels + cells - 1) // cells
        place = torch.arange(pixels)
        inside = (place >= start[:, None]) & (place < end[:, None])
        return inside.to(grad.dtype) / (end - start)[:, None]

    rows, columns = (averaging(grad.shape[i], x.shape[i]) for i in (-2, -1))
    return rows.t() @ grad @ columns


def _without_pictures(module: fx.GraphModule) -> fx.GraphModule:
    """The graph without its third input: the features stand in for all that the network makes of the pictures."""
    graph = module.graph
    for node in list(graph.nodes):
        # adaptive pooling to one pixel is a mean whose memory layout is then stated: the values are the same
        if node.target is torch.ops.aten.as_strided_.default:
            if node.meta["val"].shape != node.args[0].meta["val"].shape:
                raise ValueError("a tensor is reshaped in place")
            node.replace_all_uses_with(node.args[0])
    needed: set[fx.Node] = set()
    pending = [node for node in graph.nodes if node.op == "output"]
    while pending:
        if (node := pending.pop()) not in needed:
            needed.add(node)
            pending += node.all_input_nodes
    pictures = [node for node in graph.nodes if node.op == "placeholder"][2]
    if pictures in needed:
        raise ValueError("the logits depend on the pictures other than through the last feature map")
    for node in reversed(list(graph.nodes)):  # also those that work in place, which eliminate_dead_code would keep
        if node not in needed and (node.op != "placeholder" or node is pictures):
            graph.erase_node(node)
    module.recompile()
    return module
