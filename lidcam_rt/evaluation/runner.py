"""Run an artifact over a data set, count, and be able to go on after a kill."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import file_sha256
from lidcam_rt.errors import DataError, InputError, OutputError
from lidcam_rt.evaluation.board import GROUPS, Board, blob, evaluator_box, truth_boxes
from lidcam_rt.evaluation.data import EvalRecord, EvalSet, fingerprint
from lidcam_rt.predictor import Localizer
from lidcam_rt.results import Failure, Localization
from lidcam_rt.version import __version__

__all__ = ["EvalOptions", "class_map", "evaluate", "write_atomically"]

PREDICTED, KNOWN, BASELINE = "predicted class", "ground-truth class", "baseline: centred blob"


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """How an evaluation is run.

    Attributes:
        metrics: of track3, wsol, track1.
        gt_known: score the true class's map too, as a row of its own.
        replicates: bootstrap copies for the 95% intervals; 0 for none.
        limit: score the first pictures only; None for all.
        batch_size: pictures per network call.
        save_every: pictures between two saved states.
    """

    metrics: tuple[str, ...] = ("track3", "wsol")
    gt_known: bool = False
    replicates: int = 200
    limit: int | None = None
    batch_size: int = 4
    save_every: int = 20

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in GROUPS]
        if unknown or not self.metrics:
            raise InputError(
                f"metrics are some of {', '.join(GROUPS)}, got {', '.join(self.metrics) or 'none'}"
            )
        for name in ("batch_size", "save_every", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")


def class_map(model: tuple[str, ...], data: tuple[str, ...]) -> tuple[int, ...] | None:
    """Index in the model of each class of the data, by name; None where one is not found."""
    index = {name.casefold(): i for i, name in enumerate(model)}
    if not data or any(name.casefold() not in index for name in data):
        return None
    return tuple(index[name.casefold()] for name in data)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None


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
    and resumed) and images.csv. While under way, state.npz and rows.jsonl hold what was done; a run with
    the same model, data and options goes on from there.

    Args:
        localizer: the artifact, loaded.
        data: of `open_data`.
        out: folder, made if it is not there.
        options: see there.
        progress: called with (done, all).

    Returns:
        What results.json holds.

    Raises:
        InputError: the folder holds a run of another model, data set or options.
        DataError: masks or labels do not fit the pictures.
        OutputError: the folder cannot be written.
    """
    options = options or EvalOptions()
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error}") from None
    run = _Run(localizer, data, folder, options)
    run.resume()
    records = list(data.records)[: options.limit]
    while run.done < len(records):
        chunk = records[run.done : run.done + options.batch_size]
        run.score(chunk)
        if progress:
            progress(run.done, len(records))
        before = run.done - len(chunk)
        if run.done == len(records) or run.done // options.save_every != before // options.save_every:
            run.save()
    return run.finish()


class _Run:
    def __init__(self, localizer: Localizer, data: EvalSet, folder: Path, options: EvalOptions) -> None:
        self.localizer, self.data, self.folder, self.options = localizer, data, folder, options
        self.classes = class_map(localizer.class_names, data.class_names)
        if options.gt_known and self.classes is None:
            raise InputError(
                f"--gt-known needs the data's classes among the model's: {data.name} has {_some(data.class_names)}, "
                f"the model {_some(localizer.class_names)}"
            )
        names = [PREDICTED, *([KNOWN] if options.gt_known else []), BASELINE]
        self.boards = {
            name: Board(
                [g for g in options.metrics if g != "track1" or name != BASELINE],
                options.replicates,
                min(len(data.class_names) + 1, 255),
            )
            for name in names
        }
        self.rows: list[dict[str, Any]] = []
        self.done = 0
        self.identity = {
            "version": __version__,
            "model": None if localizer.path is None else file_sha256(localizer.path),
            "backend": f"{localizer.backend.name} on {localizer.device}",
            "data": fingerprint(data),
            "options": {k: v for k, v in asdict(options).items() if k != "save_every"},
        }

    def _state(self) -> Path:
        return self.folder / "state.npz"

    def resume(self) -> None:
        """Take up a state of the same run; refuse another's."""
        path = self._state()
        if not path.is_file():
            return
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(bytes(arrays.pop("about")).decode())
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it to start again") from None
        if about["identity"] != json.loads(json.dumps(self.identity)):
            now = json.loads(json.dumps(self.identity))
            differs = ", ".join(k for k, v in now.items() if about["identity"].get(k) != v)
            raise InputError(
                f"{self.folder} holds a run with another {differs}: choose another --out, or remove it"
            )
        for index, board in enumerate(self.boards.values()):
            prefix = f"{index}|"
            board.restore({k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})
        self.rows = about["rows"]
        self.done = len(self.rows)

    def save(self) -> None:
        """Write the state, whole or not at all."""
        about = json.dumps({"identity": self.identity, "rows": self.rows}).encode()
        arrays: dict[str, Any] = {"about": np.frombuffer(about, np.uint8)}
        for index, board in enumerate(self.boards.values()):
            arrays |= {f"{index}|{k}": v for k, v in board.arrays().items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(self._state(), buffer.getvalue())

    def score(self, chunk: list[EvalRecord]) -> None:
        """Localize and count some pictures."""
        files = [record.image for record in chunk]
        found = self.localizer.batch(files, keep_image=False, on_error="yield")
        known: list[Localization | Failure | None] = [None] * len(chunk)
        if self.options.gt_known and self.classes is not None:
            labels = [self.classes[r.labels[0]] if r.labels else None for r in chunk]
            known = list(self.localizer.batch(files, labels=labels, keep_image=False, on_error="yield"))
        for record, result, true in zip(chunk, found, known, strict=True):
            row: dict[str, Any] = {"file": str(record.image.name)}
            if isinstance(result, Failure) or isinstance(true, Failure):
                failure = result if isinstance(result, Failure) else true
                row["error"] = str(failure.error) if isinstance(failure, Failure) else "unknown"
            else:
                row |= self._count(record, result, true if record.labels else None)
            self.rows.append(row)
            self.done += 1

    def _count(self, record: EvalRecord, result: Localization, known: Localization | None) -> dict[str, Any]:
        # The folder's name tells apart pictures of one name.
        key = f"{record.image.parent.name}/{record.image.name}"
        mask = record.read_mask()
        boxes = truth_boxes(record.boxes, mask, result.size)
        row: dict[str, Any] = {
            "class": result.class_name,
            "score": round(result.score, 6),
            "box": None if result.box is None else " ".join(map(str, result.box)),
            "threshold": round(result.threshold, 3),
        }
        if mask is not None and mask.shape == result.mask.shape:
            seen, object_ = mask != 255, (mask > 0) & (mask < 255)
            union = int(np.count_nonzero((result.mask | object_) & seen))
            row["mask_iou"] = int(np.count_nonzero(result.mask & object_)) / union if union else 1.0
        for name, board in self.boards.items():
            entry = {PREDICTED: result, KNOWN: known}.get(name)
            if name == KNOWN and entry is None:
                continue
            map8 = blob(result.size) if entry is None else entry.map
            labels = None if entry is None else self._label_map(entry)
            own = board.update(key, map8, mask, boxes, labels)
            row |= {f"{name}: {k}": v for k, v in own.items()}
        accuracy = self.boards[PREDICTED].metrics.get("localization")
        if accuracy is not None and self.classes is not None and record.labels:
            size = result.size
            right = accuracy.update(  # type: ignore[attr-defined]
                [self.classes[label] for label in record.labels],
                [entry.class_id for entry in result.topk],
                truth=boxes,
                box=None if result.box is None else evaluator_box(result.box, size),
                known_box=None if known is None or known.box is None else evaluator_box(known.box, size),
                known=known is not None,
                key=key,
            )
            row |= right
        return row

    def _label_map(self, result: Localization) -> npt.NDArray[np.uint8] | None:
        if "track1" not in self.options.metrics or self.classes is None:
            return None
        out = np.zeros(result.map.shape, np.uint8)
        if result.class_id in self.classes:
            out[result.mask] = self.classes.index(result.class_id) + 1
        return out

    def finish(self) -> dict[str, Any]:
        """Write results.json and images.csv."""
        failures = [{"file": row["file"], "error": row["error"]} for row in self.rows if "error" in row]
        if len(failures) == len(self.rows):
            raise DataError(f"none of the {len(self.rows)} pictures could be read: {failures[0]['error']}")
        notes = list(_notes(self.classes, self.data, failures))
        if self.localizer.manifest.source.weights is None:
            notes.insert(
                0, "The artifact names no file of weights: they may be random, and the numbers meaningless."
            )
        results = {
            "identity": self.identity,
            "model": self.localizer.path.name if self.localizer.path else None,
            "manifest": self.localizer.manifest.model_dump(mode="json", exclude={"class_names"}),
            "data": {"name": self.data.name, "images": len(self.rows), "classes": len(self.data.class_names)},
            "notes": notes,
            "failures": failures,
            "rows": {name: board.to_dict() for name, board in self.boards.items()},
        }
        content = json.dumps(results, indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_atomically(self.folder / "results.json", content.encode())
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.folder / "images.csv", table.getvalue().encode())
        return results


def _notes(classes: tuple[int, ...] | None, data: EvalSet, failures: list[dict[str, Any]]) -> Iterator[str]:
    if classes is None:
        yield (
            "The model's classes are not those of the data: maps are those of whatever class the model predicts, and "
            "nothing about classification is counted."
        )
    if failures:
        yield f"{len(failures)} pictures could not be read and are in no number."
    if not any(record.boxes for record in data.records):
        yield "The data has no boxes: the box around each mask is the truth for the box measures."
    yield (
        "Peaks and best thresholds are chosen on the very pictures that are scored. Boxes and maps are compared at "
        "original size, 8 bits per map pixel."
    )


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} ... ({len(names)})" if len(names) > 3 else shown
