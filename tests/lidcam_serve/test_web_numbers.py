"""The page's arithmetic under node, against that of the runtime, on random inputs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import PIL
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from page_node import Node

from lidcam_rt.artifact import InputSpec
from lidcam_rt.boxes import largest_box
from lidcam_rt.image import network_input, placement, to_original_size
from lidcam_rt.interop import coco_rle
from lidcam_rt.pas import PasOptions, pas
from lidcam_rt.pipeline import Pipeline
from lidcam_serve.web import check

PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13
SIDES = st.integers(1, 70)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    running = Node(tmp_path_factory.mktemp("node"))
    yield running
    running.close()


def picture_of(node: Node, rgb: np.ndarray) -> dict:
    return {"rgb": rgb, "width": rgb.shape[1], "height": rgb.shape[0]}


@pytest.mark.slow
@settings(max_examples=300)
@given(
    seed=SEEDS,
    size=st.tuples(st.one_of(SIDES, st.integers(1, 600)), SIDES),
    wanted=st.tuples(SIDES, SIDES),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    resize=st.sampled_from(["stretch", "letterbox"]),
    dtype=st.sampled_from(["uint8", "float32"]),
    swap=st.booleans(),
)
@example(0, (64, 64), (64, 64), "bicubic", "stretch", "uint8", False)
@example(0, (500, 40), (32, 32), "bicubic", "stretch", "uint8", False)  # Pillow 13 takes the rows first
@example(0, (500, 40), (32, 32), "bicubic", "stretch", "uint8", True)
@example(0, (1, 1), (7, 9), "bilinear", "letterbox", "float32", False)
def test_the_networks_input_has_the_runtimes_bits(node, seed, size, wanted, interpolation, resize, dtype, swap):
    height, width = size[::-1] if swap else size
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if seed % 2:
        rgb = np.where(rgb > 127, np.uint8(255), np.uint8(0))  # bicubic overshoots
    spec = InputSpec(
        dtype=dtype, layout="NHWC" if dtype == "uint8" else "NCHW", height=wanted[0], width=wanted[1],
        mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), interpolation=interpolation, resize=resize,
    )  # fmt: skip
    expected = network_input(rgb, spec)
    got = node.call("picture.js", "networkInput", picture_of(node, rgb), spec.model_dump(mode="json"))
    assert got.dtype == expected.dtype
    if PILLOW_13:
        assert np.array_equal(got, expected.ravel())
    else:  # it never takes the rows first: of a byte rounded once more
        step = 1 if dtype == "uint8" else 1 / 57
        assert np.abs(got.astype(np.float64) - expected.ravel()).max() <= 1.01 * step


@settings(max_examples=300)
@given(seed=SEEDS, size=st.tuples(SIDES, SIDES), original=st.tuples(SIDES, SIDES), letterbox=st.booleans())
@example(0, (60, 40), (30, 20), False)  # cv2 takes means of four
@example(0, (30, 20), (60, 40), False)
@example(0, (1, 20), (50, 31), False)
@example(0, (20, 1), (50, 31), False)
@example(0, (33, 44), (70, 10), True)
def test_maps_at_the_pictures_size_have_the_runtimes_bits(node, seed, size, original, letterbox):
    map8 = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    spec = InputSpec(
        height=size[0], width=size[1], mean=(0, 0, 0), std=(1, 1, 1), resize="letterbox" if letterbox else "stretch"
    )
    height, width = original
    place = placement((width, height), spec)
    told = node.call("picture.js", "placement", width, height, spec.model_dump(mode="json"))
    assert told == [place.width, place.height]
    got = node.call("result.js", "mapAtSize", map8, width, height, spec.model_dump(mode="json"))
    assert np.array_equal(got.reshape(height, width), to_original_size(map8, (width, height), spec))


@settings(max_examples=200)
@given(seed=SEEDS, size=st.tuples(SIDES, SIDES), share=st.floats(0, 1), blobs=st.booleans())
def test_boxes_and_run_lengths_are_the_runtimes(node, seed, size, share, blobs):
    mask = np.random.default_rng(seed).random(size) < share
    if blobs:
        mask = np.repeat(np.repeat(mask, 3, 0), 2, 1)
    height, width = mask.shape
    box = node.call("pas.js", "largestBox", mask.astype(np.uint8), width, height)
    assert (box and tuple(box)) == largest_box(mask)
    assert node.call("pas.js", "cocoRle", mask.astype(np.uint8), width, height) == coco_rle(mask)


@settings(max_examples=200)
@given(
    seed=SEEDS,
    percentile=st.integers(0, 200).map(lambda step: step / 2),
    theta=st.integers(0, 100).map(lambda step: step / 100),
    spread=st.integers(1, 255),
)
def test_thresholds_are_those_of_pas(node, seed, percentile, theta, spread):
    """The level from a histogram, against the runtime's kernel on a map that is already bytes."""
    cam = np.random.default_rng(seed).integers(0, spread + 1, (1, 1, 9, 13)).astype(np.float32)
    cam[0, 0, 0, :2] = 0, spread
    options = PasOptions(percentile=percentile, theta=theta, precision="uint8")
    result = pas(cam, cam.shape[2:], options)
    histogram = np.bincount(result.map.ravel(), minlength=256)
    level = node.call("pas.js", "level", histogram.tolist(), percentile, theta)
    assert level == result.threshold.item()
    assert np.array_equal(node.call("pas.js", "maskOf", result.map.ravel(), level), result.mask.ravel().view(np.uint8))


@given(size=st.tuples(SIDES, SIDES))
@example((3, 16384))
def test_the_pattern_is_the_same_in_both_languages(node, size):
    assert np.array_equal(node.call("check.js", "pattern", *size)["rgb"], check.pattern(*size).ravel())


@given(seed=SEEDS, count=st.integers(2, 40), scale=st.floats(0.1, 100))
def test_an_engine_that_computes_something_else_is_noticed(node, seed, count, scale):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=count)
    expected, spread = {"logits": logits.tolist(), "threshold": 80}, max(float(np.ptp(logits)), 1e-3)

    def agrees(change, threshold=80.0) -> bool:
        return node.call("check.js", "agrees", {"logits": logits + change, "threshold": threshold}, expected)

    wrong = np.zeros(count)
    wrong[rng.integers(count)] = 0.03 * spread
    assert agrees(0.01 * spread * rng.uniform(-1, 1, count)) and agrees(0, 82)
    assert not agrees(wrong) and not agrees(0, 90) and not agrees(np.full(count, np.nan))
    assert not node.call("check.js", "agrees", {"logits": logits[:-1].tolist(), "threshold": 80}, expected)


@settings(max_examples=100)
@given(
    seed=SEEDS,
    count=st.integers(1, 40),
    ties=st.booleans(),
    task=st.sampled_from(["localization", "multilabel"]),
    threshold=st.floats(0, 255, width=32),
    size=st.tuples(SIDES, SIDES),
)
def test_a_result_is_the_runtimes(node, model_manifest, seed, count, ties, task, threshold, size):
    rng = np.random.default_rng(seed)
    logits = (rng.integers(-2, 3, count) if ties else rng.normal(0, 5, count)).astype(np.float32)
    names = tuple(f"class {i}" for i in range(count))
    manifest = model_manifest.model_copy(update={"task": task, "class_names": names, "top_k": 1})
    map8 = rng.integers(0, 256, (manifest.input.height, manifest.input.width)).astype(np.uint8)
    class_id, (height, width) = int(rng.integers(count)), size
    outputs = {
        "logits": logits[None], "class_ids": np.array([[class_id]]), "map8": map8[None, None],
        "threshold": np.array([[threshold]], np.float32),
    }  # fmt: skip
    backend = SimpleNamespace(name="x", version="1", device="cpu", precision="fp32")
    entry = SimpleNamespace(size=(width, height), picture=None, keep_image=False, path=None, missing=None)
    expected = Pipeline(manifest, backend).finish(entry, outputs)
    told = {
        "name": "m", "version": "1", "task": task, "classes": names, "input": manifest.input.model_dump(mode="json"),
    }  # fmt: skip
    given_outputs = {"logits": logits, "classId": class_id, "map8": map8, "threshold": float(np.float32(threshold))}
    got = node.call("result.js", "finish", given_outputs, {"width": width, "height": height}, told)
    assert (got["class_id"], got["class_name"]) == (expected.class_id, expected.class_name)
    assert (got["box"] and tuple(got["box"])) == expected.box and got["threshold"] == expected.threshold
    assert [entry["class_id"] for entry in got["topk"]] == [entry.class_id for entry in expected.topk]
    scores = [(entry["score"], wanted.score) for entry, wanted in zip(got["topk"], expected.topk, strict=True)]
    assert np.allclose(*zip(*scores, strict=True), rtol=1e-12, atol=0)
    assert np.array_equal(got["before"]["map"], expected.map.ravel())
    assert got["before"]["histogram"] == np.bincount(map8.ravel(), minlength=256).tolist()
