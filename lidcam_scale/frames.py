"""`localize_batches`: for Spark's `DataFrame.mapInPandas`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lidcam_scale.actor import LocalizerActor
from lidcam_scale.rows import SCHEMA, SPARK_SCHEMA

__all__ = ["SPARK_SCHEMA", "localize_batches"]


def localize_batches(model: str, **options: Any) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for Spark: one localizer per Python process of an executor.

        frame.mapInPandas(localize_batches("model.onnx"), SPARK_SCHEMA)

    The frame has the column `path`, and may have the contents of the files in `bytes` or, as Spark's data source
    `binaryFile` calls it, `content`. The rows have the columns of `lidcam_scale.rows.SCHEMA`.

    Args:
        model: path or URL of an artifact that every executor can read.
        options: of `lidcam_scale.Job`.
    """
    LocalizerActor(model, **options)  # wrong options are reported here, not on an executor

    def localize(frames: Iterator[Any]) -> Iterator[Any]:
        import pandas

        actor = LocalizerActor(model, **options)
        for frame in frames:
            rows = actor(frame.rename(columns={"content": "bytes"}))
            # Columns of objects: integers of pandas and NumPy cannot be missing, and Spark accepts None.
            yield pandas.DataFrame({name: pandas.Series(rows[name].to_pylist(), dtype=object) for name in SCHEMA.names})

    return localize
