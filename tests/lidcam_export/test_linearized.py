"""Heads that are not linear: the map of the linearized head, against gradients of PyTorch and against Grad-CAM."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.options import ExportOptions
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from lidcam_export.structure import Structure, Tail
from torch import nn

from lidcam_rt.artifact import read_manifest
from lidcam_rt.errors import ExportError

pytestmark = pytest.mark.slow  # not in make quick

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, *tail):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16))
        self.tail = nn.Sequential(*tail)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
    def forward(self, x):
        return self.tail(self.body(x))

def pool(): return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
def norm(): return Net(*pool(), nn.LayerNorm(16), nn.Linear(16, 5))
def hidden(): return Net(*pool(), nn.Linear(16, 32), nn.Hardswish(), nn.Dropout(), nn.Linear(32, 5))
def gelu(): return Net(*pool(), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 5))
def pointwise():
    hidden = [nn.Conv2d(16, 32, 1), nn.ReLU(inplace=True)]
    return Net(nn.AdaptiveAvgPool2d(1), *hidden, nn.Flatten(), nn.Linear(32, 5))
def full():
    hidden = [nn.Linear(256, 32), nn.ReLU()]
    return Net(nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), *hidden, nn.Linear(32, 5))
def maximum(): return Net(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 5))
def linear(): return Net(*pool(), nn.Linear(16, 5))
"""
NETS = ("norm", "hidden", "gelu", "pointwise", "full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import os
    import sys

    place, before = tmp_path_factory.mktemp("nets"), Path.cwd()
    (place / "tail_nets.py").write_text(CODE)
    os.chdir(place)
    yield place
    os.chdir(before)
    sys.modules.pop("tail_nets", None)


def reference(model, pixels, class_ids, *, nwc):
    """Maps by autograd of the network itself, a class at a time: h w sum_c G_c F_c, and the offset."""
    outputs = []

    def leaf(_module, _inputs, output):
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    handle = model.body.register_forward_hook(leaf)
    logits = model(pixels)
    handle.remove()
    features = outputs[0]
    maps, offsets = [], []
    for j in range(class_ids.shape[1]):
        chosen = logits.gather(1, class_ids[:, j : j + 1]).sum()
        (gradient,) = torch.autograd.grad(chosen, features, retain_graph=True)
        signed = gradient * features.detach()
        offsets.append(logits.detach().gather(1, class_ids[:, j : j + 1])[:, 0] - signed.sum((1, 2, 3)))
        kept = gradient.clamp(min=0) * features.detach() if nwc else signed
        maps.append(kept.sum(1) * features.shape[2] * features.shape[3])
    return logits.detach(), torch.stack(maps, 1), torch.stack(offsets, 1)


@pytest.mark.parametrize("nwc", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_the_map_is_the_gradient_times_the_features(folder, name, nwc):
    file = folder / f"{name}{nwc}.onnx"
    options = ExportOptions(head="linearized", size=(48, 48), top_k=2, nwc=nwc)
    manifest, agreement = export_artifact(f"python:tail_nets:{name}", file, options)
    assert manifest.cam.head == "linearized" == read_manifest(file).cam.head
    assert agreement.identity < 1e-5
    session = ort.InferenceSession(str(file))
    rng = np.random.default_rng(0)
    size = (64, 80) if manifest.input.dynamic_size else (48, 48)
    assert manifest.input.dynamic_size == (name != "full")
    model = load_source(f"python:tail_nets:{name}", Request(size=(48, 48)), head="linearized").module
    for n in (1, 3):
        image = rng.integers(0, 256, (n, *size, 3), dtype=np.uint8)
        labels = np.array([[-1, 4]] * n)
        logits, ids, cam = session.run(["logits", "class_ids", "cam"], {"image": image, "labels": labels})
        pixels = torch.from_numpy(image).float()
        mean, std = torch.tensor(manifest.input.mean), torch.tensor(manifest.input.std)
        pixels = ((pixels - mean) / std).permute(0, 3, 1, 2)
        expected, maps, offsets = reference(model, pixels, torch.from_numpy(ids), nwc=nwc)
        np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(cam, maps.numpy(), rtol=1e-3, atol=1e-4 * float(maps.abs().max()))
        if not nwc:  # the mean of the map and the offset are the logit
            chosen = np.take_along_axis(logits, ids, 1)
            np.testing.assert_allclose(cam.mean((2, 3)) + offsets.numpy(), chosen, rtol=1e-3, atol=1e-4)


def test_a_network_whose_map_is_exact_keeps_it(folder):
    """`--head linearized` allows more networks; it changes nothing where the head is linear."""
    source = load_source("python:tail_nets:linear", Request(size=(48, 48)), head="linearized")
    assert isinstance(source.structure, Structure) and source.head == "linear"
    with pytest.raises(ExportError, match="or take the map of the linearized head with --head linearized"):
        load_source("python:tail_nets:norm", Request(size=(48, 48)))


def test_the_linearized_map_of_a_linear_head_is_its_class_activation_map(folder):
    """The limit case: w = h w G."""
    from lidcam_export.exporter import manifest_of
    from lidcam_export.heads.linearized import LinearizedHead
    from lidcam_export.structure import find_tail

    source = load_source("python:tail_nets:linear", Request(size=(48, 48)))
    tail = find_tail(source.module, "linear", size=(48, 48))
    assert isinstance(tail, Tail) and tail.feature_layer == "body"
    head = LinearizedHead(tail, manifest_of(source, ExportOptions(size=(48, 48), nwc=True)))
    x = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        features, logits = head.classify(x)
        ids = logits.topk(1).indices
        cam = torch.einsum("nkc,nchw->nkhw", source.structure.weight.clamp(min=0)[ids], features)
        torch.testing.assert_close(head.maps(features, ids), cam, rtol=1e-4, atol=1e-5)


def test_the_check_of_the_identity_can_fail(folder, monkeypatch):
    from lidcam_export.heads.linearized import LinearizedHead

    whole = LinearizedHead._maps
    monkeypatch.setattr(LinearizedHead, "_maps", lambda *a, **k: 1.01 * whole(*a, **k))
    with pytest.raises(ExportError, match=r"does not agree with PyTorch.*= logit to \d\.\de-0[123]\)"):
        export_artifact("python:tail_nets:hidden", folder / "no.onnx", ExportOptions(head="linearized", size=(48, 48)))
    assert not (folder / "no.onnx").exists()


def test_options_that_do_not_go_with_a_linearized_head(folder):
    options = ExportOptions(head="linearized", size=(48, 48), pooling="tap")
    with pytest.raises(ExportError, match="pooling is part of a linearized head"):
        export_artifact("python:tail_nets:norm", folder / "no.onnx", options)


def test_a_head_without_a_gradient_in_onnx_is_refused_with_its_name(folder):
    with pytest.raises(ExportError, match="adaptive_max_pool2d_backward"):
        export_artifact("python:tail_nets:maximum", folder / "m.onnx", ExportOptions(head="linearized", size=(48, 48)))


def test_networks_without_a_feature_map_are_refused_all_the_same():
    from lidcam_export.structure import find_tail

    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 48 * 48, 5)).eval()
    with pytest.raises(ExportError, match="no layer gives a feature map"):
        find_tail(flat, "flat", size=(48, 48))
    with pytest.raises(ExportError, match="Let it return the values before its softmax"):
        find_tail(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)).eval(), "p")
