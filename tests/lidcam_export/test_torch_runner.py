"""A checkpoint in PyTorch as one side of `lidcam compare`."""

import contextlib

import numpy as np
import pytest
import torch
from lidcam_bench.evaluation import open_data
from lidcam_bench.evaluation.compare import compare, open_runner
from lidcam_export.torch_runner import open_checkpoint
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier
from PIL import Image

from lidcam_rt.errors import InputError


def checkpoint(folder):
    torch.manual_seed(0)
    spec = ClassifierSpec(backbone="lidcam_seresnet_small", num_classes=3, pooling="tap")
    model = build_classifier(spec).eval()
    meta = CheckpointMeta(classifier=spec, class_names=("a", "b", "c"), size=(64, 64))
    save_checkpoint(model, meta, folder)
    return model, meta


def test_a_checkpoint_agrees_with_itself_and_gives_the_models_logits(tmp_path):
    model, meta = checkpoint(tmp_path / "checkpoint")
    (tmp_path / "set" / "images").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "set" / "images" / "p.png")
    runner = open_runner(tmp_path / "checkpoint")
    data = open_data(str(tmp_path / "set"))
    result, logits, cam = runner(data.records[0].image)
    x = (torch.from_numpy(pixels).float() - torch.tensor(meta.mean)) / torch.tensor(meta.std)
    with torch.inference_mode():
        expected = model(x.permute(2, 0, 1)[None])[0].numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert result.class_id == int(expected.argmax()) and cam is not None
    found = compare(runner, open_runner(tmp_path / "checkpoint"), data.records)
    assert found.faults == [] and found.total["cam_max_relative"] == 0


def test_a_checkpoint_is_a_backend(tmp_path):
    """It streams, closes and says what it has, as every engine does."""
    checkpoint(tmp_path / "checkpoint")
    pictures = [np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3)).astype(np.uint8) for i in range(5)]
    localizer = open_checkpoint(tmp_path / "checkpoint")
    backend = localizer.backend
    calls = [localizer(picture) for picture in pictures]
    for call, streamed in zip(calls, localizer.stream(pictures, batch_size=2), strict=True):
        assert (call.class_id, call.box) == (streamed.class_id, streamed.box)
        assert (call.map == streamed.map).all() and call.score == pytest.approx(streamed.score, rel=1e-5)
    prepared = localizer.pipeline.prepare(pictures[0])
    names = [entry["name"] for entry in backend.outputs]
    for entry, value in zip(backend.outputs, localizer.pipeline.run([prepared], outputs=names).values(), strict=True):
        assert str(value.dtype) == entry["dtype"] and value.ndim == len(entry["shape"])
    assert [entry["name"] for entry in backend.inputs] == ["image", "labels"]
    backend.close()
    with pytest.raises(InputError, match="closed"):
        localizer(pictures[0])


def test_the_kernel_in_place_of_the_reference_gives_the_same_bits(tmp_path):
    checkpoint(tmp_path / "checkpoint")
    picture = np.random.default_rng(3).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    one, two = (open_checkpoint(tmp_path / "checkpoint", kernels=kernels)(picture) for kernels in (False, True))
    assert (one.map == two.map).all() and one.threshold == two.threshold and one.box == two.box


def test_its_steps_are_told(tmp_path):
    checkpoint(tmp_path / "checkpoint")
    localizer, names = open_checkpoint(tmp_path / "checkpoint"), []

    def stage(name, stream=None):
        names.append(name)
        return contextlib.nullcontext()

    localizer.pipeline.observe(stage)
    localizer(np.zeros((50, 60, 3), np.uint8))
    assert names == ["decode", "preprocess", "network", "graph", "PaS", "maps", "boxes"]


@pytest.mark.slow
def test_compiled(tmp_path):
    checkpoint(tmp_path / "checkpoint")
    picture = np.random.default_rng(3).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    eager, compiled = (open_checkpoint(tmp_path / "checkpoint", compiled=flag) for flag in (False, True))
    one, two = eager(picture), compiled(picture)
    assert (one.class_id, one.score) == (two.class_id, pytest.approx(two.score, rel=1e-4))
    assert eager.backend.name.endswith(", eager") and compiled.backend.name.endswith(", torch.compile")
