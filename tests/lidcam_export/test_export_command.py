"""`lidcam export` as users see it: steps, summary, names, errors."""

import pytest
import timm
import torch
from typer.testing import CliRunner

from lidcam_cli.app import build_app
from lidcam_rt.artifact import read_manifest

pytestmark = pytest.mark.slow  # not in make quick


def run(*arguments):
    return CliRunner().invoke(build_app(arguments[0]), [str(part) for part in arguments])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "w.pth"
    state = timm.create_model("resnet10t", num_classes=2).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": {**state, "fc.weight": 2 * state["fc.weight"]}}, file)
    return file


def test_steps_and_a_summary_of_what_was_made(tmp_path, weights):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat \r\n\r\n\tdog\r\n")
    out = tmp_path / "m.onnx"
    result = run("export", "timm:resnet10t", "--weights", weights, "-o", out, "--size", "64", "--classes",
                 tmp_path / "classes.txt", "--weights-license", "MIT", "--fixed-size")  # fmt: skip
    assert result.exit_code == 0, result.output
    steps = ("loading timm:resnet10t", "weights: w.pth, state_dict_ema (averaged; --no-ema takes the others)",
             "looking for the last feature map", "tracing, fixed height and width", "comparing the file with PyTorch")
    places = [result.stderr.index(step) for step in steps]
    assert places == sorted(places)
    wrote = result.stdout[result.stdout.index(f"wrote {out}") :]
    for text in (
        "timm:resnet10t; weights: w.pth", "MIT", "64x64 uint8, this size only", "2: cat, dog", "exact, stride 32",
        "percentile 98, theta 0.35, threshold", "float32", "against PyTorch", f"lidcam localize {out}",
    ):  # fmt: skip
        assert text in wrote, text
    assert read_manifest(out).class_names == ("cat", "dog")
    shown = run("inspect", out)
    assert "w.pth, state_dict_ema" in shown.stdout and "exact" in shown.stdout


def test_random_weights_are_said_aloud(tmp_path):
    out = tmp_path / "m.onnx"
    result = run("export", "timm:resnet10t", "--random-weights", "-o", out, "--size", "64", "--fixed-size")
    assert result.exit_code == 0, result.output
    assert "random weights: the maps mean nothing" in result.stderr and "RANDOM" in result.stdout
    assert read_manifest(out).source.random_weights
    assert "random, so that the maps mean nothing" in run("inspect", out).stdout


def test_a_linearized_head_is_named_everywhere(tmp_path):
    out = tmp_path / "m.onnx"
    arguments = ("timm:mobilenetv3_small_050", "--random-weights", "-o", out, "--size", "64", "--fixed-size")
    refused = run("export", *arguments)
    assert refused.exit_code == 4 and "--head linearized" in refused.stderr
    result = run("export", *arguments, "--head", "linearized")
    assert result.exit_code == 0, result.output
    assert "of the linearized head, not exact" in result.stdout
    assert read_manifest(out).cam.head == "linearized"
    assert "of the linearized head, not exact" in run("inspect", out).stdout


def test_names_of_imagenet_by_option(tmp_path):
    out = tmp_path / "m.onnx"
    result = run("export", "timm:resnet10t", "--random-weights", "-o", out, "--size", "64", "--fixed-size", "--classes",
                 "imagenet")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert read_manifest(out).class_names[281] == "tabby"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("timm:resnet5O",), "similar names: resnet50"),
        (("timm:resnet50", "--weights", "none.pth"), "no such weights file"),
        (("timm:resnet50", "--classes", "none.txt"), "no such file"),
        (("timm:resnet50", "--mean", "0"), "give both --mean and --std"),
        (("zoo:efficientnet_lite0", "--random-weights"), "has its own weights"),
        (("cam:vgg16",), "comes without weights"),
    ],
)
def test_what_is_refused(tmp_path, arguments, message):
    result = run("export", *arguments, "-o", tmp_path / "m.onnx")
    assert result.exit_code != 0 and message in result.stderr
    assert list(tmp_path.iterdir()) == []
