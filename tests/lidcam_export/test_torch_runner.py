"""A checkpoint in PyTorch as one side of `lidcam compare`."""

import numpy as np
import torch
from lidcam_bench.evaluation import open_data
from lidcam_bench.evaluation.compare import compare, open_runner
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier
from PIL import Image


def test_a_checkpoint_agrees_with_itself_and_gives_the_models_logits(tmp_path):
    torch.manual_seed(0)
    spec = ClassifierSpec(backbone="lidcam_seresnet_small", num_classes=3, pooling="tap")
    model = build_classifier(spec).eval()
    meta = CheckpointMeta(classifier=spec, class_names=("a", "b", "c"), size=(64, 64))
    save_checkpoint(model, meta, tmp_path / "checkpoint")
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
