"""State dicts in every wrapper and under every prefix; files that are none."""

import pytest
import timm
import torch
from lidcam_export.sources.source import load_source
from lidcam_training.models.state_dict import read_state_dict
from safetensors.torch import save_file

from lidcam_rt.errors import InputError


@pytest.fixture(scope="module")
def state():
    return timm.create_model("resnet18", num_classes=5).state_dict()


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: prefixed(s, "module."),
        lambda s: prefixed(s, "model."),
        lambda s: prefixed(s, "module.model."),
        lambda s: {"state_dict": prefixed(s, "module."), "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: {"state_dict": {"model": prefixed(s, "_orig_mod.")}},
        lambda s: {
            "state_dict": {**prefixed(s, "model."), "loss.weight": torch.ones(7), "fc.weight": torch.ones(9, 9)}
        },
    ],
)
def test_wrappers_and_prefixes(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    source = load_source("timm:resnet18", weights=tmp_path / "w.pth")
    torch.testing.assert_close(source.structure.weight, state["fc.weight"])
    torch.testing.assert_close(source.module.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert source.spec.weights == "w.pth" and len(source.class_names) == 5


def test_safetensors(tmp_path, state):
    save_file(prefixed(state, "module."), tmp_path / "w.safetensors")
    source = load_source("timm:resnet18", weights=tmp_path / "w.safetensors")
    torch.testing.assert_close(source.structure.weight, state["fc.weight"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "cannot be read as weights"),
        ("w.pth", b"no weights at all", "cannot be read as weights"),
        ("w.safetensors", b"\0" * 20, "cannot be read as weights"),
        ("none.pth", None, "no such weights file"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_state_dict(tmp_path / name)


def test_truncated_and_foreign_weights_say_what_does_not_fit(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"half\.pth: cannot be read"):
        read_state_dict(tmp_path / "half.pth")
    with pytest.raises(InputError, match=r"of another shape: \d+ \(layer1"):
        load_source("timm:resnet50", weights=tmp_path / "w.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="holds no state dict"):
        read_state_dict(tmp_path / "numbers.pth")
