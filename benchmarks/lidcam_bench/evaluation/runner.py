"""Run an artifact over a data set, count, and be able to go on after a kill."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_bench.data.sets import EvalRecord, EvalSet, fingerprint, label_truth
from lidcam_bench.evaluation.metric_set import GROUPS, Board, blob, differences, evaluator_box, truth_boxes
from lidcam_bench.evaluation.notes import NO_CLASS, notes, some, swapped_hint
from lidcam_bench.evaluation.state import SavedSums
from lidcam_bench.metrics import LocalizationAccuracy
from lidcam_rt.crf import CrfOptions, Refine
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.files import file_sha256
from lidcam_rt.localizer import Localizer
from lidcam_rt.results import Failure, Localization
from lidcam_rt.runs import RunFolder
from lidcam_rt.segmenter import Segmenter, SegmentOptions
from lidcam_rt.version import __version__

__all__ = ["EvalOptions", "class_map", "evaluate"]

PREDICTED, KNOWN, BASELINE = "predicted class", "ground-truth class", "baseline: centred blob"


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """How an evaluation is run.

    Attributes:
        metrics: of track3, wsol, track1.
        gt_known: score the true class's map too, as a row of its own.
        replicates: bootstrap copies for the 95% intervals; 0 for none.
        limit: score the first pictures only; None for all.
        batch_size: pictures per network call; None: 1 on the CPU, 8 on a GPU.
        save_every: least number of pictures between two saved states (fewer saves where they take over 5% of the
            time).
        segment: how label maps are made, for track1 (with a CRF of their own).
        refine: how maps, masks and boxes are refined, as in a call of the Localizer; None: not at all.
    """

    metrics: tuple[str, ...] = ("track3", "wsol")
    gt_known: bool = False
    replicates: int = 200
    limit: int | None = None
    batch_size: int | None = None
    save_every: int = 20
    segment: SegmentOptions = field(default_factory=SegmentOptions)
    refine: Refine | CrfOptions | str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in GROUPS]
        if unknown or not self.metrics:
            raise InputError(f"metrics are some of {', '.join(GROUPS)}, got {', '.join(self.metrics) or 'none'}")
        Refine.of(self.refine)
        for name in ("batch_size", "save_every", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")

    def to_dict(self) -> dict[str, Any]:
        """All that results depend on, as plain values; `crf` and `crf_size` say how maps are refined."""
        refine, of_labels = Refine.of(self.refine), Refine.of(self.segment.refine)
        segment = asdict(self.segment)
        del segment["refine"]
        segment["crf"] = None if of_labels is None else asdict(of_labels)["crf"]
        options = {k: v for k, v in asdict(self).items() if k not in ("save_every", "refine")}
        return options | {
            "segment": segment,
            "crf": None if refine is None else refine.to_dict(),
            "crf_size": "network" if refine is None else refine.size,
        }


def class_map(model: tuple[str, ...], data: tuple[str, ...]) -> tuple[int, ...] | None:
    """Index in the model of each class of the data, by name; -1 where it has none; None where it has none at all."""
    index = {name.casefold(): i for i, name in enumerate(model)}
    found = tuple(index.get(name.casefold(), NO_CLASS) for name in data)
    return found if any(i != NO_CLASS for i in found) else None


def evaluate(
    localizer: Localizer,
    data: EvalSet,
    out: str | os.PathLike[str],
    options: EvalOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score an artifact on a data set.

    Writes results.json (no times in it: the same bytes for the same work, also when it was interrupted
    and resumed) and images.csv. While under way, state.npz and results.jsonl hold what was done; a run with
    the same model, data and options resumes there. Decoding and the network run in threads of their own, ahead
    of the counting.

    Args:
        localizer: the artifact, loaded.
        data: of `open_data`.
        out: folder, made if it is not there.
        options: see there.
        progress: called with (done, all).

    Returns:
        What results.json holds.

    Raises:
        DataError: masks or labels do not fit the pictures.
        OutputError: the folder cannot be written, another process is writing into it, or it holds a run of another
            model, data set or options.
    """
    options = options or EvalOptions()
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
        with ExitStack() as stack:
            for record, results in run.localize(records[done:], size, stack):
                folder.add(run.score(record, *results))
                done += 1
                if progress:
                    progress(done, len(records))
                due = done - saved.done >= options.save_every and done % size == 0 and saved.save_is_due
                if due or done == len(records):
                    saved.save(done, run.arrays())
        return run.finish(folder, done)


class _Run:
    def __init__(self, localizer: Localizer, data: EvalSet, options: EvalOptions) -> None:
        self.localizer, self.data, self.options = localizer, data, options
        self.classes = class_map(localizer.class_names, data.class_names)
        if options.gt_known and self.classes is None:
            raise InputError(
                f"--gt-known needs the data's classes among the model's: {data.name} has {some(data.class_names)}, "
                f"the model {some(localizer.class_names)}"
            )
        if options.gt_known and not localizer.manifest.labels_input:
            raise InputError("--gt-known needs an artifact that takes labels: export it with the labels input")
        self.segmenter = None
        if "track1" in options.metrics:
            if self.classes is None:
                raise InputError(
                    f"track1 needs the data's classes among the model's: {data.name} has {some(data.class_names)}, "
                    f"the model {some(localizer.class_names)}"
                )
            self.segmenter = Segmenter(localizer, options.segment, classes=self.classes)
        names = [PREDICTED, *([KNOWN] if options.gt_known else []), BASELINE]
        labels = min(len(data.class_names) + 1, 255)
        self.boards = {name: Board(options.metrics, options.replicates, labels) for name in names}
        self.identity = {
            "version": __version__,
            "model": _digest(localizer.path),
            "backend": f"{localizer.backend.name} on {localizer.device}",
            "data": fingerprint(data),
            "options": options.to_dict(),
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {f"{i}|{k}": v for i, board in enumerate(self.boards.values()) for k, v in board.arrays().items()}

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take up what `arrays` gave; empty: a new run."""
        if not arrays:
            return
        for index, board in enumerate(self.boards.values()):
            prefix = f"{index}|"
            board.restore({k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})

    def true_classes(self, record: EvalRecord) -> list[int]:
        """The model's ids of a picture's labels, as far as it has them."""
        classes = self.classes or ()
        return [classes[i] for i in record.labels if i < len(classes) and classes[i] != NO_CLASS]

    def localize(
        self, records: Sequence[EvalRecord], batch_size: int, stack: ExitStack
    ) -> Iterator[tuple[EvalRecord, tuple[Localization | Failure, Localization | Failure | None]]]:
        """Each record with the localization of its predicted class, and of its true one where that is wanted."""
        keep = self.options.segment.refine is not None and self.segmenter is not None
        most = self.localizer.manifest.top_k if self.segmenter is not None else 1

        def stream(**more: Any) -> Any:
            return stack.enter_context(
                closing(
                    self.localizer.stream(
                        [record.image for record in records],
                        batch_size=batch_size,
                        keep_image=keep,
                        refine=self.options.refine,
                        **more,
                    )
                )
            )

        predicted = stream(top_k=most)
        if not self.options.gt_known:
            yield from ((record, (result, None)) for record, result in zip(records, predicted, strict=True))
            return
        limit = self.localizer.manifest.top_k
        wanted = [self.true_classes(record)[:limit] or None for record in records]
        for record, labels, result, known in zip(records, wanted, predicted, stream(labels=wanted), strict=True):
            yield record, (result, known if labels else None)

    def score(
        self, record: EvalRecord, result: Localization | Failure, known: Localization | Failure | None
    ) -> dict[str, Any]:
        """Count a picture; its numbers, or why it has none."""
        for entry in (result, known):
            if isinstance(entry, Failure):
                return {"file": record.image.name, "error": str(entry.error)}
        assert not isinstance(result, Failure) and not isinstance(known, Failure)
        # The folder's name tells apart pictures of one name.
        key = f"{record.image.parent.name}/{record.image.name}"
        mask = record.read_mask()
        if mask is not None and mask.shape != result.map.shape:
            raise DataError(
                f"{record.image}: picture has (height, width) {result.map.shape}, its mask {mask.shape}: they must be "
                f"equal{swapped_hint(mask.shape, result.map.shape)}"
            )
        boxes = truth_boxes(record.boxes, mask, result.size, str(record.image))
        row: dict[str, Any] = {
            "file": record.image.name,
            "class": result.class_name,
            "score": round(result.score, 6),
            "box": None if result.box is None else " ".join(map(str, result.box)),
            "threshold": round(result.threshold, 3),
        }
        if mask is not None:
            seen, object_ = mask != 255, (mask > 0) & (mask < 255)
            union = int(np.count_nonzero((result.mask | object_) & seen))
            row["mask_iou"] = int(np.count_nonzero(result.mask & object_)) / union if union else 1.0
        truth = label_truth(record, mask)
        self._count(row, PREDICTED, key, result.map, mask, boxes)
        self._count_labels(row, PREDICTED, key, truth, record, result)
        if known is not None:
            own, own_boxes = _of_one_class(record, mask, boxes, result.size)
            self._count(row, KNOWN, key, known.map, own, own_boxes)
            self._count_labels(row, KNOWN, key, truth, record, known)
        middle = blob(result.size)
        self._count(row, BASELINE, key, middle, mask, boxes)
        self._count_labels(row, BASELINE, key, truth, record, middle)
        accuracy = self.boards[PREDICTED].metrics.get("localization")
        if isinstance(accuracy, LocalizationAccuracy) and (labels := self.true_classes(record)):
            size = result.size
            row |= accuracy.update(
                labels,
                [entry.class_id for entry in result.topk],
                truth=boxes,
                box=None if result.box is None else evaluator_box(result.box, size),
                known_box=None if known is None or known.box is None else evaluator_box(known.box, size),
                known=known is not None,
                key=key,
            )
        return row

    def _count(self, row: dict[str, Any], name: str, key: str, map8: Any, mask: Any, boxes: Any) -> None:
        own = self.boards[name].update(key, map8, mask, boxes)
        row |= {f"{name}: {k}": v for k, v in own.items()}

    def _count_labels(
        self,
        row: dict[str, Any],
        name: str,
        key: str,
        truth: npt.NDArray[np.uint8] | None,
        record: EvalRecord,
        found: Localization | npt.NDArray[np.uint8],
    ) -> None:
        """Track 1: the label map of a localization, or of the blob (its upper half is the picture's first class)."""
        if self.segmenter is None or truth is None:
            return
        if isinstance(found, np.ndarray):
            labels = (np.uint8(record.labels[0] + 1) * (found >= 128)).astype(np.uint8) if record.labels else None
        else:
            true = self.true_classes(record) if name == KNOWN else None
            # Label maps are made of the maps before the CRF: theirs is one for all classes together.
            labels = self.segmenter.complete(record.image, found.unrefined or found, labels=true).labels
        if labels is not None:
            row[f"{name}: image_mean_iou"] = self.boards[name].update_labels(key, labels, truth)

    def finish(self, folder: RunFolder, done: int) -> dict[str, Any]:
        """Write results.json and images.csv."""
        failures: list[dict[str, Any]] = []
        columns: dict[str, None] = {}
        for row in folder.records():
            columns |= dict.fromkeys(row)
            if "error" in row:
                failures.append({"file": row["file"], "error": row["error"]})
        if len(failures) == done:
            raise DataError(f"none of the {done} pictures could be read: {failures[0]['error']}")
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
            "notes": list(notes(self.localizer.manifest, self.data, self.classes, self.options, failures)),
            "failures": failures,
            "rows": {name: board.to_dict() for name, board in self.boards.items()},
            "above_baseline": {
                # The blob's label maps are given the true class: only those of the same kind compare.
                name: differences(board, self.boards[BASELINE], leave_out=() if name == KNOWN else ("track1",))
                for name, board in self.boards.items()
                if name != BASELINE
            },
        }
        content = json.dumps(results, indent=1, sort_keys=True, allow_nan=False) + "\n"
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(columns), restval="")
        writer.writeheader()
        writer.writerows(folder.records())
        folder.write("images.csv", table.getvalue().encode())
        folder.write("results.json", content.encode())
        return results


def _of_one_class(
    record: EvalRecord, mask: npt.NDArray[np.uint8] | None, boxes: Any, size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8] | None, Any]:
    """Mask and boxes of the first class of a picture with several, where its mask tells them apart."""
    if mask is None or len(record.labels) < 2 or getattr(record, "mask_values", "classes") != "classes":
        return mask, boxes
    own = np.where(mask == 255, 255, mask == record.labels[0] + 1).astype(np.uint8)
    return (own, truth_boxes((), own, size)) if (own == 1).any() else (mask, boxes)


def _digest(path: Path | None) -> str | None:
    if path is None or path.is_file():
        return None if path is None else file_sha256(path)
    weights = path / "model.safetensors"
    return file_sha256(weights) if weights.is_file() else None
