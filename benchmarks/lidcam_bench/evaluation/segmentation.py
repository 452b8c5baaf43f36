"""Score a segmentation network on a data set: label maps, Track 1; a run that was killed resumes."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.records import ImageSet
from lidcam_bench.evaluation.metric_set import MetricSet
from lidcam_bench.evaluation.notes import FEW
from lidcam_bench.evaluation.options import NO_CLASS, PREDICTED, EvalOptions, class_map
from lidcam_bench.evaluation.state import SavedSums
from lidcam_bench.metrics.sample import Sample
from lidcam_cli.runs import RunFolder
from lidcam_rt.crf import Refine
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.files import file_sha256
from lidcam_rt.results import Failure
from lidcam_rt.segmentation import Segmenter
from lidcam_rt.text import encode_text
from lidcam_rt.version import __version__

__all__ = ["evaluate_segmenter", "labels_of_data"]


def evaluate_segmenter(
    segmenter: Segmenter,
    data: ImageSet,
    out: str | os.PathLike[str],
    options: EvalOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score the label maps of a segmentation network; files and resumption as in `lidcam_bench.evaluation.evaluate`.

    Args:
        segmenter: the artifact, loaded.
        data: with label maps, of classes that the network has by name.
        out: folder, made if it does not exist.
        options: of the metrics only track1 is counted.
        progress: called with (done, all).

    Returns:
        What results.json holds.

    Raises:
        InputError: another metric is requested, or the data's classes are none of the network's.
        DataError: there are no label maps, or no picture could be read.
        OutputError: the folder cannot be written or holds another run.
    """
    if options.metrics != ("track1",):
        raise InputError("a segmentation network gives label maps: use --metrics track1")
    classes = class_map(segmenter.class_names, data.class_names)
    if classes is None:
        raise InputError(f"the classes of {data.name} are none of the network's: take the data that it was trained for")
    records = data.records[: options.limit]
    if not any(record.mask for record in records):
        raise DataError(f"{data.name}: no picture has a label map, nothing can be scored")
    refine = Refine.of(options.segment.refine)
    identity = {
        "version": __version__,
        "model": None if segmenter.path is None else file_sha256(segmenter.path),
        "backend": segmenter.pipeline.engine,
        "data": data.fingerprint(),
        "options": options.to_dict(),
    }
    row = MetricSet(options.metrics, options.replicates, len(data.class_names) + 1)
    table = labels_of_data(classes, len(segmenter.class_names))
    size = options.batch_size or (1 if segmenter.device == "cpu" else 8)
    with RunFolder(Path(out), {"run": "eval", **identity}) as folder:
        saved = SavedSums(folder)
        if saved.arrays:
            row.restore(saved.arrays)
        done = saved.done
        stream = segmenter.stream(
            [record.image for record in records[done:]], batch_size=size, keep_image=False, refine=refine,
            augment=options.augment,
        )  # fmt: skip
        with closing(stream):
            for record, result in zip(records[done:], stream, strict=True):
                entry: dict[str, Any] = {"file": record.image.name}
                if isinstance(result, Failure):
                    entry["error"] = str(result.error)
                else:
                    true = record.truth(result.size).label_map()
                    key = f"{record.image.parent.name}/{record.image.name}"
                    sample = Sample(key, result.size, labels=table[result.labels], true_labels=true)
                    entry |= {f"{PREDICTED}: {k}": v for k, v in row.count(sample).items()}
                folder.add(entry)
                done += 1
                if progress:
                    progress(done, len(records))
                due = done - saved.done >= options.save_every and done % size == 0 and saved.save_is_due
                if due or done == len(records):
                    saved.save(done, row.arrays())
        return _finish(folder, segmenter, data, identity, row, done)


def labels_of_data(classes: tuple[int, ...], count: int) -> npt.NDArray[np.uint8]:
    """For each label of the network, the data's label; a class that the data does not have is background.

    Args:
        classes: of `class_map`.
        count: classes of the network.
    """
    table = np.zeros(count + 1, np.uint8)
    for index, class_id in enumerate(classes):
        if class_id != NO_CLASS:
            table[class_id + 1] = index + 1
    return table


def _finish(
    folder: RunFolder, segmenter: Segmenter, data: ImageSet, identity: dict[str, Any], row: MetricSet, done: int
) -> dict[str, Any]:
    """Write results.json and images.csv."""
    entries = list(folder.records())
    failures = [entry for entry in entries if "error" in entry]
    if len(failures) == done:
        raise DataError(f"none of the {done} pictures could be read: {failures[0]['error']}")
    notes = [f"{len(failures)} pictures could not be read and are excluded."] if failures else []
    if done - len(failures) < FEW:
        notes.append(f"The intervals are over {done - len(failures)} pictures, which is too few.")
    notes.append("Logits of the classes in a picture are resized to its size; labels are never resized.")
    results = {
        "identity": identity,
        "model": segmenter.path.name if segmenter.path else None,
        "manifest": segmenter.manifest.model_dump(mode="json", exclude={"class_names"}),
        "data": {
            "name": data.name,
            "images": done,
            "classes": len(data.class_names),
            "class_names": list(data.class_names),
        },
        "notes": notes,
        "failures": failures,
        "rows": {PREDICTED: row.to_dict()},
        "above_baseline": {},
    }
    columns = dict.fromkeys(name for entry in entries for name in entry)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(columns), restval="")
    writer.writeheader()
    writer.writerows(entries)
    folder.write("images.csv", encode_text(table.getvalue()))
    folder.write("results.json", (json.dumps(results, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    return results
