"""From an artifact and pictures to an artifact with better settings, and a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from lidcam_bench.data import ImageSet
from lidcam_bench.evaluation.notes import FEW

from lidcam_cli.loading import load_localizer
from lidcam_cli.runs import RunFolder
from lidcam_export.tuning.maps import MapSource
from lidcam_export.tuning.rewrite import both_maps, find_map_head, with_pas, with_weights
from lidcam_export.tuning.scores import Part, Scores, difference_interval, open_part, score_picture
from lidcam_export.tuning.search import Grid, Search
from lidcam_export.tuning.settings import METRICS, Settings, TuneOptions
from lidcam_rt.artifact import DefaultsSpec, Manifest, NodeCounts, TuningSpec, read_manifest
from lidcam_rt.errors import DataError, ExportError, InputError, LidcamError, OutputError
from lidcam_rt.files import file_sha256, replacing, write_atomically
from lidcam_rt.results import Failure
from lidcam_rt.version import __version__

__all__ = ["Compared", "Tuned", "tune_artifact"]

_SCHEMA = 3


@dataclass(frozen=True)
class Compared:
    """Settings before and after on one part of the data, by the artifacts themselves.

    Attributes:
        name: of the part.
        pictures: how many.
        before: each metric with the settings before.
        after: each metric with those chosen.
        intervals: 95% interval of each difference, pictures paired.
    """

    name: str
    pictures: int
    before: dict[str, float]
    after: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Tuned:
    """What `tune_artifact` did.

    Attributes:
        before: settings of the artifact that was given.
        after: those that were chosen; the same where nothing was better.
        metric: by which they were chosen.
        chosen_on: both on the pictures that they were chosen on.
        held_out: both on other pictures, or None.
        notes: what could not be chosen, and why.
    """

    before: Settings
    after: Settings
    metric: str
    chosen_on: Compared
    held_out: Compared | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "before": self.before.to_dict(), "after": self.after.to_dict()}


class _Memory:
    """Rows of pictures in the records of a run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        for record in folder.records():
            what, index, row = record.get("what"), record.get("index"), record.get("row")
            if isinstance(what, str) and isinstance(index, int) and isinstance(row, dict):
                self._rows[what, index] = row
        self.resumed = bool(self._rows)

    def get(self, what: str, index: int) -> dict[str, Any] | None:
        return self._rows.get((what, index))

    def put(self, what: str, index: int, row: dict[str, Any]) -> None:
        self._folder.add({"what": what, "index": index, "row": row})
        self._rows[what, index] = row


def tune_artifact(
    source: Path,
    output: Path,
    data: ImageSet,
    options: TuneOptions | None = None,
    *,
    report_on: ImageSet | None = None,
    note: Callable[[str], None] = lambda _: None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Tuned:
    """Choose settings on pictures and write an artifact that has them.

    While it works, the numbers of each picture are kept in the folder `OUTPUT.tuning`, from which the same call
    resumes after a kill; it is removed when the artifact is written.

    Args:
        source: the artifact; it is not changed.
        output: the .onnx file; `OUTPUT.tune.json` beside it gets the report.
        data: pictures with masks to choose on.
        options: what is chosen, and by which metric.
        report_on: other pictures with masks, for a score that had no part in the choice.
        note: called with a message for each step.
        tick: called for each picture with (what, done, all).

    Raises:
        InputError: the output is the artifact itself, or both sets of pictures are the same.
        ExportError: the artifact cannot be given other settings.
        DataError: a picture cannot be read, or has no mask.
        OutputError: the output cannot be written, or `OUTPUT.tuning` holds another run.
    """
    options = options or TuneOptions()
    manifest = read_manifest(source)
    _check_output(source, output, manifest)
    parts = {"data": _part(data, manifest)}
    if report_on is not None:
        parts["report"] = _part(report_on, manifest)
        same = {_place(record.image) for record in data.records} & {_place(r.image) for r in report_on.records}
        if same or data.fingerprint() == report_on.fingerprint():
            raise InputError(
                f"{data.name} and {report_on.name} share pictures ({min(same, default='all')}): a report needs "
                "pictures that had no part in the choice"
            )
    model = onnx.load(str(source))
    own, notes = Settings.of(manifest), []
    head = find_map_head(model, nwc=manifest.cam.nwc) if manifest.cam else None
    if options.nwc and head is None:
        notes.append("NWC stays as it is: the file has no other weights for its maps.")
    if options.views and not manifest.labels_input:
        notes.append("Views stay as they are: the artifact takes no labels.")
    elif options.views and not manifest.input.dynamic_size:
        notes.append("Views at other scales were not tried: the artifact takes one size only.")
    unknown = sum(label is None for label in parts["data"].labels)
    if unknown:
        notes.append(
            f"{unknown} of {len(data)} pictures were scored by the map of the predicted class: their own class is "
            "not one of the model's."
        )
    identity: dict[str, Any] = {
        "run": "tune",
        "version": __version__,
        "model": file_sha256(source),
        "data": data.fingerprint(),
        "report": None if report_on is None else report_on.fingerprint(),
        "options": asdict(options),
    }
    place = output.with_name(output.name + ".tuning")
    memory: _Memory | None = None
    try:
        with RunFolder(place, identity) as folder:
            memory = _Memory(folder)
            tuned_file = place / "tuned.onnx"
            both = place / "both.onnx"
            write_atomically(both, (both_maps(model, head) if head else model).SerializeToString())
            grid = Grid.around(
                own, options, signs=head is not None, other_sizes=manifest.input.dynamic_size,
                labels=manifest.labels_input,
            )  # fmt: skip
            with load_localizer(both, backend="onnxruntime") as localizer:
                other = head is not None
                maps = MapSource(localizer, other=other, nwc=own.nwc, views=grid.views)
                chosen = Search(maps, parts["data"], grid, options, memory, tick).choose(own)
            note("scoring both artifacts")
            before = _scores("before", source, parts["data"], memory, tick)
            made = _with_settings(model, manifest, chosen)
            _write(made, tuned_file)
            after = _scores(f"after {_name(chosen)}", tuned_file, parts["data"], memory, tick)
            if after.value(options.metric) <= before.value(options.metric):
                chosen, after = own, before
                notes.append("Nothing better was found: the settings stay as they are.")
            compared = _compare(data, before, after)
            held_out = None
            if report_on is not None:
                report = _scores("report before", source, parts["report"], memory, tick)
                again = report
                if chosen != own:
                    again = _scores(f"report after {_name(chosen)}", tuned_file, parts["report"], memory, tick)
                held_out = _compare(report_on, report, again)
            for part in filter(None, (compared, held_out)):
                if part.pictures < FEW:
                    notes.append(
                        f"The intervals of {part.name} are over {part.pictures} pictures, which is too few: below "
                        f"{FEW} they are mostly too narrow, and so is the evidence for views and CRF."
                    )
            result = Tuned(own, chosen, options.metric, compared, held_out, tuple(notes))
            spec = TuningSpec(
                made_of=identity["model"],
                metric=options.metric,
                data_sha256=data.fingerprint(),
                pictures=len(data),
                before=before.value(options.metric),
                after=after.value(options.metric),
            )
            made = _with_settings(model, manifest, chosen, spec)
            with replacing(output) as temporary, replacing(output.with_name(output.name + ".tune.json")) as figures:
                _write(made, temporary)
                content = {"artifact_sha256": file_sha256(temporary), "made_of": identity["model"], **result.to_dict()}
                figures.write_text(json.dumps(content, indent=1) + "\n")
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, LidcamError) or memory is None or not memory.resumed:
            raise
        raise OutputError(
            f"{place}: a record in it does not belong to this run ({type(error).__name__}: {error}): it is damaged. "
            "Remove the folder to start again"
        ) from error
    shutil.rmtree(place, ignore_errors=True)
    return result


def _check_output(source: Path, output: Path, manifest: Manifest) -> None:
    if output.suffix != ".onnx":
        raise ExportError(f"{output}: the artifact's name must end in .onnx")
    if output.resolve() == source.resolve() or (output.exists() and output.samefile(source)):
        raise InputError(f"{output} is the artifact itself: a tuned artifact is a new file, give another name")
    if manifest.cam is None:
        raise ExportError(f"{source.name} is a segmentation network: there is no map to tune")


def _place(path: Path) -> str:
    return str(path.resolve())


def _part(images: ImageSet, manifest: Manifest) -> Part:
    return open_part(images, manifest.class_names, labels_input=manifest.labels_input)


def _name(settings: Settings) -> str:
    return json.dumps(settings.to_dict())


def _with_settings(
    model: onnx.ModelProto, manifest: Manifest, settings: Settings, tuning: TuningSpec | None = None
) -> tuple[onnx.ModelProto, Manifest]:
    """The artifact with these settings, in graph and manifest."""
    assert manifest.cam is not None
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if settings.nwc != manifest.cam.nwc:
        head = find_map_head(model, nwc=manifest.cam.nwc)
        assert head is not None
        with_weights(made, head)
    pas = replace(manifest.pas, percentile=settings.percentile, theta=settings.theta)
    made = with_pas(made, pas)
    nodes = NodeCounts(traced=(manifest.nodes or _counts(made)).traced, written=len(made.graph.node))
    updated = manifest.model_copy(
        update={
            "schema_version": max(_SCHEMA, manifest.schema_version),
            "cam": manifest.cam.model_copy(update={"nwc": settings.nwc}),
            "pas": pas,
            "nodes": nodes,
            "defaults": DefaultsSpec(
                scales=settings.views.scales, flip=settings.views.flip, refine=settings.refine
            ),
            "tuning": tuning,
        }
    )
    return made, updated


def _counts(model: onnx.ModelProto) -> NodeCounts:
    return NodeCounts(traced=len(model.graph.node), written=len(model.graph.node))


def _write(made: tuple[onnx.ModelProto, Manifest], path: Path) -> None:
    model, manifest = made
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, manifest.to_metadata())
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _scores(
    what: str, path: Path, part: Part, memory: _Memory, tick: Callable[[str, int, int], None]
) -> Scores:
    """The scores of a file as `lidcam_rt.load` runs it, with nothing set but the class."""
    records, rows = part.images.records, []
    known = 0
    while known < len(records) and (row := memory.get(what, known)) is not None:
        rows.append(row)
        known += 1
    with load_localizer(path) as localizer:
        labels = part.labels[known:] if localizer.manifest.labels_input else None
        images = [record.image for record in records[known:]]
        with closing(localizer.stream(images, labels=labels, keep_image=False)) as stream:
            for index, result in enumerate(stream, start=known):
                if isinstance(result, Failure):
                    raise DataError(f"{result.error}; settings are chosen on every picture")
                truth, mask = part.truth(index, result.size)
                label = truth.labels[0] if len(truth.labels) > 1 else None
                row = score_picture(truth, mask, label, result.mask, result.map, result.box)
                memory.put(what, index, row)
                rows.append(row)
                tick(what.partition(" {")[0], len(rows), len(records))
    return Scores.of(rows)


def _compare(images: ImageSet, before: Scores, after: Scores) -> Compared:
    intervals: dict[str, tuple[float, float]] = {name: difference_interval(before, after, name) for name in METRICS}
    return Compared(images.name, len(images), before.to_dict(), after.to_dict(), intervals)
