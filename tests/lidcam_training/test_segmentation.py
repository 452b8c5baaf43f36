"""Segmentation networks: the loss against torch, pictures and labels moved together, runs, checkpoints."""

import dataclasses

import numpy as np
import pytest
import torch
from lidcam_bench.data import open_data
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.data.label_png import label_png
from lidcam_training.data.scenes import make_scenes
from lidcam_training.fit import fit
from lidcam_training.recipe import SegmentRecipe, read_any_recipe, read_recipe
from lidcam_training.segmentation.checkpoint import is_segmentation, load_segmentation
from lidcam_training.segmentation.module import pixel_loss
from lidcam_training.segmentation.network import build_network
from lidcam_training.segmentation.pictures import LabelledPictures, open_labels
from lidcam_training.segmentation.spec import NetworkSpec
from safetensors.torch import load_file

from lidcam_rt.errors import DataError, InputError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("scenes") / "d"
    make_scenes(folder, train=24, val=8, test=4, size=64, source=sources[0], backgrounds=sources[1])
    return folder


def recipe(scenes, *more):
    small = ["network.encoder=resnet18", "network.weights=null", "network.channels=32", "data.size=64"]
    small += ["network.architecture=fpn", "data.batch_size=8", "epochs=2", "optim.lr=0.005"]
    return read_any_recipe("scenes_segment", [f"data.source=scenes:{scenes}", *small, *more])


def test_the_loss_is_torchs_over_the_labelled_pixels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    target = torch.randint(0, 4, (2, 8, 8), generator=generator)
    target[:, :3] = 255
    want = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(pixel_loss(logits, target), want)
    nothing = pixel_loss(logits, torch.full_like(target, 255))
    nothing.backward()
    assert nothing == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize(
    ("architecture", "encoder", "stride"),
    [("deeplabv3plus", "resnet18", 4), ("unet", "resnet18", 1), ("fpn", "resnet18", 4),
     ("torchvision_deeplabv3", "mobilenet_v3_large", 16)],
)  # fmt: skip
def test_networks_of_every_architecture(architecture, encoder, stride):
    network = build_network(NetworkSpec(architecture=architecture, encoder=encoder, channels=32, num_labels=5)).eval()
    assert network.stride == stride
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 96, 64)).shape == (1, 5, 96 // stride, 64 // stride)


def test_a_pyramid_takes_any_multiple_of_32_channels():
    for channels in (96, 160):  # half of them is no multiple of the 32 groups of its normalisation
        network = build_network(NetworkSpec(architecture="fpn", encoder="resnet18", channels=channels, num_labels=3))
        assert network.stride == 4


def test_the_encoder_takes_the_weights_of_a_backbone():
    options = read_any_recipe("scenes_segment").network
    network = build_network(NetworkSpec(**{**dataclasses.asdict(options), "num_labels": 3}))
    from lidcam_training.models.backbone import build_backbone
    from lidcam_training.models.spec import ModelOptions

    backbone = build_backbone(ModelOptions(backbone=options.encoder, weights=options.weights)).state_dict()
    state = network.body.encoder.model.state_dict()
    assert len(state) > 200 and all(torch.equal(value, backbone[name]) for name, value in state.items())


def test_pictures_and_labels_move_together(scenes):
    """A picture that is its own label map, in grey levels: after augmentation they still agree."""
    options = recipe(scenes, "data.jitter=0", "data.crop=32", "labels.scales=[0.3,2]", "data.interpolation=bilinear")
    images = open_labels(open_data(f"scenes:{scenes}", "train"), None)
    pictures = LabelledPictures(images, options, train=True)
    labels = np.zeros((64, 64), np.uint8)
    labels[10:40, 20:60] = 9
    pictures._cache[0] = np.repeat(labels[..., None] * np.uint8(20), 3, 2), labels
    sides = set()
    for epoch in range(40):
        sample = pictures[epoch, 0]
        image, target = sample["image"][0].numpy(), sample["target"].numpy()
        assert image.shape == target.shape == (32, 32)
        known = target != 255
        sides.add(int(known.any(0).sum()))
        agree = (np.abs(image.astype(int) - 20 * target) < 90)[known]
        assert agree.mean() > 0.9 and (image[~known] == 127).all()
        again = pictures[epoch, 0]
        assert torch.equal(sample["image"], again["image"]) and torch.equal(sample["target"], again["target"])
    assert min(sides) < 32 <= max(sides)


@pytest.mark.slow
def test_a_run_on_pseudo_labels_learns_and_goes_on(tmp_path, scenes):
    images = open_data(f"scenes:{scenes}", "train")
    (tmp_path / "labels").mkdir()
    for record in images:
        (tmp_path / "labels" / record.image.name).write_bytes(label_png(record.truth().label_map()))
    chosen = recipe(scenes, f"labels.folder={tmp_path / 'labels'}")
    fit(chosen, tmp_path / "a", progress=False)
    read = load_segmentation(tmp_path / "a" / "checkpoint")
    assert read.meta.class_names == images.class_names and read.network.spec.num_labels == 11
    assert {"val_mean_iou", "val_loss", "train_loss"} <= set(read.meta.metrics)
    assert is_segmentation(tmp_path / "a" / "checkpoint")
    with pytest.raises(DataError):
        load_checkpoint(tmp_path / "a" / "checkpoint")
    # one epoch, then the second: as unbroken
    from lidcam_training.segmentation.module import SegmentationModule

    class Stop(Exception):
        pass

    step = SegmentationModule.training_step

    def dies(self, batch, index):
        if self.current_epoch == 1 and index == 1:
            raise Stop
        return step(self, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", dies)
        with pytest.raises(Exception):  # noqa: B017
            fit(chosen, tmp_path / "b", progress=False)
    fit(chosen, tmp_path / "b", progress=False)
    first, second = (load_file(tmp_path / run / "checkpoint" / "model.safetensors") for run in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_does_not_fit_is_named(tmp_path, scenes):
    images = open_data(f"scenes:{scenes}", "train")
    with pytest.raises(DataError, match="lidcam pseudo"):
        open_labels(images, str(tmp_path))
    bare = dataclasses.replace(images, records=(dataclasses.replace(images.records[0], mask=None),))
    with pytest.raises(DataError, match="no label map"):
        open_labels(bare, None)
    for wrong in ("data.size=65", "labels.scales=[2,1]", "network.channels=40", "network.architecture=x"):
        with pytest.raises(InputError):
            recipe(scenes, wrong)
    with pytest.raises(InputError, match="segmentation network"):
        read_recipe("scenes_segment")
    with pytest.raises(InputError, match="does not work with"):
        build_network(NetworkSpec(encoder="no_such_network"))
    assert isinstance(read_any_recipe("lid_track1_segment"), SegmentRecipe)
