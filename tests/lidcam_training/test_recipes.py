"""The recipes for real data, one step each on folders of the exact layout; schedules, precision, processes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from lidcam_bench.data import open_data
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.fit import fit
from lidcam_training.module import ClassifierModule
from lidcam_training.progress import TimeLeft
from lidcam_training.recipe import read_recipe
from PIL import Image

from lidcam_rt.errors import InputError

HERE = ["accelerator=cpu", "precision=32-true", "model.pretrained=false", "data.workers=0", "epochs=1"]
SMALL = ["data.size=64", "data.crop=48", "data.batch_size=2", "optim.accumulate=2"]


def photo(file, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 40, 3)).astype(np.uint8)).save(file)


def text(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def note(file, name):
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
    text(file, f"<annotation><object><name>{name}</name>{box}</object></annotation>")


def imagenet(root):
    text(root / "LOC_synset_mapping.txt", "n01 tench\nn02 goldfish\n")
    for number in range(4):
        name = f"n0{1 + number % 2}"
        photo(root / f"ILSVRC/Data/CLS-LOC/train/{name}/{name}_{number}.JPEG", number)
    photo(root / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG")
    note(root / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", "n02")
    return f"imagenet:{root}"


def det(root):
    text(root / "ILSVRC/devkit/data/map_det.txt", "n9 2 airplane\nn8 1 accordion\n")
    text(root / "ILSVRC/ImageSets/DET/train.txt", "".join(f"a/{i} {i + 1}\n" for i in range(4)))
    for number in (1, 2):
        lines = "".join(f"a/{i} {1 if i % 2 == number - 1 else -1}\n" for i in range(4))
        text(root / f"ILSVRC/ImageSets/DET/train_{number}.txt", lines)
    text(root / "ILSVRC/ImageSets/DET/val.txt", "v 1\n")
    note(root / "ILSVRC/Annotations/DET/val/v.xml", "n9")
    for place in (*(f"train/a/{i}" for i in range(4)), "val/v"):
        photo(root / f"ILSVRC/Data/DET/{place}.JPEG")
    return f"ilsvrc-det:{root}"


def cub(root):
    base = root / "CUB_200_2011"
    text(base / "images.txt", "".join(f"{i} 00{1 + i % 2}.B/{i}.jpg\n" for i in range(1, 6)))
    text(base / "image_class_labels.txt", "".join(f"{i} {1 + i % 2}\n" for i in range(1, 6)))
    text(base / "classes.txt", "1 001.A\n2 002.B\n")
    text(base / "train_test_split.txt", "".join(f"{i} {int(i < 5)}\n" for i in range(1, 6)))
    text(base / "bounding_boxes.txt", "".join(f"{i} 1.0 2.0 30.0 40.0\n" for i in range(1, 6)))
    for i in range(1, 6):
        photo(base / f"images/00{1 + i % 2}.B/{i}.jpg")
    return f"cub:{root}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout", "more"),
    [
        ("imagenet_seresnet50_tap", imagenet, ()),
        ("ilsvrc_det_seresnet50_tap", det, ()),
        ("cub_vgg16_tap", cub, ()),
    ],
)
def test_recipes_of_real_data_take_a_step(tmp_path, name, layout, more):
    source = layout(tmp_path / "data")
    chosen = read_recipe(name, [f"data.source={source}", *HERE, *SMALL, *more])
    fit(chosen, tmp_path / "run", progress=False)
    read = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert read.model.stride == 16
    assert (read.percentile, read.tap_threshold) == ((90, 0.1) if "cub" in name else (98, 0.05))
    assert read.task == ("multilabel" if "det" in name else "localization")
    assert 0 <= read.metrics["val_accuracy"] <= 1
    if name != "cub_vgg16_tap":
        assert any(file.name.startswith("events") for file in (tmp_path / "run").rglob("*"))  # TensorBoard


def module(clutter, tmp_path, *more):
    chosen = read_recipe("clutter_fashion", [f"data.source=clutter-fashion:{clutter}", *more])
    return ClassifierModule(chosen, open_data(chosen.data.source, "train"), open_data(chosen.data.source, "val"),
                            tmp_path)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "steps", "shares"),
    [
        (("optim.schedule=constant",), (0, 39), (1, 1)),
        (("optim.schedule=cosine",), (0, 20, 39), (1, 0.5, 0.0015)),
        (("optim.schedule=cosine", "optim.warmup_epochs=1"), (0, 4, 9, 10, 25), (1 / 11, 5 / 11, 10 / 11, 1, 0.5)),
        (("optim.schedule=steps", "optim.milestones=[2,3]"), (0, 19, 20, 29, 30), (1, 1, 0.1, 0.1, 0.01)),
        (
            ("optim.schedule=cosine", "method.name=ae", "model.logit_scale=1"),
            (0, 10, 19, 20, 30),
            (1, 0.5, 0.006, 1, 0.5),
        ),
    ],
)
def test_schedules(clutter, tmp_path, more, steps, shares):
    """Four epochs of ten steps; the chain of AE begins again with its second classifier."""
    made = module(clutter, tmp_path, "epochs=4", "optim.lr=0.5", "optim.warmup_epochs=0", *more)
    made._trainer = type("T", (), {"estimated_stepping_batches": 40})()
    schedule = made.configure_optimizers()["lr_scheduler"]["scheduler"]
    for step, share in zip(steps, shares, strict=True):
        assert schedule.lr_lambdas[0](step) == pytest.approx(share, abs=1e-3)


def test_the_backbone_learns_at_its_own_rate_and_norms_do_not_decay(clutter, tmp_path):
    made = module(clutter, tmp_path, "optim.lr=0.5", "optim.pretrained_lr_scale=0.1", "optim.weight_decay=0.2")
    made._trainer = type("T", (), {"estimated_stepping_batches": 40})()
    groups = made.configure_optimizers()["optimizer"].param_groups
    rates = {id(p): (g["initial_lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    named = dict(made.model.named_parameters())
    assert rates[id(named["head.weight"])] == (0.5, 0.2)
    assert rates[id(named["head.bias"])] == (0.5, 0.0)
    assert rates[id(named["backbone.stem.0.weight"])] == (0.05, 0.2)
    assert rates[id(named["backbone.stem.1.weight"])] == (0.05, 0.0)
    assert len(rates) == len(named)


def test_label_smoothing_and_binary_loss_against_torch(clutter, tmp_path):
    made = module(clutter, tmp_path, "optim.label_smoothing=0.1")
    logits, target = torch.randn(4, 10), torch.tensor([1, 0, 9, 3])
    want = -(0.9 * logits.log_softmax(1)[range(4), target] + 0.1 * logits.log_softmax(1).mean(1)).mean()
    torch.testing.assert_close(made.loss(logits, target), want)
    made = module(clutter, tmp_path, "optim.loss=bce")
    hot = torch.nn.functional.one_hot(target, 10).double()
    p = logits.double().sigmoid()
    want = -(hot * p.log() + (1 - hot) * (1 - p).log()).mean()
    torch.testing.assert_close(made.loss(logits, target).double(), want, rtol=1e-5, atol=1e-6)


def fast(clutter, *more):
    overrides = [f"data.source=clutter-fashion:{clutter}", "data.size=32", "data.batch_size=16", *more]
    return read_recipe("clutter_fashion", overrides)


@pytest.mark.slow
def test_bf16_trains_and_stops_early_and_stays_stopped(tmp_path, clutter):
    chosen = fast(clutter, "precision=bf16-mixed", "epochs=9", "patience=1", "optim.lr=1e-9", "deterministic=true")
    fit(chosen, tmp_path / "r", progress=False)
    rows = (tmp_path / "r" / "metrics.csv").read_text()
    assert len(rows.splitlines()) < 9
    stamp = (tmp_path / "r" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    fit(chosen, tmp_path / "r", progress=False)
    assert (tmp_path / "r" / "metrics.csv").read_text() == rows
    assert (tmp_path / "r" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_the_bar_tells_the_time_left(tmp_path, clutter, monkeypatch, capsys):
    seen = []
    metrics = TimeLeft.get_metrics
    monkeypatch.setattr(TimeLeft, "get_metrics", lambda *a: seen.append(metrics(*a)) or seen[-1])
    fit(fast(clutter, "epochs=2"), tmp_path / "r")
    assert seen[-1]["left"] == "0:00:00"
    assert {"loss", "val_accuracy"} <= set(seen[-1])


@pytest.mark.slow
def test_torchrun_with_two_processes_is_one_run(tmp_path, clutter):
    """Gloo on the CPU; every validation picture counts once, one process writes."""
    overrides = [f"data.source=clutter-fashion:{clutter}", "data.size=32", "data.batch_size=8", "epochs=1"]
    overrides += ["devices=2", "optim.ema=0.5", "save_steps=4", "data.jitter=0"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch += ["--no-python", "--"]  # without -- torchrun takes --output for an option of its own
    command = [sys.executable, "-c", "from lidcam_cli.main import main; main()", "train", "clutter_fashion"]
    done = subprocess.run(
        [*launch, *command, *overrides, "--output", str(tmp_path / "r")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("checkpoint:") == 1
    read = load_checkpoint(tmp_path / "r" / "checkpoint")
    count = read.metrics["val_accuracy"] * 40
    assert count == pytest.approx(round(count), abs=1e-4)
    assert (tmp_path / "r" / "metrics.csv").read_text().count("\n") == 2
    with pytest.raises(InputError, match="torchrun started 3 processes"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "3")
        fit(fast(clutter), tmp_path / "s", progress=False)


@pytest.mark.parametrize("workers", [-1, 99_999])
def test_more_processes_than_a_machine_takes(workers):
    with pytest.raises(InputError, match=r"data\.workers is .*: give 0 to 256 processes"):
        read_recipe("clutter_fashion", [f"data.workers={workers}"])
