"""Classifiers with a class activation map head."""

from lidcam_training.models.classifier import Classifier, ClassifierSpec, build_classifier
from lidcam_training.models.tap import ThresholdedAveragePooling, thresholded_average_pool

__all__ = [
    "Classifier",
    "ClassifierSpec",
    "ThresholdedAveragePooling",
    "build_classifier",
    "thresholded_average_pool",
]
