"""Several labels per picture: losses against torch and a literal form, scores against scikit-learn, sampling, runs."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_bench.data import open_data
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.data.loader import EpochSampler, Pictures, balanced_weights
from lidcam_training.data.scenes import make_scenes
from lidcam_training.fit import fit
from lidcam_training.label_scores import label_scores
from lidcam_training.losses import UNKNOWN, multilabel_loss
from lidcam_training.recipe import read_recipe
from sklearn.metrics import average_precision_score, f1_score

from lidcam_rt.errors import InputError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("scenes") / "d"
    make_scenes(folder, train=48, val=24, test=8, size=48, source=sources[0], backgrounds=sources[1])
    return folder


def batch(seed=0, unknown=0.0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(6, 5, generator=generator)
    target = (torch.rand(6, 5, generator=generator) < 0.4).float()
    target[torch.rand(6, 5, generator=generator) < unknown] = UNKNOWN
    return logits, target


def test_where_all_is_known_the_losses_are_torchs():
    logits, target = batch()
    want = torch.nn.functional.multilabel_soft_margin_loss(logits, target)
    torch.testing.assert_close(multilabel_loss(logits, target, "soft_margin"), want)
    torch.testing.assert_close(multilabel_loss(logits, target, "bce"), want)
    torch.testing.assert_close(multilabel_loss(logits, target, "asl", gamma_negative=0, shift=0), want)


def test_the_asymmetric_loss_is_the_papers():
    """Ridnik et al., equations 4 to 6: p_m = max(p - m, 0)."""
    logits, target = batch(1)
    p = logits.double().sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    each = torch.where(target > 0, (1 - p) ** 1 * p.log(), shifted**4 * (1 - shifted).log())
    got = multilabel_loss(logits, target, "asl", gamma_positive=1.0)
    torch.testing.assert_close(got.double(), -each.mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["bce", "soft_margin", "asl"])
def test_unknown_classes_have_no_gradient_and_no_share(name):
    logits, target = batch(2, unknown=0.3)
    logits.requires_grad_()
    loss = multilabel_loss(logits, target, name)
    loss.backward()
    assert (logits.grad[target == UNKNOWN] == 0).all() and (logits.grad[target > 0] != 0).all()
    moved = torch.where(target == UNKNOWN, logits.detach() + 9, logits.detach())
    torch.testing.assert_close(multilabel_loss(moved, target, name), loss.detach())
    assert multilabel_loss(logits, torch.full_like(target, UNKNOWN), name) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans())
def test_scores_against_scikit_learn(seed, pictures, ties):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(pictures, 3)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    target = rng.choice([0.0, 1.0, UNKNOWN], (pictures, 3)).astype(np.float32)
    made = label_scores(logits, target)
    for k in range(3):
        known = target[:, k] >= 0
        true = target[known, k] > 0
        if not true.any():
            assert np.isnan(made.average_precision[k]) and np.isnan(made.f1[k])
            continue
        assert made.average_precision[k] == pytest.approx(average_precision_score(true, logits[known, k]))
        assert made.f1[k] == pytest.approx(f1_score(true, logits[known, k] > 0))


def test_balanced_sampling_draws_rare_classes_as_often_as_common_ones(scenes):
    import dataclasses

    images = open_data(f"scenes:{scenes}", "train")
    records = [dataclasses.replace(r, labels=(0,) if i < 40 else (1,)) for i, r in enumerate(images)]
    weights = balanced_weights(dataclasses.replace(images, records=tuple(records)))
    sampler = EpochSampler(48, 0, weights=weights)
    drawn = []
    for epoch in range(200):
        sampler.set_epoch(epoch)
        drawn += [index for _, index in sampler]
    assert np.mean(np.array(drawn) < 40) == pytest.approx(0.5, abs=0.03)
    sampler.set_epoch(3)
    again = EpochSampler(48, 0, weights=weights)
    again.set_epoch(3)
    assert list(sampler) == list(again)
    again.resume(3, 10)
    assert list(again) == list(sampler)[10:]


def test_what_the_data_set_does_not_say_is_unknown_or_absent(scenes):
    import dataclasses

    images = open_data(f"scenes:{scenes}", "train")
    first = dataclasses.replace(images.records[0], labels=(2,), unknown=(5,))
    images = dataclasses.replace(images, records=(first,))
    for choice, value in (("ignore", UNKNOWN), ("absent", 0.0)):
        options = read_recipe("scenes_lite0", [f"data.unknown={choice}"]).data
        target = Pictures(images, options, train=False)[0, 0]["target"]
        assert target[5] == value and target[2] == 1 and target.abs().sum() == 1 + abs(value)


def recipe(scenes, *more):
    small = ["model.backbone=lidcam_seresnet_small", "model.weights=null", "model.stride=4", "data.size=48", "epochs=2"]
    return read_recipe("scenes_lite0", [f"data.source=scenes:{scenes}", "data.batch_size=8", *small, *more])


@pytest.mark.slow
def test_a_run_scores_every_class(tmp_path, scenes):
    fit(recipe(scenes, "optim.loss=asl", "data.sampling=balanced"), tmp_path / "r", progress=False)
    read = load_checkpoint(tmp_path / "r" / "checkpoint")
    assert read.task == "multilabel"
    assert {"val_map", "val_f1", "val_pxap_nwc", "val_loss"} <= set(read.metrics)
    rows = list(csv.DictReader((tmp_path / "r" / "val_classes.csv").open()))
    assert [row["class"] for row in rows] == list(read.class_names)
    values = [float(row["average_precision"]) for row in rows]
    assert np.nanmean(values) == pytest.approx(read.metrics["val_map"], abs=1e-3)
    # the same numbers from the checkpoint, by scikit-learn
    images = open_data(f"scenes:{scenes}", "val")
    pictures = Pictures(images, recipe(scenes).data, train=False)
    x = torch.stack([pictures[0, i]["image"] for i in range(len(images))]).float()
    with torch.no_grad():
        logits = read.model((x - 127) / 128).numpy()
    target = np.stack([pictures[0, i]["target"].numpy() for i in range(len(images))])
    has = [k for k in range(10) if (target[:, k] > 0).any()]
    want = [average_precision_score(target[target[:, k] >= 0, k], logits[target[:, k] >= 0, k]) for k in has]
    assert read.metrics["val_map"] == pytest.approx(np.mean(want), abs=1e-4)


def test_wrong_options_of_the_loss():
    with pytest.raises(InputError, match="asl_shift"):
        read_recipe("scenes_lite0", ["optim.asl_shift=1"])
    with pytest.raises(InputError, match="loss"):
        read_recipe("scenes_lite0", ["optim.loss=hinge"])
