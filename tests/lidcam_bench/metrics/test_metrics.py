"""The accumulators against implementations nobody here wrote, and their properties."""

import copy
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_bench.evaluation.metric_set import MetricSet
from lidcam_bench.metrics import (
    METRICS,
    Answer,
    BoxAccuracy,
    IoUCurve,
    LocalizationAccuracy,
    PixelAveragePrecision,
    Sample,
    SegmentationScores,
    box_iou,
    histogram,
    level_boxes,
    to_map8,
)
from lidcam_bench.metrics.registry import GROUPS
from lidcam_rt._kernels import metrics as _kernels
from sklearn.metrics import average_precision_score, confusion_matrix

from lidcam_rt.errors import InputError


def pictures(seed, number=6):
    rng = np.random.default_rng(seed)
    out = []
    for i in range(number):
        height, width = rng.integers(2, 40, 2)
        grey = cv2.resize(rng.random((4, 4)), (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
        mask = (cv2.resize(rng.random((3, 3)), (int(width), int(height))) > 0.5).astype(np.uint8)
        mask[rng.random(mask.shape) < 0.05] = 255
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        boxes = [[x, y, int(rng.integers(x, width)), int(rng.integers(y, height))], [0, 0, 1, 1]]
        out.append((f"{seed}-{i}", to_map8(grey), mask, boxes))
    return out


def literal_boxes(map8, level):
    """What the public evaluator does at one threshold, with OpenCV."""
    height, width = map8.shape
    binary = np.where(map8.astype(int) > level, 255, 0).astype(np.uint8)
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return [[0, 0, 0, 0]], [0, 0, 0, 0], 0.0, 0
    boxes = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    areas = [cv2.contourArea(c) for c in contours]
    return boxes, boxes[int(np.argmax(areas))], max(areas), len(contours)


@pytest.mark.parametrize(("kind", "seed"), [("noise", 0), ("smooth", 1), ("steps", 2), ("blobs", 3)])
def test_level_boxes_are_those_of_opencv_contours(kind, seed):
    rng = np.random.default_rng(seed)
    for trial in range(60):
        height, width = (int(v) for v in rng.integers(1, 150 if trial % 5 == 0 else 30, 2))
        if kind == "noise":
            map8 = rng.integers(0, 256, (height, width)).astype(np.uint8)
        elif kind == "smooth":
            small = rng.random((max(1, height // 5), max(1, width // 5)))
            map8 = to_map8(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
        elif kind == "steps":
            map8 = (rng.integers(0, 4, (height, width)) * 85).astype(np.uint8)
        else:  # many holes, islands within them
            map8 = (rng.random((height, width)) < rng.uniform(0.3, 0.9)).astype(np.uint8) * 200
        levels = range(-1, 256) if trial < 3 else sorted({int(v) for v in rng.integers(-1, 256, 8)})
        truth = [[0, 0, width - 1, height - 1], [1, 1, 5, 6]]
        found = level_boxes(map8, list(levels), truth)
        arguments = (map8, np.array(levels, np.int32), np.array(truth, np.int64))
        for one, other in zip(_kernels.level_boxes(*arguments, 1), _kernels.level_boxes(*arguments, 2), strict=True):
            np.testing.assert_array_equal(one, other)  # level by level, and all levels at once
        for i, level in enumerate(levels):
            boxes, largest, area, number = literal_boxes(map8, level)
            assert (found.contours[i], found.areas[i]) == (number, area)
            # equal areas: which of them OpenCV lists first has changed between its versions
            assert found.boxes[i].tolist() == largest or literal_ties(map8, level, area) > 1
            assert found.iou_all[i] == box_iou(boxes, truth).max()
            assert found.iou_largest[i] == box_iou([found.boxes[i]], truth).max()


def literal_ties(map8, level, area):
    binary = np.where(map8.astype(int) > level, 255, 0).astype(np.uint8)
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    return sum(cv2.contourArea(c) == area for c in contours)


@pytest.mark.parametrize("contours", ["largest", "all"])
def test_box_accuracy_is_the_double_loop(contours):
    metric = BoxAccuracy((0.3, 0.5, 0.7), contours)
    right = np.zeros((3, 100))
    data = pictures(3, 12)
    for _, map8, _, truth in data:
        metric.update(map8, truth)
        for t in range(100):
            boxes, largest, _, _ = literal_boxes(map8, int(t / 100 * map8.max()))
            best = box_iou(boxes if contours == "all" else [largest], truth).max()
            right[:, t] += [best >= delta for delta in (0.3, 0.5, 0.7)]
    np.testing.assert_array_equal(metric.compute(), 100 * right / len(data))
    assert metric.scores()["max_box_acc"] == pytest.approx((100 * right / len(data)).max(1).mean())


@pytest.mark.parametrize("variant", ["dataset", "per_image", "fg_bg"])
def test_iou_curve_is_the_double_loop(variant):
    metric = IoUCurve(variant)
    data = pictures(4)
    sums, means = np.zeros((256, 2, 2)), np.zeros(256)
    for _, map8, mask, _ in data:
        metric.update(map8, mask)
        for t in range(256):
            seen = mask != 255
            on, true = (map8 >= t)[seen], (mask == 1)[seen]
            table = np.array([[(~true & ~on).sum(), (~true & on).sum()], [(true & ~on).sum(), (true & on).sum()]])
            if t % 16 == 0:
                np.testing.assert_array_equal(table, confusion_matrix(true, on, labels=[False, True]))
            sums[t] += table
            union = table.sum() - table[0, 0]
            means[t] += table[1, 1] / union if union else 1
    if variant == "per_image":
        expected = means / len(data)
    else:
        expected = sums[:, 1, 1] / (sums.sum((1, 2)) - sums[:, 0, 0])
        if variant == "fg_bg":
            expected = (expected + sums[:, 0, 0] / (sums.sum((1, 2)) - sums[:, 1, 1])) / 2
    peak, threshold, curve = metric.compute()
    np.testing.assert_allclose(curve, expected, rtol=1e-12, atol=1e-11)
    assert peak == curve.max() and threshold == int(np.argmax(curve))


def test_pxap_is_sklearns_average_precision():
    metric = PixelAveragePrecision()
    data = pictures(5)
    for _, map8, mask, _ in data:
        metric.update(map8, mask)
    scores = np.concatenate([m[k != 255] for _, m, k, _ in data])
    truth = np.concatenate([k[k != 255] for _, _, k, _ in data])
    assert metric.compute() == pytest.approx(100 * average_precision_score(truth, scores), rel=1e-12)


def test_segmentation_is_sklearns_confusion_matrix():
    rng = np.random.default_rng(0)
    metric = SegmentationScores(5)
    total = np.zeros((5, 5))
    for _ in range(4):
        truth = rng.choice([0, 1, 2, 3, 255], (20, 30)).astype(np.uint8)
        guess = rng.integers(0, 4, (20, 30)).astype(np.uint8)
        metric.update(guess, truth)
        total += confusion_matrix(truth[truth != 255], guess[truth != 255], labels=range(5))
    np.testing.assert_array_equal(metric.confusion, total)
    hits, union = np.diag(total)[:4], (total.sum(0) + total.sum(1) - np.diag(total))[:4]
    assert metric.compute() == pytest.approx(
        {
            "mean_iou": 100 * (hits / union).mean(),
            "mean_accuracy": 100 * np.mean([total[c, c] / total[c].sum() for c in range(4)]),
            "pixel_accuracy": 100 * np.trace(total) / total.sum(),
        }
    )
    assert np.isnan(metric.per_class()[4])  # nowhere: left out of the mean


def test_localization_accuracy():
    metric = LocalizationAccuracy()
    truth = [[10, 10, 20, 20]]
    row = metric.update([3], [3, 1], truth=truth, box=(10, 10, 20, 20), known_box=(10, 10, 20, 20), known=True)
    assert all(row.values())
    row = metric.update([3], [1, 3], truth=truth, box=(10, 10, 20, 20), known_box=(0, 0, 5, 5), known=True)
    assert row == {
        "top1_cls": False, "top5_cls": True, "top1_loc": False, "top5_loc": False, "gt_known_loc": False,
    }  # fmt: skip
    row = metric.update([3], [1, 3], truth=truth, box=(10, 10, 20, 20), known_box=(10, 10, 20, 20), known=True)
    assert row["top5_loc"] and row["gt_known_loc"] and not row["top1_loc"]
    metric.update([3], [1, 2, 4, 5, 6, 3], truth=truth, box=None, known_box=(10, 10, 19, 20), known=True)
    assert metric.compute() == pytest.approx(
        {
            "top1_cls": 25,
            "top5_cls": 75,
            "top1_loc": 25,
            "top5_loc": 50,
            "gt_known_loc": 75,
        }
    )
    assert LocalizationAccuracy().compute()["gt_known_loc"] is None


def literal_public_pxap(maps, masks, bins=1000):
    """The public evaluator's arithmetic: np.histogram with its edges, then steps of recall."""
    edges = np.append(np.arange(bins) / bins, [1.0, 2.0, 3.0])
    true = sum(np.histogram(m[k == 1], edges)[0].astype(float) for m, k in zip(maps, masks, strict=True))
    false = sum(np.histogram(m[k == 0], edges)[0].astype(float) for m, k in zip(maps, masks, strict=True))
    tp, fp = true[::-1].cumsum(), false[::-1].cumsum()
    there = (tp + fp) != 0
    precision, recall = tp[there] / (tp + fp)[there], tp[there] / tp[-1]
    return 100 * (precision * np.diff(np.append(0, recall))).sum()


def test_pxap_of_float_maps_nears_sklearns_as_bins_get_fine():
    rng = np.random.default_rng(7)
    masks = [(rng.random((30, 40)) < 0.3).astype(np.uint8) for _ in range(5)]
    maps = [np.clip(0.5 * rng.random(k.shape) + 0.3 * k, 0, 1).astype(np.float32) for k in masks]
    exact = 100 * average_precision_score(
        np.concatenate([k.ravel() for k in masks]), np.concatenate([m.ravel() for m in maps])
    )
    distance = []
    for bins in (4, 32, 1000, 10**5):
        metric = PixelAveragePrecision(bins)
        for map_, mask in zip(maps, masks, strict=True):
            metric.update(map_, mask)
        distance.append(abs(metric.compute() - exact))
    assert distance[0] > distance[1] > distance[2] > distance[3] and distance[3] < 1e-3
    metric = PixelAveragePrecision(1000)
    for map_, mask in zip(maps, masks, strict=True):
        metric.update(map_, mask)
    assert metric.compute() == pytest.approx(literal_public_pxap(maps, masks), rel=1e-12)
    precision, recall = metric.curve()
    assert recall[0] == 1 and precision[0] == pytest.approx(np.mean([k.mean() for k in masks]))


def all_metrics(replicates=8):
    return {
        "iou": IoUCurve(replicates=replicates),
        "iou per image": IoUCurve("per_image", replicates=replicates),
        "iou fg bg": IoUCurve("fg_bg", replicates=replicates),
        "pxap": PixelAveragePrecision(replicates=replicates),
        "pxap float": PixelAveragePrecision(50, replicates=replicates),
        "boxes": BoxAccuracy(thresholds=20, replicates=replicates),
        "largest box": BoxAccuracy((0.5,), "largest", replicates=replicates),
        "localization": LocalizationAccuracy(replicates=replicates),
        "labels": SegmentationScores(4, replicates=replicates),
    }


def feed(name, metric, key, map8, mask, truth):
    if "box" in name:
        metric.update(map8, truth, key=key)
    elif name == "localization":
        first = int(map8[0, 0]) % 3
        metric.update([1], [first, 1], truth=truth, box=truth[0], known_box=(0, 0, 1, 1), known=True, key=key)
    elif name == "labels":
        metric.update(map8 // 64, np.where(mask == 255, 255, mask * (map8 // 100)).astype(np.uint8), key=key)
    elif name == "pxap float":
        metric.update(map8 / 255, mask, key=key)
    else:
        metric.update(map8, mask, key=key)


def fill(metrics, data):
    for row in data:
        for name, metric in metrics.items():
            feed(name, metric, *row)
    return metrics


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6), st.permutations(range(6)), st.lists(st.integers(0, 6), min_size=2, max_size=2), st.booleans()
)
def test_merge_is_one_pass_in_any_split_and_order(seed, order, cuts, swap):
    data = pictures(seed)
    whole = fill(all_metrics(), data)
    shuffled = [data[i] for i in order]
    low, high = sorted(cuts)
    shards = [fill(all_metrics(), part) for part in (shuffled[:low], shuffled[low:high], shuffled[high:])]
    if swap:
        shards.reverse()
    for name, one in whole.items():
        merged = shards[0][name].merge(shards[1][name]).merge(shards[2][name])
        assert merged.to_dict() == one.to_dict()  # bit for bit, intervals included
        for key, array in one.arrays().items():
            np.testing.assert_array_equal(merged.arrays()[key], array)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["dataset", "per_image", "fg_bg"]))
def test_the_peak_is_the_maximum_of_the_curve_and_of_no_single_image_less(seed, variant):
    metric = IoUCurve(variant)
    own = [metric.update(map8, mask) for _, map8, mask, _ in pictures(seed)]
    peak, threshold, curve = metric.compute()
    assert peak == curve.max() == curve[threshold] and (curve[:threshold] < peak).all()
    assert (curve >= 0).all() and (curve <= 1).all()
    assert metric.scores() == {"peak_iou": peak, "peak_threshold": threshold}
    if variant == "per_image":
        np.testing.assert_allclose(curve, np.mean(own, axis=0), atol=1e-11)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.data())
def test_a_perfect_map_scores_full_marks(height, width, draw):
    x0, y0 = draw.draw(st.integers(0, width - 2)), draw.draw(st.integers(0, height - 2))
    x1, y1 = draw.draw(st.integers(x0 + 1, width)), draw.draw(st.integers(y0 + 1, height))
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 1
    truth = [[x0, y0, min(x1, width - 1), min(y1, height - 1)]]
    for variant in ("dataset", "per_image", "fg_bg"):
        metric = IoUCurve(variant)
        metric.update(mask * 255, mask)
        assert metric.compute()[0] == 1
    assert PixelAveragePrecision().update(mask * 255, mask) == 100
    assert PixelAveragePrecision(1000).update(mask.astype(np.float32), mask) == 100
    for contours in ("largest", "all"):
        boxes = BoxAccuracy((1.0,), contours)
        boxes.update(mask * 255, truth)
        assert boxes.scores()["max_box_acc"] == 100
    labels = SegmentationScores(3)
    labels.update(mask * 2, mask * 2)
    assert labels.compute() == {"mean_iou": 100, "mean_accuracy": 100, "pixel_accuracy": 100}


def test_the_bootstrap_copies_are_weighted_sums():
    metric, counted = IoUCurve(replicates=5), np.zeros((5, 2, 256))
    for i in range(130):  # more than wait for one product
        rng = np.random.default_rng(i)
        map8, mask = rng.integers(0, 256, (3, 4)).astype(np.uint8), rng.integers(0, 2, (3, 4)).astype(np.uint8)
        metric.update(map8, mask, key=str(i))
        seed = int.from_bytes(hashlib.sha256(str(i).encode()).digest()[:8], "little")
        weights = np.random.Generator(np.random.PCG64(seed)).poisson(1.0, 5)
        counted += weights[:, None, None] * histogram(map8, mask)
    np.testing.assert_array_equal(metric.copies()["counts"], counted)
    peaks = [run["peak_iou"] for run in metric.replicate_scores()]
    for level, ends in ((0.95, (2.5, 97.5)), (0.5, (25, 75))):
        np.testing.assert_allclose(metric.intervals(level)["peak_iou"], np.percentile(peaks, ends))


def test_restore_gives_back_the_state():
    for name, metric in fill(all_metrics(4), pictures(1)).items():
        other = all_metrics(4)[name]
        other.restore(copy.deepcopy(metric.arrays()))
        assert other.to_dict() == metric.to_dict()
    metric = fill({"iou": IoUCurve(replicates=4)}, pictures(1))["iou"]
    with pytest.raises(InputError, match="not one of"):
        IoUCurve("per_image", replicates=4).restore(metric.arrays())


def test_interval_of_a_share_is_near_the_binomial_one():
    metric = LocalizationAccuracy(replicates=1000)
    for i in range(400):
        metric.update([0], [i % 4], key=str(i))
    low, high = metric.intervals()["top1_cls"]
    assert low == pytest.approx(25 - 1.96 * 2.165, abs=0.8)
    assert high == pytest.approx(25 + 1.96 * 2.165, abs=0.8)


MAP, MASK = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: IoUCurve().update(MAP, np.zeros((5, 4), np.uint8)), "differ in"),
        (lambda: IoUCurve().update(MAP.astype(np.float32), MASK), "to_map8"),
        (lambda: IoUCurve().update(MAP[0], MASK[0]), "height, width"),
        (lambda: IoUCurve().update(np.full((4, 5), np.nan), MASK), "to_map8"),
        (lambda: histogram(MAP, MASK + 7), "0, 1 and 255"),
        (lambda: PixelAveragePrecision(10).update(MAP, MASK), "float"),
        (lambda: PixelAveragePrecision(10).update(np.full((4, 5), np.nan), MASK), "NaN"),
        (lambda: PixelAveragePrecision(10).update(np.full((4, 5), 1.5), MASK), "0..1"),
        (lambda: PixelAveragePrecision(10).update(np.zeros((5, 4)), MASK), "differ in"),
        (lambda: PixelAveragePrecision(10).update(np.zeros((4, 5)), MASK + 7), "nothing else"),
        (lambda: PixelAveragePrecision(0), "bins"),
        (lambda: PixelAveragePrecision(10).merge(PixelAveragePrecision()), "cannot merge"),
        (lambda: BoxAccuracy().update(MAP.astype(np.uint16), [[0, 0, 1, 1]]), "to_map8"),
        (lambda: SegmentationScores(3).update(MAP, MASK.astype(np.int64)), "uint8"),
        (lambda: LocalizationAccuracy().update([], [1]), "label"),
        (lambda: histogram(MAP, MASK.astype(np.int64)), "bool or uint8"),
        (lambda: to_map8(np.array([[0.0, np.nan]])), "NaN"),
        (lambda: BoxAccuracy().update(MAP, []), "shape"),
        (lambda: BoxAccuracy().update(MAP, [[5, 5, 2, 2]]), "whole pixels"),
        (lambda: BoxAccuracy((0,)), "deltas"),
        (lambda: IoUCurve("median"), "variant"),
        (lambda: IoUCurve().merge(IoUCurve("fg_bg")), "cannot merge"),
        (lambda: IoUCurve(replicates=3).update(MAP, MASK), "key"),
        (lambda: IoUCurve().compute(), "no pixel"),
        (lambda: SegmentationScores(3).update(MAP + 3, MASK), "outside 0 to 2"),
        (lambda: SegmentationScores(3).update(MAP[:2], MASK), "differ"),
        (lambda: level_boxes(MAP, [300], [[0, 0, 1, 1]]), "-1 to 255"),
    ],
)
def test_wrong_arguments_get_a_message(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_memory_does_not_grow_and_bools_are_masks():
    metrics = all_metrics()
    sizes = {name: sum(a.nbytes for a in metric.arrays().values()) for name, metric in metrics.items()}
    data = pictures(2)
    for i in range(30):
        fill(metrics, [(f"{i}{key}", *rest) for key, *rest in data])
    for name, metric in metrics.items():
        assert sum(a.nbytes for a in metric.arrays().values()) == sizes[name]
    metric = IoUCurve()
    metric.update(MAP, MASK.astype(bool))
    assert metric.images == 1


def test_the_registry_knows_every_score_and_every_metric_has_words():
    for name, metric in METRICS.items():
        scores = metric.make(0, 5).scores()
        listed = [score.name for score in metric.scores]
        assert set(listed) <= set(scores) and set(metric.glance) <= set(listed), name
        assert listed[0] == metric.headline and metric.meaning.endswith(".") and not metric.is_not.endswith(".")
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
    assert all(f"`{name}`" in page for name in METRICS)


def test_a_picture_is_counted_by_the_metrics_whose_inputs_it_has():
    metrics = MetricSet(GROUPS, 0, 3)
    map8 = np.zeros((8, 8), np.uint8)
    map8[2:6, 2:6] = 200
    mask = (map8 > 0).astype(np.uint8)
    sample = Sample("a", (8, 8), map8, mask, [(2, 2, 6, 6)])
    row = metrics.count(sample)
    assert list(row) == ["peak_iou", "peak_threshold", "pxap", "best_box_iou"] and row["best_box_iou"] == 1
    assert metrics.count(Sample("b", (8, 8), labels=mask, true_labels=mask)) == {"image_mean_iou": 100}
    answer = Answer([1], [1], (2, 2, 6, 6))
    assert metrics.count(Sample("c", (8, 8), boxes=[(2, 2, 6, 6)], answer=answer))["top1_loc"]
    assert {name: metric.images for name, metric in metrics.metrics.items()} == dict.fromkeys(METRICS, 1)
