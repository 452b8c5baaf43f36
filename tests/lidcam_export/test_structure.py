"""Finding features and head by running the network; what has no exact map is refused in words that help."""

import sys

import pytest
import torch
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from lidcam_export.structure import find_structure
from torch import nn

from lidcam_rt.errors import ExportError, InputError

pytestmark = pytest.mark.slow  # not in make quick


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("timm:resnet50", 2048),
        ("timm:seresnet50", 2048),
        ("timm:legacy_seresnet50", 2048),
        ("timm:mobilenetv1_100", 1024),
        ("timm:mobilenetv2_100", 1280),
        ("timm:efficientnet_b0", 1280),
        ("timm:efficientnet_lite0", 1280),
        ("timm:densenet121", 1024),
        ("python:torchvision.models:mobilenet_v2", 1280),
        ("python:torchvision.models:densenet121", 1024),  # its last ReLU is no module
        ("cam:vgg16", 1024),
    ],
)
def test_the_map_of_every_family_adds_up_to_the_logits(text, channels):
    source = load_source(text, Request(random_weights=True, stride=16))
    x = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        features, logits = source.structure.features(x), source.module(x)
    assert features.shape == (2, channels, 6, 8)
    expected = features.mean((2, 3)) @ source.structure.weight.T + source.structure.bias
    torch.testing.assert_close(expected, logits, rtol=1e-3, atol=1e-4)


class Block(nn.Module):
    """Convolutions with a head that the tests choose."""

    def __init__(self, head, pool=lambda x: x.mean((2, 3))):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
        self.head, self.pool = head, pool

    def forward(self, x):
        x = self.pool(torch.relu(self.body(x)))
        return self.head(x).flatten(1)


def test_a_network_without_any_convention_is_found():
    found = find_structure(Block(nn.Linear(16, 5)).eval(), "mine", size=(64, 64))
    assert (found.feature_layer, found.head, tuple(found.weight.shape)) == ("body", "head", (5, 16))
    assert found.features(torch.rand(1, 3, 64, 64)).min() >= 0  # with the ReLU that is no module


def test_a_convolutional_head_before_the_pooling_is_found():
    class Convolutional(Block):
        def forward(self, x):
            return self.head(torch.relu(self.body(x))).mean((2, 3))

    found = find_structure(Convolutional(nn.Conv2d(16, 5, 1, bias=False)).eval(), "mine", size=(64, 64))
    assert found.head == "head" and not found.bias.any()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Block(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))), "another layer or another pooling"),
        (Block(nn.Linear(16, 5), lambda x: x.amax((2, 3))), "another pooling"),
        (
            Block(nn.Linear(16 * 4, 5), lambda x: nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)),
            "takes 64 channels",
        ),
        (Block(nn.Identity()), "no linear layer or 1x1 convolution has 16 outputs"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), r"gives \(2, 4, 62, 62\)"),
        (Block(nn.Linear(17, 5)), "does not run on a picture of 64x64"),
    ],
)
def test_what_has_no_exact_map_is_refused_with_what_was_found(model, message):
    with pytest.raises(ExportError, match=message) as caught:
        find_structure(model.eval(), "mine", size=(64, 64))
    assert "A class activation map needs" in str(caught.value)


def test_the_map_of_a_vgg_takes_the_released_names(tmp_path):
    """features.*, conv6.*, fc.* as in the released VGG16."""
    theirs = load_source("cam:vgg11", Request(random_weights=True)).module.state_dict()
    names = {"backbone.features.": "features.", "neck.0.": "conv6.", "head.": "fc."}
    state = {}
    for key, value in theirs.items():
        ours = next(prefix for prefix in names if key.startswith(prefix))
        state["module." + key.replace(ours, names[ours], 1)] = torch.full_like(value, 0.01)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    source = load_source("cam:vgg11", Request(tmp_path / "w.pth"))
    assert source.structure.weight.min().item() == pytest.approx(0.01) == source.module.neck[0].weight.max().item()


def test_a_network_of_the_users_own_code(tmp_path, monkeypatch):
    (tmp_path / "my_network.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))\n"
        "wrong = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_source("python:my_network:make").structure.weight.shape == (3, 4)
    assert str(tmp_path) not in sys.path
    for text, message in (
        ("python:my_network", "PACKAGE.MODULE:FUNCTION"),
        ("python:my_network:nothing", "cannot be called"),
        ("python:no_such_module:make", "cannot be called"),
        ("python:my_network:wrong", "cannot be called"),
        ("python:builtins:dict", "not a torch.nn.Module"),
        ("cam:resnet50", "unknown"),
    ):
        with pytest.raises(ExportError, match=message):
            load_source(text)


def test_an_impossible_stride_is_refused():
    with pytest.raises(InputError, match="not 24"):
        load_source("timm:resnet18", Request(random_weights=True, stride=24))
