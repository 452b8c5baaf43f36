"""One artifact over many pictures, on many processes or machines: one row per picture, in Parquet.

`scale` runs a job in shards that survive kills; `LocalizerActor` and `localize_batches` are for your own pipelines of
Ray Data and Spark. The parts have one schema, `lidcam_scale.rows.SCHEMA`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lidcam_scale.actor import LocalizerActor
    from lidcam_scale.frames import SPARK_SCHEMA, localize_batches
    from lidcam_scale.job import Job
    from lidcam_scale.rows import path_of
    from lidcam_scale.run import Summary, scale

__all__ = ["SPARK_SCHEMA", "Job", "LocalizerActor", "Summary", "localize_batches", "path_of", "scale"]

#: Module of each name.
_HOME = {
    "SPARK_SCHEMA": "frames",
    "Job": "job",
    "LocalizerActor": "actor",
    "Summary": "run",
    "localize_batches": "frames",
    "path_of": "rows",
    "scale": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lidcam_scale' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"lidcam_scale.{_HOME[name]}"), name)
    globals()[name] = value
    return value
