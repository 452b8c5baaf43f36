"""State dicts in every wrapper and under every prefix; files that are none."""

import argparse
import collections
import dataclasses
import datetime
import enum
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from lidcam_training.models.state_dict import read_state_dict
from safetensors.torch import save_file

from lidcam_rt.errors import InputError

pytestmark = pytest.mark.slow  # not in make quick


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
    source = load_source("timm:resnet18", Request(tmp_path / "w.pth"))
    torch.testing.assert_close(source.structure.weight, state["fc.weight"])
    torch.testing.assert_close(source.module.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert source.spec.weights == "w.pth" and len(source.class_names) == 5


def test_safetensors(tmp_path, state):
    save_file(prefixed(state, "module."), tmp_path / "w.safetensors")
    source = load_source("timm:resnet18", Request(tmp_path / "w.safetensors"))
    torch.testing.assert_close(source.structure.weight, state["fc.weight"])


def test_networks_compiled_or_parallel_inside(tmp_path, state):
    """`module.` and `_orig_mod.` of wrappers around inner modules, and prefixes of any name."""
    inner = {f"my_net.{key.replace('layer1.', 'layer1._orig_mod.')}": value for key, value in state.items()}
    torch.save({"state_dict": inner, "global_step": 3}, tmp_path / "w.ckpt")
    source = load_source("timm:resnet18", Request(tmp_path / "w.ckpt"))
    torch.testing.assert_close(source.structure.weight, state["fc.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_into_float32(tmp_path, state, dtype):
    torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "w.pth")
    source = load_source("timm:resnet18", Request(tmp_path / "w.pth"))
    assert source.structure.weight.dtype == torch.float32
    torch.testing.assert_close(source.structure.weight, state["fc.weight"].to(dtype).float())


@dataclasses.dataclass
class Config:
    lr: float = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    lr: float = 0.1


class Colour(enum.Enum):
    RED = 1


class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        self.fc = torch.nn.Linear(4, 2)


def beside():
    """What training scripts write beside the tensors: timm's and torchvision's Namespace, and much more."""
    return {
        "args": argparse.Namespace(model="resnet18", lr=0.1),
        "metric": np.float64(3.2),
        "curve": np.arange(3),
        "config": Config(),
        "frozen": [Frozen(), Frozen(0.2)],
        "colour": Colour.RED,
        "folder": Path("/runs"),
        "when": datetime.datetime(2026, 1, 1),
        "counts": collections.defaultdict(list, a=[1]),
        "recent": collections.deque([1, 2], maxlen=3),
        "function": beside,
        "device": torch.device("cpu"),
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_tensors_are_data(tmp_path, state, zipped):
    file = tmp_path / "w.pth"
    torch.save({"model": state, **beside()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(file, weights_only=True)
    weights = read_state_dict(file)
    assert weights.tensors.keys() == state.keys() and weights.architecture == "resnet18" and weights.key == "model"
    torch.testing.assert_close(load_source("timm:resnet18", Request(file)).structure.weight, state["fc.weight"])


def test_a_whole_network_gives_its_state_dict(tmp_path):
    """torch.save(model): the class is not imported, the tensors are taken."""
    model = Whole()
    torch.save(model, tmp_path / "w.pth")
    torch.save({"model": model, "epoch": 2}, tmp_path / "wrapped.pth")
    for name in ("w.pth", "wrapped.pth"):
        tensors = read_state_dict(tmp_path / name).tensors
        assert tensors.keys() == model.state_dict().keys()
        assert all(torch.equal(tensors[key], value) for key, value in model.state_dict().items())


class Runs:
    """Pickled, it is a call of a function with one argument."""

    def __init__(self, function, argument):
        self.call = (function, (argument,))

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, r"posix\.system"), (eval, r"builtins\.eval"), (exec, r"builtins\.exec"),
                           (subprocess.getoutput, r"(subprocess|commands)\.getoutput")]
)  # fmt: skip
def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path, state, function, name, zipped):
    mark = tmp_path / "mark"
    argument = f"open({str(mark)!r}, 'w')" if function in (eval, exec) else f"touch {mark}"
    file = tmp_path / "w.pth"
    torch.save({"model": state, "x": Runs(function, argument)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=rf"w\.pth: would run {name}.*not read"):
        read_state_dict(file)
    assert not mark.exists()


def test_any_other_function_is_a_name_and_is_not_called(tmp_path, state):
    mark = tmp_path / "mark"
    torch.save({"model": state, "x": Runs(touch, str(mark))}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").tensors.keys() == state.keys()
    torch.save({"model": state, "x": Runs(Path.touch, mark)}, tmp_path / "w.pth")  # a method: getattr(Path, "touch")
    with pytest.raises(InputError, match="calling the result of getattr"):
        read_state_dict(tmp_path / "w.pth")
    assert not mark.exists()


def touch(path):
    Path(path).touch()


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_averaged_weights_are_taken_where_there_are_any(tmp_path, state, key):
    averaged = {f"module.{name}": 2 * value if "fc" in name else value for name, value in state.items()}
    file = tmp_path / "w.pth"
    torch.save({"state_dict": state, key: {"n_averaged": torch.tensor(3), **averaged}}, file)
    notes = []
    for ema, factor in ((None, 2), (True, 2), (False, 1)):
        source = load_source("timm:resnet18", Request(file, ema=ema), note=notes.append)
        torch.testing.assert_close(source.structure.weight, factor * state["fc.weight"])
        assert source.spec.weights_entry == ("state_dict" if ema is False else key)
    assert notes[0] == f"weights: w.pth, {key} (averaged; --no-ema takes the others)"
    torch.save({"state_dict": state}, file)
    with pytest.raises(InputError, match="no averaged weights"):
        read_state_dict(file, ema=True)


def test_damaged_values_are_named(tmp_path, state):
    for value, kind in ((float("nan"), "NaN"), (float("inf"), "infinite")):
        bad = {**state, "layer1.0.conv1.weight": torch.full((64, 64, 3, 3), value)}
        torch.save(bad, tmp_path / "w.pth")
        with pytest.raises(InputError, match=rf"layer1\.0\.conv1\.weight holds {kind} values"):
            load_source("timm:resnet18", Request(tmp_path / "w.pth"))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 102530333\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "is empty"),
        ("w.pth", b"no weights at all", "cannot be read as weights"),
        ("w.safetensors", b"\0" * 20, "cannot be read as weights"),
        ("none.pth", None, "no such weights file"),
        ("w.pth", LFS, "is a Git LFS pointer.*git lfs pull"),
        ("w.safetensors", LFS, "is a Git LFS pointer.*git lfs pull"),
        ("w.pth", b"\n <!DOCTYPE html><html><title>Sign in</title>", "is a web page"),
        ("w.bin", b"<html><body>404", "is a web page"),
        ("w.onnx", b"\x08\x08\x12\x07pytorch", "is an ONNX model"),
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "is a Keras HDF5 file"),
        ("w.pth", b"\x1f\x8b" + bytes(99), "gzip"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(tmp_path / name)
    assert_plain(str(caught.value))


def assert_plain(message):
    """One line, no terminal codes, no advice to switch PyTorch's check off."""
    assert "\x1b" not in message and "\n" not in message
    assert "weights_only" not in message and "trust the source" not in message and "safe_globals" not in message


def test_torchscript_and_zip_archives_are_named(tmp_path):
    torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)).save(str(tmp_path / "w.pt"))
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    for name, message in (("w.pt", "is a TorchScript program"), ("z.pth", "is a zip archive")):
        with pytest.raises(InputError, match=message):
            read_state_dict(tmp_path / name)
    with pytest.raises(InputError, match="is a folder"):
        read_state_dict(tmp_path)


def test_truncated_and_foreign_weights_say_what_does_not_fit(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"half\.pth: cannot be read"):
        read_state_dict(tmp_path / "half.pth")
    with pytest.raises(InputError, match=r"of another shape: \d+ \(layer1"):
        load_source("timm:resnet50", Request(tmp_path / "w.pth"))
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="holds 1 entries \\(a\\), not a state dict"):
        read_state_dict(tmp_path / "numbers.pth")
