"""`LocalizerActor`: for `ray.data.Dataset.map_batches`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lidcam_rt.errors import InputError
from lidcam_scale.job import Job, localizer_of
from lidcam_scale.rows import SCHEMA, localized_rows

__all__ = ["LocalizerActor"]


class LocalizerActor:
    """A callable class for Ray Data: one localizer per actor turns batches of pictures into batches of rows.

        dataset.map_batches(LocalizerActor, fn_constructor_args=("model.onnx",), batch_format="pyarrow",
                            batch_size=64, compute=ray.data.ActorPoolStrategy(size=4), num_gpus=1)

    A batch has the column `path` (paths or URLs that the actors can read), and may have `bytes`, the files' contents,
    which are then used instead, as `ray.data.read_binary_files(..., include_paths=True)` returns them. The result has
    the columns of `lidcam_scale.rows.SCHEMA`, one row per picture, in the batch's order.

    Args:
        model: path or URL of an artifact.
        options: of `lidcam_scale.Job`.
    """

    def __init__(self, model: str, **options: Any) -> None:
        self._job = Job(model, **options)
        self._job.check()

    def __call__(self, batch: Any) -> pa.Table:
        """Localize a batch: a pyarrow Table, a mapping of columns, or a pandas DataFrame.

        Raises:
            InputError: it has no column `path`.
        """
        columns = _columns(batch)
        if "path" not in columns:
            raise InputError(f"a batch needs the column path, got {', '.join(columns) or 'none'}")
        contents = columns.get("bytes") or [None] * len(columns["path"])
        pictures = [(str(name), content) for name, content in zip(columns["path"], contents, strict=True)]
        rows = list(localized_rows(localizer_of(self._job), pictures, self._job))
        return pa.Table.from_pylist(rows, SCHEMA)


def _columns(batch: Any) -> dict[str, list[Any]]:
    names = batch.column_names if isinstance(batch, pa.Table) else list(batch.keys())
    wanted = [name for name in ("path", "bytes") if name in names]
    if isinstance(batch, Mapping):
        return {name: list(batch[name]) for name in wanted}
    return {name: batch[name].to_pylist() if isinstance(batch, pa.Table) else list(batch[name]) for name in wanted}
