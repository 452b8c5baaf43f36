"""Evaluation of an artifact on a data set: what is read, run, counted and reported."""

from lidcam_bench.data.sets import EvalRecord, EvalSet, open_data
from lidcam_bench.evaluation.runner import EvalOptions, evaluate

__all__ = ["EvalOptions", "EvalRecord", "EvalSet", "evaluate", "open_data"]
