"""Metric time per image: IoUCurve + PxAP + BoxAccuracy at 100 thresholds against a numpy / OpenCV loop.

    python benchmarks/suites/bench_metrics.py [--maps 2000] [--loop 40] [--model MODEL.onnx] [-o FILE.json]
    python -m pytest benchmarks/suites/bench_metrics.py

One thread, processor time of that thread (not wall-clock time). Maps of 500x375: with --model real ones, the artifact's
on crops of scikit-image's photos; bicubic from 12x12; and uniform noise (the worst case: a component at every pixel).
The loop is timed on the first maps only, interleaved with ours, and its result compared.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from lidcam_bench.metrics import BoxAccuracy, IoUCurve, PixelAveragePrecision, box_iou, to_map8

HEIGHT, WIDTH = 375, 500


def smooth(rng):
    return to_map8(cv2.resize(rng.random((12, 12)) ** 2, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def noise(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)


class Ours:
    def __init__(self):
        self.curve, self.pxap, self.boxes = IoUCurve(), PixelAveragePrecision(), BoxAccuracy()

    def __call__(self, map8, mask, truth):
        self.curve.update(map8, mask)
        self.pxap.update(map8, mask)
        self.boxes.update(map8, truth)

    def result(self):
        return self.curve.curve(), self.pxap.compute(), self.boxes.state["right"]


class Loop:
    """The same in numpy and OpenCV: histograms with bincount, contours at each threshold."""

    def __init__(self):
        self.counts, self.right = np.zeros((2, 256), np.int64), np.zeros((3, 100), np.int64)

    def __call__(self, map8, mask, truth):
        for _ in range(2):  # once for the curve and once for PxAP, as ours
            counts = [np.bincount(map8[mask == k], minlength=256) for k in (0, 1)]
        self.counts += counts
        for i in range(100):
            _, binary = cv2.threshold(map8, int(i / 100 * map8.max()), 255, cv2.THRESH_BINARY)
            boxes = [[0, 0, 0, 0]]
            if contours := cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]:
                boxes = []
                for contour in contours:
                    x, y, w, h = cv2.boundingRect(contour)
                    boxes.append([x, y, min(x + w, WIDTH - 1), min(y + h, HEIGHT - 1)])
            self.right[:, i] += box_iou(boxes, truth).max() >= np.array([0.3, 0.5, 0.7])

    def result(self):
        true, false = (np.cumsum(row[::-1])[::-1] for row in self.counts[::-1])
        precision = true / np.maximum(true + false, 1)
        pxap = 100 * np.sum(precision * self.counts[1]) / true[0]
        return true / (true[0] + false), pxap, self.right


def truth_of_all():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[80:290, 100:300] = 1
    return mask, [[100, 80, 300, 290]]


def photographed(model):
    """Maps of an artifact: of the predicted class, on crops of scikit-image's photos."""
    from skimage import data

    import lidcam_rt

    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.cat(), data.rocket()]
    localizer = lidcam_rt.load(model)

    def real(rng):
        photo = photos[rng.integers(len(photos))]
        side = int(rng.integers(120, min(photo.shape[:2])))
        y, x = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
        picture = cv2.resize(photo[y : y + side, x : x + side], (WIDTH, HEIGHT))
        return localizer(picture, keep_image=False).map

    return real


def measure(kind, maps, loop):
    """Times of both, and whether their results are equal."""
    rng = np.random.default_rng(0)
    ours, ours_checked, theirs = Ours(), Ours(), Loop()
    times, pairs = [], []
    mask, truth = truth_of_all()
    for i in range(maps):
        map8 = kind(rng)
        start = time.thread_time()
        ours(map8, mask, truth)
        times.append(time.thread_time() - start)
        if i < loop:
            start = time.thread_time()
            theirs(map8, mask, truth)
            pairs.append((time.thread_time() - start) / times[-1])
            ours_checked(map8, mask, truth)
    a, b = ours_checked.result(), theirs.result()
    np.testing.assert_allclose(a[0], b[0])
    np.testing.assert_allclose(a[1], b[1])
    np.testing.assert_array_equal(a[2], b[2])
    deciles = statistics.quantiles(times, n=10)
    return {
        "maps": kind.__name__,
        "n": maps,
        "ms_median": round(1000 * statistics.median(times), 3),
        "ms_p10": round(1000 * deciles[0], 3),
        "ms_p90": round(1000 * deciles[-1], 3),
        "factor_median": round(statistics.median(pairs), 1),
        "factor_least": round(min(pairs), 1),
        "factor_most": round(max(pairs), 1),
        "factor_n": len(pairs),
        "same_result": True,
    }


@pytest.mark.parametrize("make", [smooth, noise])
def test_ours(benchmark, make):
    map8, ours = make(np.random.default_rng(0)), Ours()
    benchmark.pedantic(ours, (map8, *truth_of_all()), rounds=20, warmup_rounds=2)


@pytest.mark.parametrize("make", [smooth])
def test_loop(benchmark, make):
    map8, loop = make(np.random.default_rng(0)), Loop()
    benchmark.pedantic(loop, (map8, *truth_of_all()), rounds=20, warmup_rounds=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=2000)
    parser.add_argument("--loop", type=int, default=40)
    parser.add_argument("--model", type=Path, help="an artifact, for real maps")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    real = [measure(photographed(options.model), min(200, options.maps), options.loop)] if options.model else []
    rows = [
        *real,
        measure(smooth, options.maps, options.loop),
        measure(noise, max(10, options.maps // 40), max(2, options.loop // 20)),
    ]
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": f"python benchmarks/suites/bench_metrics.py --maps {options.maps} --loop {options.loop}"
        + (" --model MODEL.onnx" if options.model else ""),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "rows": rows,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
