"""From the description of a classifier to the classifier."""

from __future__ import annotations

from lidcam_training.models.acol import ComplementaryClassifier
from lidcam_training.models.ae import ErasingChain
from lidcam_training.models.classifier import Classifier
from lidcam_training.models.spec import ClassifierSpec

__all__ = ["build_classifier"]


def build_classifier(spec: ClassifierSpec) -> Classifier:
    """Build the classifier that a spec describes.

    Raises:
        InputError: unknown backbone, impossible stride, weights that do not fit.
    """
    if spec.branches == 2:
        return ComplementaryClassifier(spec)
    if spec.rounds:
        return ErasingChain(spec)
    return Classifier(spec)
