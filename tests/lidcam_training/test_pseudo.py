"""Pseudo labels against literal forms of irn's code, scipy.sparse and torchmetrics; killed runs; odd pictures."""

import dataclasses
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.sparse
import scipy.spatial
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_bench.data import open_data
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.data.scenes import make_scenes
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.pseudo.labels import class_maps, label_map, normalised, scores
from lidcam_training.pseudo.maps import SplitMaps
from lidcam_training.pseudo.network import _Artifact, averaged_cams, open_network
from lidcam_training.pseudo.options import PseudoOptions
from lidcam_training.pseudo.run import pseudo_labels, read_labels
from lidcam_training.pseudo.search import choose_settings, score_options
from lidcam_training.pseudo.walk import offsets, principal_features, random_walk
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex
from typer.testing import CliRunner

from lidcam_rt.augment import Augment
from lidcam_rt.crf import DenseCRF
from lidcam_rt.errors import DataError, InputError, OutputError

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
FAST = PseudoOptions(scales=(1.0,), flip=False, crf=None)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("scenes") / "d"
    make_scenes(folder, train=20, val=8, test=4, size=48, source=sources[0], backgrounds=sources[1])
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    spec = ClassifierSpec(backbone="lidcam_seresnet_small", num_classes=10)
    model = build_classifier(spec).eval()
    torch.nn.init.normal_(model.head.weight, std=1.0)
    meta = CheckpointMeta(spec, CLASSES, (48, 48), task="multilabel")
    return save_checkpoint(model, meta, tmp_path_factory.mktemp("c") / "checkpoint")


def made(seed, classes=3, size=(20, 30)):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    maps = cv2.GaussianBlur(rng.random((*size, classes)).astype(np.float32), (0, 0), 3).reshape(*size, classes)
    maps = maps.transpose(2, 0, 1) - maps.min()
    return picture, np.ascontiguousarray(maps / maps.max()), rng


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(1, 100))
def test_maps_are_divided_by_their_percentile_and_clipped(seed, classes, percentile):
    rng = np.random.default_rng(seed)
    cams = rng.normal(size=(classes, 5, 7)).astype(np.float32)
    for cam, plane in zip(cams, normalised(cams, (28, 20), percentile), strict=True):
        large = np.maximum(cv2.resize(cam, (28, 20)), 0)
        standard = np.percentile(large, percentile) or large.max()
        expected = np.minimum(large / standard, 1) if standard > 0 else np.zeros_like(large)
        np.testing.assert_allclose(plane, expected, rtol=1e-5)
    assert normalised(cams, (28, 20), 100.0).max() == 1 or (cams <= 0).all()


@pytest.mark.parametrize("crf", [None, "irn"])
def test_confident_labels_are_irns(crf):
    """irn/step/cam_to_ir_label.py, line by line: padded with the two background scores, CRF, then the merge."""
    picture, cams, _ = made(3)
    keys = np.array([0, 2, 5, 9])  # irn: np.pad(cam_dict['keys'] + 1, (1, 0))

    def labels_at(background):
        padded = np.pad(cams, ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=background)
        found = np.argmax(padded, axis=0)
        return keys[DenseCRF(crf).refine(picture, found) if crf else found]

    fg_conf, bg_conf = labels_at(0.7), labels_at(0.45)
    conf = fg_conf.copy()
    conf[fg_conf == 0] = 255
    conf[bg_conf + fg_conf == 0] = 0
    got = label_map(picture, cams, [1, 4, 8], PseudoOptions(confident=(0.7, 0.45), crf=crf))
    np.testing.assert_array_equal(got, conf)
    assert {0, 255} < set(np.unique(got))


def test_backgrounds_and_the_crf_are_the_rules():
    picture, maps, _ = made(5)
    power = scores(maps, PseudoOptions(background="power", alpha=3))
    np.testing.assert_allclose(power[0], (1 - maps.max(0)) ** 3, rtol=1e-5)
    options = PseudoOptions(level=0.5, crf=None)
    expected = np.where(maps.max(0) > 0.5, np.array([7, 1, 3])[maps.argmax(0)] + 1, 0)
    np.testing.assert_array_equal(label_map(picture, maps, [7, 1, 3], options), expected)
    p = np.concatenate([np.full((1, *maps.shape[1:]), 0.5, np.float32), maps])
    refined = DenseCRF("psa").refine(picture, p / p.sum(0)).argmax(0)
    got = label_map(picture, maps, [7, 1, 3], dataclasses.replace(options, crf="psa"))
    np.testing.assert_array_equal(got, np.array([0, 8, 2, 4])[refined])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_the_walk_is_the_power_of_a_sparse_matrix(seed, height, width, radius, with_features):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    maps = rng.random((2, height, width)).astype(np.float32)
    n = height * width
    y, x = np.divmod(np.arange(n), width)
    near = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 <= radius**2
    colours = picture.reshape(n, 3).astype(float)
    square = ((colours[:, None] - colours) ** 2).sum(-1) / 40.0**2
    features = rng.normal(size=(3, height, width)).astype(np.float32) if with_features else None
    if features is not None:
        f = features.reshape(3, n).T.astype(float)
        square += ((f[:, None] - f) ** 2).sum(-1) / 0.7**2
    affinity = np.exp(-square / 2)
    matrix = scipy.sparse.csr_matrix(np.where(near, affinity, 0))
    walk = scipy.sparse.diags(1 / np.asarray(matrix.sum(1)).ravel()) @ matrix
    expected = maps.reshape(2, n).T.astype(float)
    for _ in range(3):
        expected = walk @ expected
    got = random_walk(picture, maps, features=features, radius=radius, sigma=40.0, feature_sigma=0.7, steps=3)
    np.testing.assert_allclose(got, expected.T.reshape(2, height, width), rtol=1e-4, atol=1e-6)
    assert len(offsets(radius)) * 2 + 1 == (np.hypot(*np.mgrid[-4:5, -4:5]) <= radius).sum()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4), st.integers(1, 4))
def test_principal_features_keep_the_distances_of_cells(seed, channels, height, width):
    features = np.random.default_rng(seed).normal(size=(channels, height, width)).astype(np.float32)
    cells = features.reshape(channels, -1).T.astype(float)
    cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    wanted = scipy.spatial.distance.pdist(cells)
    whole = principal_features(features, 99)
    got = scipy.spatial.distance.pdist(whole.reshape(len(whole), -1).T)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    few = principal_features(features, 2)
    assert len(few) <= 2
    np.testing.assert_allclose(few, whole[: len(few)])


def test_the_walk_takes_features_of_stride_4_and_an_artifact_has_none(checkpoint, scenes, tmp_path):
    torch.manual_seed(0)
    spec = ClassifierSpec(backbone="mobilenetv2_100", num_classes=10)
    meta = CheckpointMeta(spec, CLASSES, (48, 48), task="multilabel")
    timms = open_network(save_checkpoint(build_classifier(spec).eval(), meta, tmp_path / "timm"))
    images = open_data(f"scenes:{scenes}", "val")
    pictures = [np.asarray(Image.open(record.image)) for record in images][:2]
    assert [entry.shape[1:] for entry in timms.descriptors(pictures)] == [(12, 12)] * 2
    ours = open_network(checkpoint)
    x = torch.from_numpy(np.stack(pictures))
    np.testing.assert_array_equal(ours.descriptors(pictures), ours.features(x.numpy()).detach().numpy())
    walked = {}
    for walk in ("none", "colours", "features"):
        options = dataclasses.replace(FAST, walk=walk)
        pseudo_labels(timms, images, tmp_path / walk, options)
        walked[walk] = [read_labels(tmp_path / walk / f"{record.image.stem}.png") for record in images]
    assert all(any((a != b).any() for a, b in zip(walked[x], walked[y], strict=True))
               for x, y in (("none", "colours"), ("colours", "features")))  # fmt: skip
    artifact = _Artifact.__new__(_Artifact)
    with pytest.raises(InputError, match="an artifact has no features"):
        artifact.descriptors(pictures)
    blind = open_network(checkpoint)
    blind.gives_features = False
    with pytest.raises(InputError, match="an artifact has no features"):
        pseudo_labels(blind, images, tmp_path / "blind", dataclasses.replace(FAST, walk="features"))
    assert not (tmp_path / "blind").exists()
    with pytest.raises(InputError, match="none, colours or features"):
        PseudoOptions(walk="yes")


def test_views_are_averaged_upright():
    rng = np.random.default_rng(0)
    maps = [rng.random((2, 3, 4, 6)).astype(np.float32), rng.random((2, 3, 8, 12)).astype(np.float32)]
    got = Augment((0.5, 1.0), flip=True).merge(maps)
    expected = np.zeros((3, 8, 12))
    for part in maps:
        for view, flipped in ((part[0], False), (part[1], True)):
            upright = view[..., ::-1] if flipped else view
            expected += np.stack([cv2.resize(np.ascontiguousarray(plane), (12, 8)) for plane in upright]) / 4
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    for wrong in ((), (0.0,), (9.0,)):
        with pytest.raises(InputError, match="scales"):
            Augment(wrong)
    with pytest.raises(InputError, match="flip, ms-flip"):
        Augment.of("many")


def test_a_batch_of_views_is_each_view_alone(checkpoint, scenes):
    network = open_network(checkpoint)
    pictures = [np.asarray(Image.open(r.image)) for r in list(open_data(f"scenes:{scenes}", "val"))[:3]]
    ids = [(1, 4), (), (9,)]
    together = averaged_cams(network, pictures, ids, Augment((0.5, 1.0), flip=True), nwc=False)
    assert together[1].shape[0] == 0
    for i in (0, 2):
        single = []
        for side in (24, 48):
            x = np.asarray(Image.fromarray(pictures[i]).resize((side, side), Image.Resampling.BILINEAR))
            parts = [network.cams(np.ascontiguousarray(v)[None], [ids[i]], nwc=False)[0] for v in (x, x[:, ::-1])]
            single += [cv2.resize(np.ascontiguousarray(m.transpose(1, 2, 0)), (12, 12)).reshape(12, 12, -1)
                       for m in (parts[0], parts[1][..., ::-1])]  # fmt: skip
        np.testing.assert_allclose(together[i], np.mean(single, 0).transpose(2, 0, 1), rtol=1e-3, atol=1e-4)


def test_mean_iou_is_torchmetrics(checkpoint, scenes, tmp_path):
    images = open_data(f"scenes:{scenes}", "train")
    results = pseudo_labels(open_network(checkpoint), images, tmp_path / "p", FAST)
    labels = [read_labels(tmp_path / "p" / f"{r.image.stem}.png") for r in images]
    true = [r.truth().label_map() for r in images]
    metric = MulticlassJaccardIndex(11, average=None, ignore_index=255)
    metric.update(torch.from_numpy(np.concatenate([x.ravel() for x in labels]).astype(np.int64)),
                  torch.from_numpy(np.concatenate([x.ravel() for x in true]).astype(np.int64)))  # fmt: skip
    occurs = sorted({int(v) for x in (*labels, *true) for v in np.unique(x)} - {255})
    assert results["truth"]["mean_iou"] == pytest.approx(100 * float(metric.compute()[occurs].mean()), abs=1e-3)
    for record, found in zip(images, labels, strict=True):
        assert {int(v) for v in np.unique(found)} <= {0, *(k + 1 for k in record.labels)}


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (200, 2)])
@pytest.mark.parametrize("crf", [None, "psa"])
def test_pictures_of_one_pixel_and_of_extreme_shape(checkpoint, size, crf):
    network = open_network(checkpoint)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    options = PseudoOptions(crf=crf, walk="colours")
    cams = averaged_cams(network, [picture], [(2, 3)], options.views, nwc=True)[0]
    found = label_map(picture, class_maps(picture, cams, options), (2, 3), options)
    assert found.shape == size and set(np.unique(found)) <= {0, 3, 4}


def test_pictures_of_no_class_and_truth_of_255(checkpoint, scenes, tmp_path):
    images = open_data(f"scenes:{scenes}", "val")
    records = (dataclasses.replace(images.records[0], labels=()), *images.records[1:3])
    Image.new("L", (48, 48), 255).save(records[1].mask.path)
    images = dataclasses.replace(images, records=records)
    results = pseudo_labels(open_network(checkpoint), images, tmp_path / "p", FAST)
    assert not read_labels(tmp_path / "p" / "000000.png").any()
    assert "000001.png" not in results["picture_iou"] and len(results["picture_iou"]) == 2


_KILLED = """
import os, signal, sys
from pathlib import Path
import lidcam_training.pseudo.maps as maps
import lidcam_training.pseudo.run as run
from lidcam_bench.data import open_data
from lidcam_cli.runs import RunFolder
from lidcam_training.pseudo.network import open_network
from lidcam_training.pseudo.options import PseudoOptions

checkpoint, data, out, moment, at = sys.argv[1:]
count = [0]

def dying(function):
    def wrapped(*args, **kwargs):
        count[0] += 1
        if count[0] == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

if moment == "file":
    run.write_atomically = dying(run.write_atomically)
if moment == "record":
    RunFolder.add = dying(RunFolder.add)
if moment == "network":
    maps.averaged_cams = dying(maps.averaged_cams)
options, images = PseudoOptions(scales=(1.0, 1.5), crf="psa"), open_data(f"scenes:{data}", "train")
run.pseudo_labels(open_network(Path(checkpoint)), images, Path(out), options, batch_size=4)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(checkpoint, scenes, tmp_path):
    def run(out, moment, at=0):
        command = [sys.executable, "-c", _KILLED, checkpoint, scenes, out, moment, at]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment)

    whole = run(tmp_path / "a", "never")
    assert whole.returncode == 0, whole.stderr
    for moment, at in (("network", 2), ("file", 3), ("record", 3), ("network", 2)):
        assert run(tmp_path / "b", moment, at).returncode == -9, moment
    again = run(tmp_path / "b", "never")
    assert again.returncode == 0, again.stderr
    names = sorted(p.name for p in (tmp_path / "a").glob("*.png"))
    assert len(names) == 20
    for name in [*names, "results.json"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_another_run_is_refused(checkpoint, scenes, tmp_path):
    images, network = open_data(f"scenes:{scenes}", "val"), open_network(checkpoint)
    pseudo_labels(network, images, tmp_path / "p", FAST)
    with pytest.raises(OutputError, match=r"level was 0\.3, is 0\.4"):
        pseudo_labels(network, images, tmp_path / "p", dataclasses.replace(FAST, level=0.4))
    other = dataclasses.replace(images, class_names=tuple(reversed(images.class_names)))
    with pytest.raises(DataError, match="other classes"):
        pseudo_labels(network, other, tmp_path / "q", FAST)


def test_the_search_finds_the_best_of_what_it_tried(checkpoint, scenes):
    network, images = open_network(checkpoint), open_data(f"scenes:{scenes}", "train")
    chosen, tried = choose_settings(network, images, FAST)
    every = [entry["mean_iou"] for part in tried["tried"] for entry in part["tried"]]
    assert tried["mean_iou"] == max(every) and {part["nwc"] for part in tried["tried"]} == {False, True}
    maps = SplitMaps.run(network, images, chosen)
    assert score_options(maps, [chosen])[0].compute()["mean_iou"] == pytest.approx(tried["mean_iou"], abs=1e-3)


@pytest.mark.slow
def test_the_command(checkpoint, scenes, tmp_path):
    from lidcam_cli.app import build_app

    def run(*more):
        command = ["pseudo", str(checkpoint), "--data", f"scenes:{scenes}", "-o", str(tmp_path / "p"), *more]
        return CliRunner().invoke(build_app("pseudo"), command)

    options = ["--split", "train", "--search", "--scales", "1", "--refine", "none", "--maps"]
    result = run(*options)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "20 label maps" in result.output and "mean IoU" in result.output
    assert (tmp_path / "p" / "gallery.png").stat().st_size > 1000
    assert json.loads((tmp_path / "p" / "search.json").read_text())["chosen"]["percentile"] > 0
    record = open_data(f"scenes:{scenes}", "train").records[0]
    with np.load(tmp_path / "p" / "maps" / "000000.npz") as arrays:
        assert set(arrays) == {str(k) for k in record.labels} and arrays[str(record.labels[0])].dtype == np.float16
    stamp = (tmp_path / "p" / "000000.png").stat().st_mtime_ns
    assert run(*options).exit_code == 0 and (tmp_path / "p" / "000000.png").stat().st_mtime_ns == stamp
    for wrong in (("--search", "--choose", "test"), ("--level", "2"), ("--confident", "1"), ("--background", "x")):
        assert run(*wrong).exit_code == 2, wrong
