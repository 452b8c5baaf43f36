"""checkpoint.json: every value is checked, and the hash covers every value."""

import json

import pytest
import torch
from lidcam_training.checkpoint import CheckpointMeta, _digest, load_checkpoint, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier
from safetensors.torch import load_file, save_file

from lidcam_rt.errors import DataError, InputError, LidcamError
from lidcam_rt.files import file_sha256


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c") / "checkpoint"
    torch.manual_seed(0)
    spec = ClassifierSpec("lidcam_seresnet_small", num_classes=2)
    recipe, metrics = {"seed": 3, "optim": {"lr": 0.1 + 0.2}}, {"val_loss": float("nan"), "val_accuracy": 0.5}
    meta = CheckpointMeta(spec, ("cat", "dog"), (64, 48), recipe=recipe, metrics=metrics, theta=0.2)
    return save_checkpoint(build_classifier(spec), meta, folder)


@pytest.fixture
def written(good, tmp_path):
    """Writes changed values beside the good weights; with `sign` under a SHA-256 that fits."""
    (tmp_path / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes())

    def write(change, *, sign=True):
        record = json.loads((good / "checkpoint.json").read_text())
        change(record)
        if sign:
            record["sha256"] = _digest(record)
        (tmp_path / "checkpoint.json").write_text(json.dumps(record))
        return tmp_path

    return write


def test_what_is_saved_comes_back(good):
    read = load_checkpoint(good)
    assert read.meta.class_names == ("cat", "dog") and read.meta.size == (64, 48) and read.meta.theta == 0.2
    assert read.meta.recipe == {"seed": 3, "optim": {"lr": 0.1 + 0.2}}
    assert repr(read.meta.metrics) == "{'val_loss': nan, 'val_accuracy': 0.5}"


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(entry, (*path, key))
    else:
        yield path


def test_the_hash_covers_every_value(good, written):
    record = json.loads((good / "checkpoint.json").read_text())
    assert len(list(leaves(record))) > 30
    for path in leaves(record):

        def change(changed, path=path):
            for key in path[:-1]:
                changed = changed[key]
            changed[path[-1]] = f"{changed[path[-1]]}x"

        with pytest.raises(DataError, match=r"SHA-256|its format is"):
            load_checkpoint(written(change, sign=False))


BAD = {
    "size": [[64], [0, 64], [64, 64, 64], [64.0, 64], ["64", "64"], [1e9, 1], [10**400, 1], 64, None, [True, True]],
    "mean": [[0, 0], ["a", 0, 0], [float("nan"), 0, 0], [float("inf"), 0, 0], 3],
    "std": [[0, 1, 1], [-1, 1, 1], [float("nan"), 1, 1]],
    "interpolation": ["area", 1, None],
    "task": ["segmentation?", []],
    "percentile": [-1, 101, "98", float("nan"), True],
    "theta": [-0.1, 1.5, "x", None],
    "nwc": [1, "yes", None],
    "class_names": [[], ["a"], ["a", 2], "ab", None, {"a": 1}, ["a", "b", "c"]],
    "recipe": [3, [], "x"],
    "metrics": [{"a": "b"}, {"a": []}, 3],
    "data_fingerprint": [3, None],
    "version": [3],
    "weights_sha256": [3, "0" * 64, None],
    "format": [0, 1, "2", 2.5, None, True],
    "classifier": [
        None, 3, [], {}, {"backbone": "lidcam_seresnet_small"}, {"num_classes": 2, "surprise": 1},
        *({"backbone": "lidcam_seresnet_small", "num_classes": 2, **more} for more in (
            {"pooling": "max"}, {"tap_threshold": 2}, {"tap_threshold": "x"}, {"head": 3}, {"stride": 0},
            {"stride": "8"}, {"conv_channels": 10**9}, {"conv_channels": -1}, {"rounds": 10**9}, {"rounds": -1},
            {"branches": 3},
            {"branches": 2}, {"rounds": 1}, {"conv_channels": 7}, {"erase": 2.0}, {"num_classes": 10**9},
            {"num_classes": 2.0}, {"backbone": 3}, {"backbone": "nothing"}, {"backbone": "hf-hub:somebody/something"},
        )),
    ],
    "surprise": [1],
}  # fmt: skip


@pytest.mark.parametrize("field", BAD)
def test_values_are_checked_though_the_hash_fits(written, field):
    for value in BAD[field]:
        with pytest.raises(LidcamError) as caught:
            load_checkpoint(written(lambda record, value=value: record.update({field: value})))
        assert "checkpoint.json" in str(caught.value) or str(written) or value
        assert len(str(caught.value)) < 1000


def test_a_newer_format_says_what_to_do(written):
    with pytest.raises(DataError, match="pip install -U lidcam-rt"):
        load_checkpoint(written(lambda record: record.update(format=3)))


def test_weights_and_code_are_never_fetched_because_a_checkpoint_says_so(written):
    """`pretrained` and `weights` of its recipe are how it began; the weights are there."""
    load_checkpoint(written(lambda record: record["classifier"].update(pretrained=True, weights="/nowhere.pth")))


NO_RECORDS = [b"", b"\xff\xfe", b"null", b"[]", b"{", b'{"format": 2}', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 9999]


@pytest.mark.parametrize("content", NO_RECORDS)
def test_other_content(written, content):
    folder = written(lambda record: None)
    (folder / "checkpoint.json").write_bytes(content)
    with pytest.raises(DataError, match=r"checkpoint\.json|format"):
        load_checkpoint(folder)


def test_a_recipe_that_nests_deeply(written):
    deep = []
    for _ in range(900):
        deep = [deep]
    with pytest.raises(DataError, match="damaged"):
        load_checkpoint(written(lambda record: record.update(recipe={"a": deep})))


def test_other_weights_whose_hash_fits(written):
    folder = written(lambda record: None)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    cut = {key: value[:1] if value.ndim else value for key, value in state.items()}
    less = {key: value for key, value in state.items() if key != "backbone.stem.0.weight"}
    for content in (cut, less, {**state, "more": torch.zeros(1)}, None):
        weights.write_bytes(b"x" * 100) if content is None else save_file(content, weights)
        digest = file_sha256(weights)
        written(lambda record, digest=digest: record.update(weights_sha256=digest))
        with pytest.raises(DataError, match="not those of its classifier"):
            load_checkpoint(folder)


def test_as_many_names_as_classes():
    with pytest.raises(InputError, match="3 class_names for a classifier of 2"):
        CheckpointMeta(ClassifierSpec("lidcam_seresnet_small", 2), ("a", "b", "c"), (64, 64))
