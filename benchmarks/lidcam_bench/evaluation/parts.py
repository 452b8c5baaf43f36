"""Parts of a data set, for workers that count them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lidcam_bench.data.records import ImageSet, Record
from lidcam_bench.evaluation.options import EvalOptions
from lidcam_rt.errors import BackendError
from lidcam_rt.loaded import load_again
from lidcam_rt.localizer import Localizer

__all__ = ["Part", "localizer_of", "parts_of"]

#: The minimum number of parts (batches permitting), and the maximum number of pictures in one.
_FEWEST, _LARGEST = 32, 500


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive records, and all that a worker needs to count them.

    Attributes:
        records: the pictures.
        name: of the data set.
        class_names: of the data set.
        multilabel: of the data set.
        options: of the run.
        batch_size: pictures per call of the network.
        localizer: path and options, from which the localizer is loaded again.
        engine: the one that must run, since others round differently.
    """

    records: tuple[Record, ...]
    name: str
    class_names: tuple[str, ...]
    multilabel: bool
    options: EvalOptions
    batch_size: int
    localizer: tuple[Path, tuple[tuple[str, Any], ...]]
    engine: str

    def data(self) -> ImageSet:
        """The records as a data set."""
        return ImageSet(self.name, self.class_names, self.records, self.multilabel)


def parts_of(
    localizer: Localizer, data: ImageSet, options: EvalOptions, records: Sequence[Record], batch_size: int
) -> list[Part]:
    """Cut records into parts of whole batches, the same batches as in an evaluation in one process.

    Raises:
        InputError: the localizer was not made by `lidcam_rt.load`.
    """
    _, (_, path, loaded_with) = localizer.__reduce__()
    again = path, tuple(sorted({**loaded_with, "threads": 1}.items()))
    size = max(1, min(_LARGEST, -(-len(records) // _FEWEST)) // batch_size) * batch_size
    return [
        Part(
            records=tuple(records[start : start + size]),
            name=data.name,
            class_names=data.class_names,
            multilabel=data.multilabel,
            options=replace(options, limit=None),
            batch_size=batch_size,
            localizer=again,
            engine=localizer.pipeline.engine,
        )
        for start in range(0, len(records), size)
    ]


@functools.lru_cache(maxsize=1)
def _opened(path: Path, options: tuple[tuple[str, Any], ...]) -> Localizer:
    return load_again(Localizer, path, dict(options))


def localizer_of(part: Part) -> Localizer:
    """The localizer of this worker, loaded for its first part.

    Raises:
        BackendError: it runs another engine than the one that the evaluation began with.
    """
    localizer = _opened(*part.localizer)
    if localizer.pipeline.engine != part.engine:
        raise BackendError(
            f"a worker runs {localizer.pipeline.engine}, the evaluation began with {part.engine}, and engines round "
            "differently. Start the command on a machine like the workers, or give --device and --backend"
        )
    return localizer
