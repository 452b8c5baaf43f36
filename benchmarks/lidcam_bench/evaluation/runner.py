"""Run an artifact over a data set and count; a run that was killed resumes."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.records import ImageSet, Record, Truth
from lidcam_bench.evaluation.baseline import blob
from lidcam_bench.evaluation.metric_set import MetricSet, differences
from lidcam_bench.evaluation.notes import notes, some
from lidcam_bench.evaluation.options import BASELINE, KNOWN, NO_CLASS, PREDICTED, EvalOptions, class_map
from lidcam_bench.evaluation.parts import Part, localizer_of, parts_of
from lidcam_bench.evaluation.state import SavedSums
from lidcam_bench.evaluation.truth import require_object, require_truth
from lidcam_bench.metrics.sample import Answer, Sample
from lidcam_cli.runs import RunFolder
from lidcam_rt.errors import BackendError, DataError, InputError, OutputError
from lidcam_rt.files import file_sha256
from lidcam_rt.localizer import Localizer
from lidcam_rt.results import Failure, Localization
from lidcam_rt.segmenter import CamSegmenter
from lidcam_rt.text import encode_text
from lidcam_rt.version import __version__
from lidcam_scale.executors import Died, Executor

__all__ = ["evaluate"]

#: A predicted and a true label map, uint8 [height, width]; None: not scored.
_LabelMaps = tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.uint8] | None]


def _numbers(row: dict[str, Any]) -> bool:
    """Whether the scores in a record are numbers, or absent."""
    ends = ("score", "threshold", "iou", "pxap")
    return all(isinstance(value, (int, float, NoneType)) for name, value in row.items() if name.endswith(ends))


def evaluate(
    localizer: Localizer,
    data: ImageSet,
    out: str | os.PathLike[str],
    options: EvalOptions | None = None,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score an artifact on a data set.

    Writes results.json (without times: the same bytes for the same work, also when it was interrupted and resumed)
    and images.csv. Until then state.npz and results.jsonl hold what was counted; a run with the same model, data and
    options resumes from there. Decoding and the network run in threads of their own, ahead of the counting.

    Args:
        localizer: the artifact, loaded.
        data: of `open_data`.
        out: folder, made if it does not exist.
        options: metrics, bootstrap, CRF.
        executor: workers (`lidcam_scale.executors`) that count parts of the data set; None: this process. The results
            are the same to the bit, and a run may resume with another executor.
        progress: called with (done, all).

    Returns:
        What results.json holds.

    Raises:
        DataError: masks or labels do not fit the pictures.
        OutputError: the folder cannot be written, another process is writing into it, or it holds a run of another
            model, data set or options.
    """
    options = (options or EvalOptions()).resolved(localizer.manifest)
    run = _Run(localizer, data, options)
    with RunFolder(Path(out), {"run": "eval", **run.identity}) as folder:
        saved = SavedSums(folder)
        run.restore(saved.arrays)
        done = saved.done
        records = list(data.records)[: options.limit]
        # Batches are the same after a kill: states are saved at multiples of the batch size only.
        size = options.batch_size or (1 if localizer.device == "cpu" else 8)
        if progress:
            progress(done, len(records))
        counted = run.count(records[done:], size) if executor is None else run.share(records[done:], size, executor)
        with closing(counted):
            for rows in counted:
                for row in rows:
                    folder.add(row)
                done += len(rows)
                if progress:
                    progress(done, len(records))
                due = done - saved.done >= options.save_every and done % size == 0 and saved.save_is_due
                if due or done == len(records):
                    saved.save(done, run.arrays())
        return run.finish(folder, done)


class _Run:
    """`part`: the records are a part of a data set, which was checked as a whole."""

    def __init__(self, localizer: Localizer, data: ImageSet, options: EvalOptions, *, part: bool = False) -> None:
        self.localizer, self.data, self.options = localizer, data, options
        self.classes = class_map(localizer.class_names, data.class_names)
        if options.gt_known and self.classes is None:
            raise InputError(
                f"--gt-known needs the data's classes among the model's: {data.name} has {some(data.class_names)}, "
                f"the model {some(localizer.class_names)}"
            )
        if options.gt_known and not localizer.manifest.labels_input:
            raise InputError("--gt-known needs an artifact that takes labels: export it with the labels input")
        if not part:
            require_truth(data, options, self.classes)
        self.segmenter = None
        if "track1" in options.metrics:
            if self.classes is None:
                raise InputError(
                    f"track1 needs the data's classes among the model's: {data.name} has {some(data.class_names)}, "
                    f"the model {some(localizer.class_names)}"
                )
            self.segmenter = CamSegmenter(localizer, options.segment, classes=self.classes)
        names = [PREDICTED, *([KNOWN] if options.gt_known else []), BASELINE]
        labels = min(len(data.class_names) + 1, 255)
        self.rows = {name: MetricSet(options.metrics, options.replicates, labels) for name in names}
        self._labels = labels
        self.identity = {
            "version": __version__,
            "model": _digest(localizer.path),
            "backend": localizer.pipeline.engine,
            "data": None if part else data.fingerprint(),
            "options": options.to_dict(),
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {f"{i}|{k}": v for i, row in enumerate(self.rows.values()) for k, v in row.arrays().items()}

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Restore what `arrays` returned; empty: a new run."""
        if not arrays:
            return
        _restore(self.rows, arrays)

    def merge(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Add what `arrays` returned in another process; exact."""
        groups, replicates = self.options.metrics, self.options.replicates
        others = {name: MetricSet(groups, replicates, self._labels) for name in self.rows}
        _restore(others, arrays)
        for name, row in self.rows.items():
            row.merge(others[name])

    def count(self, records: Sequence[Record], batch_size: int) -> Generator[list[dict[str, Any]], None, None]:
        """Count records here; yields the numbers of one picture after the other, once they are counted."""
        with ExitStack() as stack:
            for record, results in self.localize(records, batch_size, stack):
                yield [self.score(record, *results)]

    def share(
        self, records: Sequence[Record], batch_size: int, executor: Executor
    ) -> Generator[list[dict[str, Any]], None, None]:
        """Let workers count records; yields the numbers of one part after the other, in the order of the records.

        Raises:
            BackendError: a worker died twice at one part.
        """
        parts = parts_of(self.localizer, self.data, self.options, records, batch_size)
        waiting: dict[int, Any] = {}
        following = 0
        with closing(executor.run(count_part, parts)) as results:
            for place, result in results:
                if isinstance(result, Died):
                    raise BackendError(
                        f"a worker died twice while it counted {len(parts[place].records)} pictures from "
                        f"{parts[place].records[0].image} on. Run the same command again without workers: it resumes "
                        "there"
                    )
                waiting[place] = result
                while following in waiting:  # in order, so that what is saved is the beginning of the data set
                    done = waiting.pop(following)
                    self.merge(done["arrays"])
                    following += 1
                    yield done["rows"]

    def true_classes(self, record: Record) -> list[int]:
        """The model's ids of a picture's labels, as far as it has them."""
        classes = self.classes or ()
        return [classes[i] for i in record.labels if i < len(classes) and classes[i] != NO_CLASS]

    def localize(
        self, records: Sequence[Record], batch_size: int, stack: ExitStack
    ) -> Iterator[tuple[Record, tuple[Localization | Failure, Localization | Failure | None]]]:
        """Each record with the localization of its predicted class, and of its true one where that is wanted."""
        keep = self.options.segment.refine is not None and self.segmenter is not None
        maps = self.localizer.manifest.top_k if self.segmenter is not None else 1

        def stream(**more: Any) -> Any:
            return stack.enter_context(
                closing(
                    self.localizer.stream(
                        [record.image for record in records],
                        batch_size=batch_size,
                        keep_image=keep,
                        refine=self.options.refine,
                        augment=self.options.augment,
                        **more,
                    )
                )
            )

        predicted = stream(top_k=maps)
        if not self.options.gt_known:
            yield from ((record, (result, None)) for record, result in zip(records, predicted, strict=True))
            return
        limit = self.localizer.manifest.top_k
        wanted = [self.true_classes(record)[:limit] or None for record in records]
        for record, labels, result, known in zip(records, wanted, predicted, stream(labels=wanted), strict=True):
            yield record, (result, known if labels else None)

    def score(
        self, record: Record, result: Localization | Failure, known: Localization | Failure | None
    ) -> dict[str, Any]:
        """Count a picture; its numbers, or why it has none."""
        for entry in (result, known):
            if isinstance(entry, Failure):
                return {"file": record.image.name, "error": str(entry.error)}
        assert not isinstance(result, Failure) and not isinstance(known, Failure)
        truth = record.truth(result.size)
        mask, boxes = truth.object_mask(), truth.object_boxes()
        row: dict[str, Any] = {
            "file": record.image.name,
            "class": result.class_name,
            "score": round(result.score, 6),
            "box": None if result.box is None else " ".join(map(str, result.box)),
            "threshold": round(result.threshold, 3),
        }
        if mask is not None:
            union = int(np.count_nonzero((result.mask | (mask == 1)) & (mask != 255)))
            row["mask_iou"] = int(np.count_nonzero(result.mask & (mask == 1))) / union if union else 1.0
        # The folder's name tells apart pictures of one name.
        key, size = f"{record.image.parent.name}/{record.image.name}", result.size
        samples = {PREDICTED: Sample(key, size, result.map, mask, boxes, *self.label_maps(truth, result, None))}
        if known is not None:
            label = record.labels[0] if len(record.labels) > 1 else None
            pairs = self.label_maps(truth, known, self.true_classes(record))
            samples[KNOWN] = Sample(key, size, known.map, truth.object_mask(label), truth.object_boxes(label), *pairs)
        middle = blob(size)
        samples[BASELINE] = Sample(key, size, middle, mask, boxes, *self.blob_labels(truth, middle))
        for name, sample in samples.items():
            row |= {f"{name}: {k}": v for k, v in self.rows[name].count(sample).items()}
        if true := self.true_classes(record):
            ranked = [entry.class_id for entry in result.topk]
            answer = Answer(true, ranked, result.box, None if known is None else known.box, known is not None)
            row |= self.rows[PREDICTED].count(Sample(key, size, boxes=boxes, answer=answer))
        return row

    def label_maps(self, truth: Truth, result: Localization, classes: list[int] | None) -> _LabelMaps:
        """For track1 the label map of a localization, and the true one.

        `classes`: those that it shows; None: those that are predicted.
        """
        true = truth.label_map()
        if self.segmenter is None or true is None:
            return None, None
        # Label maps are made of the maps before the CRF: theirs is one for all classes together.
        return self.segmenter.complete(truth.image, result.unrefined or result, labels=classes).labels, true

    def blob_labels(self, truth: Truth, middle: npt.NDArray[np.uint8]) -> _LabelMaps:
        """For track1 the blob's label map (its upper half is the picture's first class), and the true one."""
        true = truth.label_map()
        if self.segmenter is None or true is None or not truth.labels:
            return None, None
        return (np.uint8(truth.labels[0] + 1) * (middle >= 128)).astype(np.uint8), true

    def finish(self, folder: RunFolder, done: int) -> dict[str, Any]:
        """Write results.json and images.csv."""
        failures: list[dict[str, Any]] = []
        columns: dict[str, None] = {}
        without_object = 0
        for row in folder.records():
            if not (isinstance(row.get("file"), str) and isinstance(row.get("error", ""), str) and _numbers(row)):
                raise OutputError(
                    f"{folder.folder}: a record in it is not from an evaluation: it is damaged. Remove the folder to "
                    "start again"
                )
            columns |= dict.fromkeys(row)
            if "error" in row:
                failures.append({"file": row["file"], "error": row["error"]})
            without_object += row.get(f"{PREDICTED}: pxap", 0) is None
        if len(failures) == done:
            raise DataError(f"none of the {done} pictures could be read: {failures[0]['error']}")
        require_object(self.data, self.rows[PREDICTED])
        results = {
            "identity": self.identity,
            "model": self.localizer.path.name if self.localizer.path else None,
            "manifest": self.localizer.manifest.model_dump(mode="json", exclude={"class_names"}),
            "data": {
                "name": self.data.name,
                "images": done,
                "classes": len(self.data.class_names),
                "class_names": list(self.data.class_names),
            },
            "notes": list(
                notes(
                    self.localizer.manifest,
                    self.data,
                    self.classes,
                    self.options,
                    failures=len(failures),
                    without_object=without_object,
                )
            ),
            "failures": failures,
            "rows": {name: row.to_dict() for name, row in self.rows.items()},
            "above_baseline": {
                # The blob's label maps are given the true class: only those of the same kind compare.
                name: differences(row, self.rows[BASELINE], leave_out=() if name == KNOWN else ("track1",))
                for name, row in self.rows.items()
                if name != BASELINE
            },
        }
        content = json.dumps(results, indent=1, sort_keys=True, allow_nan=False) + "\n"
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(columns), restval="")
        writer.writeheader()
        writer.writerows(folder.records())
        folder.write("images.csv", encode_text(table.getvalue()))
        folder.write("results.json", content.encode())
        return results


def _restore(rows: dict[str, MetricSet], arrays: dict[str, npt.NDArray[Any]]) -> None:
    for index, row in enumerate(rows.values()):
        prefix = f"{index}|"
        row.restore({k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})


def count_part(part: Part) -> dict[str, Any]:
    """In a worker: the numbers of a part's pictures, and their sums as `_Run.arrays` returns them."""
    run = _Run(localizer_of(part), part.data(), part.options, part=True)
    rows = [row for counted in run.count(part.records, part.batch_size) for row in counted]
    return {"rows": rows, "arrays": run.arrays()}


def _digest(path: Path | None) -> str | None:
    if path is None or path.is_file():
        return None if path is None else file_sha256(path)
    weights = path / "model.safetensors"
    return file_sha256(weights) if weights.is_file() else None
