import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.fit import fit
from lidcam_training.module import ClassifierModule, TrainingError
from lidcam_training.recipe import read_recipe
from lidcam_training.tensor_file import read_tensor_file
from safetensors.torch import load_file

from lidcam_rt.errors import DataError, InputError

pytestmark = pytest.mark.slow  # not in make quick


def recipe(clutter, *more):
    return read_recipe(
        None,
        [
            f"data.source=clutter-fashion:{clutter}",
            "model.backbone=lidcam_seresnet_small",
            "data.size=32",
            "data.batch_size=16",
            "accelerator=cpu",
            "epochs=2",
            *more,
        ],
    )


def weights(run):
    return load_file(run / "checkpoint" / "model.safetensors")


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_leaves_scores_and_a_checkpoint(tmp_path, clutter):
    fit(
        recipe(clutter, "optim.ema=0.9", "optim.accumulate=2", "optim.clip_norm=1"),
        tmp_path / "r",
        progress=False,
    )
    read = load_checkpoint(tmp_path / "r" / "checkpoint")
    assert len(read.class_names) == 10
    assert read.recipe["optim"]["ema"] == 0.9
    assert {"val_accuracy", "val_pxap_nwc", "train_loss"} <= set(read.metrics)
    assert (tmp_path / "r" / "best" / "model.safetensors").exists()
    rows = (tmp_path / "r" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3
    assert not list((tmp_path / "r").glob(".*tmp*"))


def test_the_same_seed_gives_the_same_weights_with_and_without_workers(tmp_path, clutter):
    for name, more in (("a", ()), ("b", ("data.workers=2",)), ("c", ("seed=1",))):
        fit(
            recipe(clutter, "epochs=1", "data.jitter=0.3", "data.crop=28", *more),
            tmp_path / name,
            progress=False,
        )
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


_KILLED = """
import os, signal, sys
from pathlib import Path
import lidcam_training.checkpoint as tensors
import lidcam_training.fit as module
import lidcam_training.module as training
import lidcam_training.state as states
from lidcam_training.recipe import read_recipe

moment, run, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def cut(file, size):
    open(file, "r+b").truncate(size)
    die()

step, save, write = training.ClassifierModule.training_step, module._Keeper._save, states.write_tensor_file
save_tensors, rename = tensors.save_tensors, Path.rename

def training_step(self, batch, index):
    if moment.startswith("step") and (self.current_epoch, index) == (1, int(moment[4:])):
        die()
    if moment == "epoch" and self.current_epoch == 1 and index == 3:
        die()
    return step(self, batch, index)

def save_half(state, file):
    save_tensors(state, file)
    cut(file, 1000)

def rename_once(self, target):
    rename(self, target)
    if str(target).endswith(".old"):
        die()

def keep(self, model, scores):
    if model.current_epoch == 1 and moment == "weights":
        tensors.save_tensors = save_half
    if model.current_epoch == 1 and moment == "rename":
        Path.rename = rename_once
    save(self, model, scores)

def write_state(file, value):
    write(file, value)
    if moment == "state" and value["epoch"] == 1:
        cut(file, 5000)
    if moment == "mid" and value["global_step"] == 16:
        cut(file, 5000)

training.ClassifierModule.training_step = training_step
module._Keeper._save = keep
states.write_tensor_file = write_state
module.fit(read_recipe(None, arguments), run, progress=False)
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, clutter):
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    fit(recipe(clutter, "epochs=3", "optim.ema=0.9", "method.name=adl"), run, progress=False)
    return run


@pytest.mark.parametrize("moment", ["epoch", "weights", "rename", "state"])
def test_kill_and_resume_gives_the_weights_of_an_unbroken_run(tmp_path, clutter, unbroken, moment):
    chosen = recipe(clutter, "epochs=3", "optim.ema=0.9", "method.name=adl")
    arguments = [
        f"data.source=clutter-fashion:{clutter}",
        "model.backbone=lidcam_seresnet_small",
        "data.size=32",
        "data.batch_size=16",
        "accelerator=cpu",
        "epochs=3",
        "optim.ema=0.9",
        "method.name=adl",
    ]
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", _KILLED, moment, str(run), *arguments], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    load_checkpoint(run / "checkpoint")  # what is there is whole
    assert json.loads((run / "run.json").read_text())["recipe"]["epochs"] == 3
    fit(chosen, run, progress=False)
    assert same(weights(run), weights(unbroken))
    assert (run / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()


@pytest.mark.parametrize(("moment", "left"), [("step7", [6, 7, 8, 9]), ("mid", [4, 5, 6, 7, 8, 9])])
def test_kill_within_an_epoch_goes_on_from_its_last_saved_step(tmp_path, clutter, monkeypatch, moment, left):
    """Ten batches an epoch, saved every two steps; `mid` dies while it writes the state after batch 5 of the second."""
    more = ("optim.ema=0.9", "save_steps=2", "data.workers=2", "data.jitter=0.2", "method.name=has")
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    fit(recipe(clutter, *more), unbroken, progress=False)
    overrides = ["model.backbone=lidcam_seresnet_small", "data.size=32", "data.batch_size=16", "accelerator=cpu"]
    overrides += ["epochs=2", f"data.source=clutter-fashion:{clutter}", *more]
    done = subprocess.run([sys.executable, "-c", _KILLED, moment, str(run), *overrides], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    steps = []
    step = ClassifierModule.training_step
    monkeypatch.setattr(
        ClassifierModule, "training_step", lambda self, batch, index: (steps.append(index), step(self, batch, index))[1]
    )
    fit(recipe(clutter, *more), run, progress=False)
    assert steps == left
    assert same(weights(run), weights(unbroken))
    assert (run / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()


def test_kill_at_an_unplanned_moment(tmp_path, clutter, unbroken):
    run = tmp_path / "run"
    command = [sys.executable, "-c", _KILLED, "never", str(run)]
    command += [
        f"data.source=clutter-fashion:{clutter}",
        "model.backbone=lidcam_seresnet_small",
        "data.size=32",
    ]
    command += ["data.batch_size=16", "accelerator=cpu", "epochs=3", "optim.ema=0.9", "method.name=adl"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (run / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    fit(recipe(clutter, "epochs=3", "optim.ema=0.9", "method.name=adl"), run, progress=False)
    assert same(weights(run), weights(unbroken))


def test_code_in_a_state_that_somebody_planted_does_not_run(tmp_path, clutter):
    run, planted = tmp_path / "run", tmp_path / "planted"
    fit(recipe(clutter, "epochs=1"), run, progress=False)
    (run / "state.safetensors").write_bytes(f"cos\nsystem\n(S'touch {planted}'\ntR.".encode())  # a pickle
    with pytest.raises(DataError, match=r"state\.safetensors cannot be read"):
        fit(recipe(clutter, "epochs=1"), run, progress=False)
    assert not planted.exists()


def test_unreadable_pictures_are_counted_and_named(tmp_path, clutter):
    import shutil

    shutil.copytree(clutter, tmp_path / "d")
    bad = tmp_path / "d" / "train" / "000003.png"
    bad.write_bytes(b"not a picture")
    (tmp_path / "d" / "train" / "000004.png").unlink()
    fit(recipe(tmp_path / "d", "epochs=1"), tmp_path / "r", progress=False)
    assert "000003.png" in (tmp_path / "r" / "skipped.txt").read_text()
    assert (tmp_path / "r" / "metrics.csv").read_text().splitlines()[1].startswith("0,2,")
    with pytest.raises(DataError, match="max_skipped"):
        fit(recipe(tmp_path / "d", "epochs=1", "data.max_skipped=0"), tmp_path / "s", progress=False)


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(tmp_path, clutter):
    with pytest.raises(TrainingError, match=r"nonfinite\.safetensors"):
        fit(recipe(clutter, "optim.lr=1e38", "optim.weight_decay=0"), tmp_path / "r", progress=False)
    saved = read_tensor_file(tmp_path / "r" / "nonfinite.safetensors")
    assert saved["image"].shape[1:] == (3, 32, 32)
    assert all(Path(file).exists() for file in saved["files"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["modle.pooling=gap"], "did you mean model.pooling"),
        (["model.pooling=max"], "max"),
        (["epochs=many"], "many"),
        (["epochs=0"], "at least 1"),
        (["optim.lr"], "key=value"),
        (["data.crop=400"], "data.crop"),
    ],
)
def test_bad_recipes(overrides, words):
    with pytest.raises(InputError, match=words):
        read_recipe(None, overrides)


def test_bad_recipe_files(tmp_path):
    with pytest.raises(InputError, match="clutter_fashion"):
        read_recipe("nothing")
    (tmp_path / "r.yaml").write_text("model: [")
    with pytest.raises(InputError, match="not YAML"):
        read_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("optim: {lr: fast}")
    with pytest.raises(InputError, match="fast"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "clutter_fashion",
        "stamps_lite0",
        "imagenet_seresnet50_tap",
        "ilsvrc_det_seresnet50_tap",
        "cub_vgg16_tap",
    ],
)
def test_shipped_recipes_are_valid(name):
    read = read_recipe(name, ["seed=3"])
    assert read.seed == 3
    if name == "imagenet_seresnet50_tap":
        assert read.data.batch_size * read.optim.accumulate == 210
        assert (read.data.size, read.data.crop, read.model.tap_threshold, read.pas.percentile) == (
            384,
            336,
            0.05,
            98,
        )


def test_wrong_class_count_and_another_recipe_in_the_folder(tmp_path, clutter):
    with pytest.raises(InputError, match="num_classes is 7, but the data have 10"):
        fit(recipe(clutter, "model.num_classes=7"), tmp_path / "r", progress=False)
    chosen = recipe(clutter, "epochs=1", "data.limit=16")
    fit(chosen, tmp_path / "s", progress=False)
    with pytest.raises(InputError, match=r"another recipe .*optim"):
        changed = dataclasses.replace(chosen, optim=dataclasses.replace(chosen.optim, lr=0.3))
        fit(changed, tmp_path / "s", progress=False)
