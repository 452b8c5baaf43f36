"""Names, pretrained weights and weights files as sources of an export."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import timm
import torch
from lidcam_export.sources.imagenet import imagenet_names, short_names
from lidcam_export.sources.kinds import KINDS, check_name
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from safetensors.torch import save_file
from torchvision import models

from lidcam_rt.errors import ExportError, InputError

pytestmark = pytest.mark.slow  # not in make quick


def test_every_kind_has_a_loader_and_its_names_are_those_of_the_package():
    import importlib

    for kind in KINDS.values():
        assert callable(importlib.import_module(kind.module).load)
    assert KINDS["timm"].names() >= set(timm.list_models())
    assert KINDS["torchvision"].names() >= set(models.list_models(module=models)) - {"quantized"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm:resnet5O", "timm:resnet5O: unknown; similar names: resnet50"),
        ("timm:resnet50.no_such_tag", None),
        ("torchvision:resnett18", "similar names: .*resnet18"),
        ("tim:resnet50", r"Did you mean timm:NAME\?"),
        ("resnet50", r"Did you mean timm:resnet50 or torchvision:resnet50\?"),
        ("zoo:efficientnet_lite3", "similar names: efficientnet_lite0, efficientnet_lite1, efficientnet_lite2"),
        ("cam:vgg12", "vgg11, vgg13, vgg16, vgg19"),
        ("runs/nothing", "no such checkpoint folder or weights file"),
        ("model.pt", "no such checkpoint folder or weights file"),
    ],
)
def test_typos_are_named_with_the_nearest_names(text, message):
    if message is None:
        return check_name(text)
    with pytest.raises(ExportError, match=message):
        check_name(text)
    return None


def test_a_typo_is_found_without_loading_pytorch():
    """The command must fail in under a second; PyTorch alone takes longer to import."""
    program = (
        "import sys\n"
        "from lidcam_cli.app import build_app\n"
        "from typer.testing import CliRunner\n"
        "for text in ('timm:resnet5O', 'timm:resnet50 --weights none.pth', 'timm:resnet50 --size x', 'no/folder',\n"
        "             'timm:resnet50 --classes none.txt', 'timm:resnet50 --std 0', 'timm:resnet50 --mode thresh'):\n"
        "    arguments = text.split()\n"
        "    result = CliRunner().invoke(build_app('export'), ['export', *arguments, '-o', 'm.onnx'])\n"
        "    assert result.exit_code, result.output\n"
        "    assert 'torch' not in sys.modules and 'timm' not in sys.modules, arguments\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


OFFLINE = """
import sys
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from lidcam_rt.errors import ExportError
try:
    source = load_source(sys.argv[1])
except ExportError as error:
    print(error)
    sys.exit(4)
print(source.spec.model_dump_json())
print(source.settings.weights_license, source.class_names[281], len(source.class_names))
"""


def without_network(tmp_path, text, **environment):
    """Loads a source where the hub does not answer; its cache is in tmp_path."""
    closed = "http://127.0.0.1:9"  # nothing listens there
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "torch"), "HF_ENDPOINT": closed,
        "http_proxy": closed, "https_proxy": closed, "no_proxy": "", **environment,
    }  # fmt: skip
    command = [sys.executable, "-c", OFFLINE, text]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize("text", ["timm:resnet18", "hf_hub:timm/resnet18.a1_in1k", "torchvision:resnet18"])
def test_weights_that_cannot_be_downloaded_end_in_what_to_do(tmp_path, text):
    done = without_network(tmp_path, text)
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith(f"{text}: its pretrained weights cannot be downloaded (")
    assert "--weights FILE" in done.stdout and "--random-weights" in done.stdout
    assert "Retrying" not in done.stderr


def cache_weights(tmp_path, name="resnet18.a1_in1k"):
    """A file in the hub's cache as a download leaves it."""
    state = timm.create_model("resnet18").state_dict()
    repository = tmp_path / "hf" / "hub" / f"models--timm--{name}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(state, snapshot / "model.safetensors")
    return state


def test_timm_takes_pretrained_weights_names_and_licence(tmp_path):
    """From the hub's cache, as after a download; the class names are ImageNet's."""
    cache_weights(tmp_path)
    done = without_network(tmp_path, "timm:resnet18", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    spec, rest = done.stdout.splitlines()[-2:]
    assert json.loads(spec) == {
        "name": "timm:resnet18", "weights": "timm/resnet18.a1_in1k", "weights_sha256": None, "weights_entry": None,
        "random_weights": False,
    }  # fmt: skip
    assert rest == "apache-2.0 tabby 1000"


def test_torchvision_takes_pretrained_weights_and_names(tmp_path):
    file = tmp_path / "torch" / "hub" / "checkpoints" / models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(models.resnet18().state_dict(), file)
    done = without_network(tmp_path, "torchvision:resnet18")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-2])["weights"] == file.name
    assert done.stdout.splitlines()[-1] == "None tabby 1000"


def test_networks_without_published_weights_say_so():
    with pytest.raises(ExportError, match=r"no such weights; there are resnet18\.a1_in1k"):
        load_source("timm:resnet18.nothing")
    with pytest.raises(ExportError, match="cam:vgg16 comes without weights: give --weights FILE"):
        load_source("cam:vgg16")
    unpublished = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(ExportError, match="timm publishes no weights for it"):
        load_source(f"timm:{unpublished}")


def test_random_weights_are_in_the_manifest_and_said(tmp_path):
    notes = []
    source = load_source("timm:resnet18", Request(random_weights=True), note=notes.append)
    assert source.spec.random_weights and source.spec.weights is None
    assert any("random weights: the maps mean nothing" in note for note in notes)
    assert source.class_names[281] == "class 281"


def test_names_of_imagenet():
    names = imagenet_names()
    assert (names[0], names[281], names[967]) == ("tench", "tabby", "espresso")
    assert len(set(names)) == 1000
    assert short_names(["a, x", "b", "a, y", "c", "c"]) == ("a, x", "b", "a, y", "c (3)", "c (4)")


def test_published_files_bring_imagenets_names(tmp_path):
    """torchvision's and timm's files carry the start of their SHA-256 in the name; another file of 1000 classes may not
    be ImageNet's."""
    from lidcam_rt.files import file_sha256

    torch.save(models.resnet18().state_dict(), tmp_path / "w.pth")
    named = tmp_path / f"resnet18-{file_sha256(tmp_path / 'w.pth')[:8]}.pth"
    shutil.copy(tmp_path / "w.pth", named)
    for text in ("timm:resnet18", "torchvision:resnet18"):
        assert load_source(text, Request(named)).class_names[281] == "tabby"
        assert load_source(text, Request(tmp_path / "w.pth")).class_names[281] == "class 281"


@pytest.mark.parametrize(("name", "classes"), [("resnet18", 7), ("mobilenet_v2", 7), ("googlenet", 1000)])
def test_torchvision_networks_with_weights_of_other_class_counts(tmp_path, name, classes):
    options = {"init_weights": False} if name == "googlenet" else {}
    model = models.get_model(name, num_classes=classes, **options)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    source = load_source(f"torchvision:{name}", Request(tmp_path / "w.pth"))
    assert source.structure.classes == classes and source.settings.size[0] in (224, 299)


def test_a_relu_between_head_and_pooling(tmp_path):
    """SqueezeNet averages maps of its classes behind a ReLU: these are its activation maps, exactly. Where all of its
    logits lie in 0..1, as those of a network that was never trained do, they cannot be told from probabilities."""
    torch.manual_seed(0)
    model = models.squeezenet1_0(num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ExportError, match="another layer or another pooling"):
        load_source("torchvision:squeezenet1_0", Request(tmp_path / "w.pth"))
    with torch.no_grad():
        model.classifier[1].weight *= 100
    torch.save(model.state_dict(), tmp_path / "w.pth")
    structure = load_source("torchvision:squeezenet1_0", Request(tmp_path / "w.pth")).structure
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        logits = structure.features(x).mean((2, 3)) @ structure.weight.T + structure.bias
        torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-4)


RECOGNISED = {
    "timm:resnet18": lambda: timm.create_model("resnet18", num_classes=3),
    "timm:densenet121": lambda: models.densenet121(num_classes=3),
    "timm:seresnet18": lambda: timm.create_model("seresnet18"),
    "torchvision:mobilenet_v2": lambda: models.mobilenet_v2(num_classes=3),
}


@pytest.mark.parametrize("expected", RECOGNISED)
def test_a_weights_file_alone_is_recognised_by_its_tensors(tmp_path, expected):
    state = {f"module.{key}": value for key, value in RECOGNISED[expected]().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    source = load_source(str(tmp_path / "w.pth"))
    assert source.spec.name == expected and source.spec.weights == "w.pth"


def test_a_weights_file_may_state_its_architecture(tmp_path):
    import argparse

    state = timm.create_model("resnet26t", num_classes=4).state_dict()
    torch.save({"state_dict": state, "args": argparse.Namespace(model="resnet26t")}, tmp_path / "w.pth")
    assert load_source(str(tmp_path / "w.pth")).spec.name == "timm:resnet26t"


def test_a_weights_file_that_fits_several_networks_or_none_says_what_to_write(tmp_path):
    torch.save(timm.create_model("efficientnet_lite0").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ExportError, match=r"fits timm:efficientnet_lite0 and timm:tf_efficientnet_lite0.*--weights"):
        load_source(str(tmp_path / "w.pth"))
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ExportError, match=r"is not recognised. Name it: lidcam export timm:NAME --weights"):
        load_source(str(tmp_path / "w.pth"))
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(InputError, match="is an ONNX model"):
        load_source(str(tmp_path / "m.onnx"))


def test_original_files_of_convnext_and_swin_are_renamed_as_timm_does(tmp_path):
    """Their authors' names; timm has a function for each."""
    model = timm.create_model("convnext_atto", num_classes=4)
    theirs = {}
    for key, value in model.state_dict().items():
        if not key.startswith(("stages", "stem", "head")):
            theirs[key] = value
            continue
        key = key.replace("stem.", "downsample_layers.0.").replace("head.fc.", "head.").replace("head.norm.", "norm.")
        for i in range(4):
            key = key.replace(f"stages.{i}.downsample", f"downsample_layers.{i}")
            key = key.replace(f"stages.{i}.blocks", f"stages.{i}")
        for ours, other in (("conv_dw", "dwconv"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2")):
            key = key.replace(ours, other)
        theirs[key] = value
    assert theirs.keys() != model.state_dict().keys()
    torch.save({"model": theirs}, tmp_path / "w.pth")
    source = load_source("timm:convnext_atto", Request(tmp_path / "w.pth"), head="linearized")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(source.module.state_dict()[key], value)
