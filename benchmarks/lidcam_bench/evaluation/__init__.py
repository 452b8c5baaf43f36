"""Evaluation of an artifact on a data set: what is read, run, counted and reported."""

from lidcam_bench.data import ImageSet, Record, open_data
from lidcam_bench.evaluation.options import EvalOptions
from lidcam_bench.evaluation.runner import evaluate

__all__ = ["EvalOptions", "ImageSet", "Record", "evaluate", "open_data"]
