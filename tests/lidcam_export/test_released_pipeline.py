"""The paper's released pipeline, written down again from what it does, beside an artifact of the same weights.

Bae, Noh and Kim, ECCV 2020; docs/method.md has the differences point by point, with the names of these tests.
"""

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.options import ExportOptions
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from lidcam_training.models import thresholded_average_pool
from PIL import Image
from skimage import data
from torch import nn
from torch.nn import functional

import lidcam_rt
from lidcam_rt.boxes import largest_box
from lidcam_rt.pas import PasOptions, pas

CROP, TAP, PERCENTILE, THETA, CLASSES = 224, 0.1, 90.0, 0.35, 7
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def convolutions():
    """VGG11 without its last pooling, a 3x3 convolution to 1024 channels after it, each with a ReLU."""
    layers, channels = [], 3
    for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, 1024):
        if width == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def released_pool(features, threshold):
    """Pixels not above the threshold become 0, and what is left above 0 is counted."""
    flat_max = features.flatten(2).max(2).values[..., None, None]
    kept = torch.where(features > flat_max * threshold, features, torch.zeros_like(features))
    count = (kept > 0).sum((2, 3), keepdim=True)
    return kept / torch.where(count == 0, torch.ones_like(count), count).float()


class Released(nn.Module):
    """Keys as in the released checkpoints: main_layers.* and fc.*."""

    def __init__(self):
        super().__init__()
        self.main_layers, self.fc = convolutions(), nn.Linear(1024, CLASSES)

    def forward(self, images):
        self.features = self.main_layers(images)
        weight = self.fc.weight[:, :, None, None]
        return functional.conv2d(released_pool(self.features, TAP), weight).sum((2, 3)) + self.fc.bias

    def maps(self, clamp):
        """Of all classes, from the features before the threshold."""
        weight = torch.where(self.fc.weight > 0, self.fc.weight, torch.zeros(())) if clamp else self.fc.weight
        return functional.conv2d(self.features, weight[:, :, None, None])


def released_box(cam, width, height, theta, percentile):
    """From a map to bytes, a threshold and a box."""
    cam = cv2.resize(cam, (height, width), interpolation=cv2.INTER_CUBIC)  # the released order: OpenCV asks for (w, h)
    gray = ((cam - cam.min()) / (cam.max() - cam.min()) * 255).astype("uint8")
    threshold = int(theta * np.percentile(gray, q=percentile))
    _, binary = cv2.threshold(gray, threshold, 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    box = [0, 0, 224, 224]
    if contours:
        x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
        box = [x, y, x + w, y + h]
    return gray, threshold, binary > 0, box


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The network with weights as it is initialised, and its checkpoint in the released form."""
    torch.manual_seed(0)
    network = Released().eval()
    for layer in network.main_layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    nn.init.normal_(network.fc.weight, 0, 0.01)
    file = tmp_path_factory.mktemp("released") / "checkpoint.pth"
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": state}, file)
    return network, file


@pytest.fixture(scope="module")
def artifacts(released, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    for nwc in (True, False):
        options = ExportOptions(
            weights=released[1], size=(CROP, CROP), pooling="tap", tap_threshold=TAP, percentile=PERCENTILE,
            theta=THETA, nwc=nwc,
        )  # fmt: skip
        export_artifact("cam:vgg11", folder / f"{nwc}.onnx", options)
    return folder


@pytest.mark.slow
def test_the_released_checkpoint_has_its_place_for_every_tensor(released):
    source = load_source("cam:vgg11", Request(released[1]))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        released[0](pixels)
        torch.testing.assert_close(source.structure.features(pixels), released[0].features)
    torch.testing.assert_close(source.structure.weight, released[0].fc.weight)
    torch.testing.assert_close(source.structure.bias, released[0].fc.bias)


@pytest.mark.slow
@pytest.mark.parametrize("nwc", [True, False])
def test_maps_and_boxes_of_the_released_pipeline(released, artifacts, nwc):
    network, compared = released[0], 0
    with lidcam_rt.load(artifacts / f"{nwc}.onnx") as localizer:
        for photo in (data.astronaut(), data.chelsea(), data.coffee()):
            # its geometry: the whole picture to 256x256, the middle 224x224 of that
            square = np.asarray(Image.fromarray(photo).resize((256, 256), Image.Resampling.BILINEAR))
            crop = np.ascontiguousarray(square[16:240, 16:240])
            pixels = torch.from_numpy((crop / np.float32(255) - MEAN) / STD).permute(2, 0, 1)[None].float()
            with torch.no_grad():
                logits = network(pixels)[0].numpy()
                cams = network.maps(nwc)[0].numpy()
            for label in range(CLASSES):
                gray, threshold, mask, box = released_box(cams[label], CROP, CROP, THETA, PERCENTILE)
                ours = localizer(crop, labels=label)
                probability = np.exp(logits.astype(float) - logits.max())
                assert ours.score == pytest.approx(probability[label] / probability.sum(), rel=1e-3)
                assert np.abs(ours.map.astype(int) - gray).max() <= 1
                assert abs(ours.threshold - threshold) <= 1
                if ours.threshold == threshold:
                    assert (ours.mask != mask).mean() <= 1e-3
                    assert np.abs(np.subtract(ours.box, box)).max() <= 2
                    compared += 1
    assert compared >= 3 * CLASSES - 2


def test_thresholded_pooling_is_the_released_one_where_features_are_not_negative():
    x = torch.relu(torch.randn(2, 5, 6, 6, dtype=torch.float64)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    ours, theirs = thresholded_average_pool(x, TAP), released_pool(y, TAP).sum((2, 3))
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(2, 5, dtype=torch.float64)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)  # the indicator and the threshold have no gradient in either


def test_thresholded_pooling_of_negative_features_differs_on_purpose():
    """A maximum of -4 has the threshold -2 at 0.5, which no pixel exceeds; one of -1 has -0.1, likewise: both give 0.

    With a threshold below every pixel the released code sums them all and counts those above 0 only.
    """
    x = torch.tensor([[[[-1.0, -2.0], [-4.0, -8.0]]]])
    assert thresholded_average_pool(x, TAP).item() == released_pool(x, TAP).sum().item() == 0
    y = torch.tensor([[[[2.0, -1.0], [-4.0, -8.0]]]])
    assert released_pool(y, -2.0).sum().item() == pytest.approx(2.0 - 1.0)  # divided by one pixel, not by two
    assert thresholded_average_pool(y, -2.0).item() == pytest.approx((2.0 - 1.0) / 2)


def test_a_constant_map_localizes_nothing_and_does_not_divide_by_zero():
    flat = np.ones((7, 7), np.float32)
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        released_box(flat, CROP, CROP, THETA, PERCENTILE)
    with np.errstate(invalid="ignore"):
        *_, box = released_box(flat, CROP, CROP, THETA, PERCENTILE)
    made = pas(flat[None, None], (CROP, CROP), PasOptions(PERCENTILE, THETA))
    assert not made.mask.any() and largest_box(made.mask[0, 0]) is None
    assert box == [0, 0, 224, 224]  # the released answer for no contour


def test_pictures_that_are_not_square_keep_their_sides():
    """The released resize is given (height, width) for (width, height); its crops are square."""
    cam = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    gray, *_ = released_box(cam, 120, 80, THETA, PERCENTILE)
    assert gray.shape == (120, 80)  # width 120 became the height
    assert pas(cam[None, None], (80, 120), PasOptions(PERCENTILE, THETA)).map.shape[2:] == (80, 120)


def test_the_rate_of_the_head_is_that_of_scaled_gradients():
    """Gradients of all but the added convolution and the classifier times 0.1 is a tenth of the rate under SGD."""
    torch.manual_seed(0)
    start = [torch.randn(4, 3), torch.randn(3, 4)]

    def train(step):
        weights = [value.clone().requires_grad_() for value in start]
        step(weights)
        return weights

    def loss(weights, seed):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        return (torch.relu(x @ weights[0].t()) @ weights[1].t() - x).pow(2).mean()

    def released_steps(weights):
        optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True)
        for seed in range(5):
            optimizer.zero_grad()
            loss(weights, seed).backward()
            weights[0].grad *= 0.1
            optimizer.step()

    def our_steps(weights):
        groups = [{"params": [weights[0]], "lr": 0.005}, {"params": [weights[1]], "lr": 0.05}]
        optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        for seed in range(5):
            optimizer.zero_grad()
            loss(weights, seed).backward()
            optimizer.step()

    for theirs, ours in zip(train(released_steps), train(our_steps), strict=True):
        torch.testing.assert_close(theirs, ours)
