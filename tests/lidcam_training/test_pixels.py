import numpy as np
import pytest
from lidcam_training.pixels import PixelHistogram

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def test_against_scikit_learn_and_a_loop():
    rng = np.random.default_rng(0)
    score = PixelHistogram()
    values, truths = [], []
    for _ in range(3):
        low = rng.integers(0, 256, (9, 7))
        low[0, :2] = (0, 255)
        mask = (rng.random((9, 7)) > 0.6).astype(np.uint8)
        mask[2, 2:5] = 255
        score.add((low / 255).astype(np.float32), mask)
        as_bytes = (255 * ((low / 255).astype(np.float32).astype(np.float64) / (1 + 1e-10))).astype(np.uint8)
        values.append(as_bytes[mask != 255])
        truths.append(mask[mask != 255])
    value, truth = np.concatenate(values), np.concatenate(truths)
    assert score.pxap() == pytest.approx(100 * sklearn_metrics.average_precision_score(truth, value))
    curve = [((value >= t) & (truth == 1)).sum() / ((value >= t) | (truth == 1)).sum() for t in range(256)]
    assert score.peak_iou()[0] == pytest.approx(max(curve))
