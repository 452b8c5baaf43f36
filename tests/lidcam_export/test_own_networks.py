"""Networks of the user's own code: what their authors do, exported as it is meant."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from lidcam_export.exporter import export_artifact, manifest_of
from lidcam_export.options import ExportOptions
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from lidcam_export.structure import find_structure
from lidcam_training.models.stride import feature_stride
from torch import nn

from lidcam_rt.artifact import read_manifest
from lidcam_rt.errors import ExportError, InputError

pytestmark = pytest.mark.slow  # not in make quick

CODE = """
import torch
from torch import nn

def body():
    torch.manual_seed(0)
    return [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()]

class Net(nn.Sequential):
    def __init__(self, *tail, last=torch.nn.Identity()):
        super().__init__(*body(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *tail, last)

def plain(): return Net(nn.Linear(16, 3))
def fixed_pool(): return nn.Sequential(*body(), nn.AvgPool2d(7), nn.Flatten(), nn.Linear(16, 3))
def sigmoid(): return Net(nn.Linear(16, 3), last=nn.Sigmoid())
def softmax(): return Net(nn.Linear(16, 3), last=nn.Softmax(1))
def two_layers(): return Net(nn.Linear(16, 3), nn.Linear(3, 3))
def zeros():
    net = Net(nn.Linear(16, 3))
    nn.init.zeros_(net[6].weight)
    return net
def not_finite():
    net = Net(nn.Linear(16, 3))
    net[6].weight.data[0, 0] = float("nan")
    return net
def on_cuda(): return Net(nn.Linear(16, 3)).cuda()
def half(): return Net(nn.Linear(16, 3)).half()
def wrapped(): return nn.DataParallel(Net(nn.Linear(16, 3)))
def compiled(): return torch.compile(Net(nn.Linear(16, 3)))
def broken(): raise KeyError("no config")

class Inside(nn.Module):
    "Normalises by itself: takes pixels of 0 to 1."
    def __init__(self):
        super().__init__()
        self.net = plain()
    def forward(self, x):
        return self.net((x - 0.45) / 0.25)

def inside(): return Inside()
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    import sys

    (tmp_path / "user_nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("user_nets", None)


def load(name, **request):
    return load_source(f"python:user_nets:{name}", Request(**request))


def exact(source, size):
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        structure = source.structure
        return structure.features(x).mean((2, 3)) @ structure.weight.T + structure.bias, source.module(x)


@pytest.mark.parametrize(
    ("name", "size"),
    [("plain", (64, 48)), ("fixed_pool", (28, 28)), ("two_layers", (64, 64)), ("half", (64, 64)),
     ("wrapped", (64, 64)), ("compiled", (64, 64)), ("inside", (64, 64))],
)  # fmt: skip
def test_exact_structures(code, name, size):
    expected, logits = exact(load(name, size=size), size)
    torch.testing.assert_close(expected, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "task"), [("sigmoid", "multilabel"), ("softmax", "localization")])
def test_a_network_that_ends_in_probabilities(code, name, task):
    """The artifact gives logits; sigmoid means a task of several labels."""
    source = load(name, size=(64, 64))
    expected, probabilities = exact(source, (64, 64))
    function = torch.sigmoid if name == "sigmoid" else lambda v: v.softmax(1)
    torch.testing.assert_close(function(expected), probabilities, rtol=1e-4, atol=1e-5)
    assert manifest_of(source, ExportOptions()).task == task
    assert manifest_of(source, ExportOptions(task="multilabel")).task == "multilabel"


def test_a_head_of_zeros_fits_nothing_by_chance_and_is_refused(code):
    """Zeros make every map fit: the check runs with random weights, and the real ones come back."""
    with pytest.raises(ExportError, match=r"all weights of its classifying layer '6' are 0"):
        load("zeros", size=(64, 64))
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    nn.init.zeros_(model[4].weight)
    with pytest.raises(ExportError, match="another layer or another pooling"):
        find_structure(model.eval(), "max pooling", size=(64, 64))
    assert not model[4].weight.any()
    assert load("zeros", size=(64, 64), random_weights=True).structure.classes == 3


def test_what_fails_is_named(code):
    for name, message in (
        ("not_finite", r"its weights 6\.weight hold NaN or infinite values"),
        ("on_cuda", r"Export runs on the CPU: build the network there, without \.cuda\(\)"),
        ("broken", r"KeyError: 'no config'; user_nets\.py, line"),
    ):
        with pytest.raises(ExportError, match=message):
            load(name, size=(64, 64))


def test_normalisation_inside_the_network(code):
    """`--mean 0 --std 1`: pixels of 0 to 1 go in."""
    from lidcam_export.cli.export import parse_normalisation

    mean, std = parse_normalisation("0", "1", None)
    options = ExportOptions(size=(64, 64), mean=mean, std=std, dynamic_size=False)
    export_artifact("python:user_nets:inside", code / "m.onnx", options)
    assert read_manifest(code / "m.onnx").input.std == (255.0, 255.0, 255.0)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    feeds = {"image": image, "labels": np.array([[-1]])}
    logits = ort.InferenceSession(str(code / "m.onnx")).run(["logits"], feeds)[0]
    with torch.no_grad():
        expected = load("inside").module(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std", "pixels", "expected"),
    [
        ("0", "1", None, ((0, 0, 0), (255, 255, 255))),
        ("0", "1", 255, ((0, 0, 0), (1, 1, 1))),
        ("0.5", "0.25,0.5,1", None, ((127.5,) * 3, (63.75, 127.5, 255))),
        ("127,128,129", "128", None, ((127, 128, 129), (128,) * 3)),
        (None, None, None, (None, None)),
    ],
)
def test_units_of_mean_and_deviation(mean, std, pixels, expected):
    from lidcam_export.cli.export import parse_normalisation

    assert parse_normalisation(mean, std, pixels) == expected


@pytest.mark.parametrize(
    ("mean", "std", "pixels"),
    [("0", None, None), ("0,1", "1", None), ("0", "0", None), ("a", "1", None), ("0", "1", 2)],
)
def test_means_and_deviations_that_are_refused(mean, std, pixels):
    from lidcam_export.cli.export import parse_normalisation

    with pytest.raises(InputError):
        parse_normalisation(mean, std, pixels)


@pytest.mark.parametrize(
    ("name", "size", "stride"), [("inception_v3", 299, 32), ("resnet18", 224, 32), ("vgg11", 224, 32)]
)
def test_the_stride_is_not_spoilt_by_borders(name, size, stride):
    """inception_v3 pads nothing: 128 pixels make 2 cells, its stride is 32 and not 64."""
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=0, global_pool="").eval()
    assert feature_stride(model.forward_features, (size, size)) == stride
    assert feature_stride(model.forward_features) == stride


def test_a_network_of_one_size_has_a_stride_too():
    class OneSize(nn.Module):
        def forward(self, x):
            assert x.shape[2:] == (56, 56)
            return x[:, :, ::8, ::8]

    assert feature_stride(OneSize(), (56, 56)) == 8
