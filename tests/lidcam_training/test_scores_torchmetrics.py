"""The segmentation scores against torchmetrics (the runtime's own tests have no torch)."""

import numpy as np
import pytest
import torch
from lidcam_bench.metrics import PixelAveragePrecision, SegmentationScores

classification = pytest.importorskip("torchmetrics.classification")


def test_confusion_matrix_and_scores_are_torchmetrics():
    rng = np.random.default_rng(3)
    ours = SegmentationScores(6)
    matrix = classification.MulticlassConfusionMatrix(6, ignore_index=255)
    accuracy = classification.MulticlassAccuracy(6, average="micro", ignore_index=255)
    jaccard = classification.MulticlassJaccardIndex(6, average="none", ignore_index=255)
    for _ in range(5):
        truth = rng.choice([0, 1, 2, 3, 4, 5, 255], (40, 30)).astype(np.uint8)
        guess = np.where(
            rng.random(truth.shape) < 0.6, np.where(truth == 255, 0, truth), rng.integers(0, 6, truth.shape)
        )
        guess = guess.astype(np.uint8)
        ours.update(guess, truth)
        for theirs in (matrix, accuracy, jaccard):
            theirs.update(torch.from_numpy(guess).long(), torch.from_numpy(truth).long())
    np.testing.assert_array_equal(ours.confusion, matrix.compute().numpy())
    np.testing.assert_allclose(ours.per_class(), 100 * jaccard.compute().numpy(), rtol=1e-5)
    assert ours.compute()["pixel_accuracy"] == pytest.approx(100 * float(accuracy.compute()), rel=1e-5)


def test_pxap_is_torchmetrics_average_precision():
    rng = np.random.default_rng(4)
    mask = (rng.random((50, 60)) < 0.3).astype(np.uint8)
    map8 = np.clip(rng.normal(90 + 60 * mask, 40), 0, 255).astype(np.uint8)
    theirs = classification.BinaryAveragePrecision()
    theirs.update(torch.from_numpy(map8.ravel().astype(np.float32) / 255), torch.from_numpy(mask.ravel()).long())
    assert PixelAveragePrecision().update(map8, mask) == pytest.approx(100 * float(theirs.compute()), rel=1e-5)
