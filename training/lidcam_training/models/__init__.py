"""Classifiers with a class activation map head."""

from lidcam_training.models.build import build_classifier
from lidcam_training.models.classifier import Classifier
from lidcam_training.models.spec import ClassifierSpec, ModelOptions
from lidcam_training.models.tap import ThresholdedAveragePooling, thresholded_average_pool

__all__ = [
    "Classifier",
    "ClassifierSpec",
    "ModelOptions",
    "ThresholdedAveragePooling",
    "build_classifier",
    "thresholded_average_pool",
]
