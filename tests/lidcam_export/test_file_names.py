"""Artifacts whose file names are not UTF-8 are exported, compared with PyTorch and loaded like others."""

import os
from pathlib import Path

import pytest
import torch
from lidcam_export.exporter import export_artifact
from lidcam_export.segmentation import export_segmentation
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.segmentation.checkpoint import SegmentationMeta, save_segmentation
from lidcam_training.segmentation.network import build_network
from lidcam_training.segmentation.spec import NetworkSpec

import lidcam_rt

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture
def odd(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.onnx"))
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    path.unlink()
    return path


def test_a_classifier(odd, tmp_path):
    torch.manual_seed(0)
    spec = ClassifierSpec(backbone="lidcam_seresnet_small", num_classes=2)
    meta = CheckpointMeta(spec, ("a", "b"), (32, 32))
    export_artifact(str(save_checkpoint(build_classifier(spec), meta, tmp_path / "checkpoint")), odd)
    with lidcam_rt.load(odd) as localizer:
        assert localizer.class_names == ("a", "b")


def test_a_segmentation_network(odd, tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec(architecture="fpn", encoder="resnet18", channels=32, num_labels=3)
    meta = SegmentationMeta(spec, ("a", "b"), (64, 64), (120.0, 121.0, 122.0), (60.0, 61.0, 62.0))
    export_segmentation(save_segmentation(build_network(spec).eval(), meta, tmp_path / "checkpoint"), odd)
    with lidcam_rt.load(odd) as segmenter:
        assert segmenter.class_names == ("a", "b")
