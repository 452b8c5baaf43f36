"""One command: data, CAM network, pseudo labels, segmentation networks, artifacts, scores, table; each step resumes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lidcam_bench.data import ImageSet, open_data
from lidcam_bench.evaluation.metric_set import MetricSet
from lidcam_bench.evaluation.options import EvalOptions
from lidcam_bench.evaluation.segmentation import evaluate_segmenter
from lidcam_bench.metrics import SegmentationScores
from lidcam_training.data.scenes import make_scenes, make_stamp_scenes
from lidcam_training.fit import fit
from lidcam_training.pseudo.gallery import gallery_sheet
from lidcam_training.pseudo.network import open_network
from lidcam_training.pseudo.options import PseudoOptions
from lidcam_training.pseudo.run import pseudo_labels
from lidcam_training.recipe import Recipe, SegmentRecipe, read_any_recipe

from lidcam_cli.runs import RunFolder
from lidcam_export.exporter import export_artifact
from lidcam_export.options import ExportOptions
from lidcam_export.segmentation import export_segmentation
from lidcam_export.track1.options import Track1Options
from lidcam_export.track1.rows import ROWS, SplitRows, blob_scores, choose, score_row, scored
from lidcam_export.track1.table import write_table
from lidcam_rt.errors import InputError
from lidcam_rt.files import file_sha256, write_atomically
from lidcam_rt.loading import load
from lidcam_rt.segmentation import Segmenter
from lidcam_rt.version import __version__

__all__ = ["run_track1"]

#: Data sets that the command makes, with their makers.
MADE = {"scenes": make_scenes, "scenes-stamps": make_stamp_scenes}
BLOB = "centred blob"
PREDICTED = "CAM label maps, predicted classes"
NETWORKS = {"segment_pseudo": "network trained on pseudo labels", "segment_exact": "network trained on exact masks"}


def run_track1(out: Path, options: Track1Options, *, note: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run all steps that are not done yet.

    Args:
        out: folder, held by one process; the same call again resumes where it stopped, and may add seeds.
        options: how.
        note: called with a message for each step.

    Returns:
        What OUT/track1.json holds.

    Raises:
        OutputError: the folder is in use, or holds a run of other options.
        LidcamError: a step failed.
    """
    _recipes(options, "", options.seeds[0])  # errors in them are reported before anything is made
    asked = {key: value for key, value in dataclasses.asdict(options).items() if key != "seeds"}
    asked |= {key: None if asked[key] is None else str(asked[key]) for key in ("source", "backgrounds")}
    with RunFolder(out, {"run": "track1", "version": __version__, **asked}):
        source = _data(out, options, note)
        records = [_seed(out / f"seed{seed}", source, seed, options, note) for seed in options.seeds]
        return write_table(out, options, source, records)


def _data(out: Path, options: Track1Options, note: Callable[[str], None]) -> str:
    """The data set, made where it is one that can be made."""
    if options.data not in MADE:
        return options.data
    folder = out / "data"
    if not (folder / "dataset.json").is_file():
        note(f"data: making {options.data}")
        sizes = {} if options.sizes is None else dict(zip(("train", "val", "test"), options.sizes, strict=True))
        MADE[options.data](folder, source=options.source, backgrounds=options.backgrounds, **sizes)
    return f"{options.data}:{folder}"


def _seed(
    folder: Path, source: str, seed: int, options: Track1Options, note: Callable[[str], None]
) -> dict[str, Any]:
    """All of one seed."""
    cam, segment = _recipes(options, source, seed)
    note(f"seed {seed}: CAM network ({options.cam_recipe})")
    checkpoint = fit(cam, folder / "cam", progress=False)
    train = SplitRows(checkpoint, open_data(source, "train"), limit=options.limit)
    rows = _map_rows(folder, checkpoint, source, train, options, note)
    best = max((row for row in rows if row["crf"]), key=lambda row: row["val"]["mean_iou"])
    note(f"seed {seed}: pseudo labels of {best['name']}")
    labels = _labels(folder / "pseudo", checkpoint, train, _options(best["options"]), options.limit)
    if "picture_iou" in labels:
        sheet = gallery_sheet(train.images.records, folder / "pseudo", labels["picture_iou"])
        write_atomically(folder / "pseudo" / "gallery.png", sheet)
    test = open_data(source, "test")
    networks = {}
    segment = _started(segment, cam, checkpoint, options)
    for name, labelled in (("segment_pseudo", str(folder / "pseudo")), ("segment_exact", None)):
        note(f"seed {seed}: {NETWORKS[name]} ({options.segment_recipe})")
        recipe = dataclasses.replace(segment, labels=dataclasses.replace(segment.labels, folder=labelled))
        trained = fit(recipe, folder / name, progress=False)
        networks[NETWORKS[name]] = _network_row(folder, name, trained, test, options, note)
    artifact = folder / "cam.onnx"
    if not _is_of(artifact, checkpoint):
        note(f"seed {seed}: exporting the CAM network")
        best_options = _options(best["options"])
        export_artifact(
            str(checkpoint), artifact,
            ExportOptions(nwc=best_options.nwc, percentile=best_options.percentile, theta=best_options.level, top_k=4),
        )  # fmt: skip
    metrics = json.loads((checkpoint / "checkpoint.json").read_text())["metrics"]
    return {
        "seed": seed, "rows": rows, "labels_of": best["name"], "labels_sha256": labels["labels_sha256"],
        "networks": networks, "cam_metrics": metrics,
    }  # fmt: skip


def _recipes(options: Track1Options, source: str, seed: int) -> tuple[Recipe, SegmentRecipe]:
    """The recipes of the CAM network and of the segmentation networks.

    Raises:
        InputError: a recipe is of the other task, or cannot be read.
    """
    more = [f"data.source={source}", f"seed={seed}"]
    cam = read_any_recipe(options.cam_recipe, [*more, *options.of("cam")])
    segment = read_any_recipe(options.segment_recipe, [*more, *options.of("segment")])
    if not isinstance(cam, Recipe):
        raise InputError(f"--cam-recipe {options.cam_recipe} trains a segmentation network: give a classifier's recipe")
    if not isinstance(segment, SegmentRecipe):
        raise InputError(f"--segment-recipe {options.segment_recipe} trains a classifier, not a segmentation network")
    return cam, segment


def _started(segment: SegmentRecipe, cam: Recipe, checkpoint: Path, options: Track1Options) -> SegmentRecipe:
    """An encoder that is the CAM network's backbone starts from its weights, unless the overrides name others."""
    given = any(entry.startswith(("network.weights=", "network.pretrained=")) for entry in options.of("segment"))
    if given or segment.network.encoder != cam.model.backbone:
        return segment
    return dataclasses.replace(
        segment, network=dataclasses.replace(segment.network, weights=f"checkpoint:{checkpoint}", pretrained=False)
    )


def _options(values: dict[str, Any]) -> PseudoOptions:
    """Options from JSON."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return PseudoOptions(**plain)


def _map_rows(
    folder: Path,
    checkpoint: Path,
    source: str,
    train: SplitRows,
    options: Track1Options,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """The rows that are made of activation maps: one record each, kept as they are done."""
    splits = {"val": open_data(source, "val"), "train": train.images, "test": open_data(source, "test")}
    identity = {
        "run": "track1 rows",
        "version": __version__,
        "checkpoint": file_sha256(checkpoint / "model.safetensors"),
        "data": {name: images.fingerprint() for name, images in splits.items()},
        "replicates": options.replicates,
        "limit": options.limit,
        "rows": [dataclasses.asdict(row) for row in ROWS],
    }
    with RunFolder(folder / "rows", identity) as run:
        done = {record["name"]: record for record in run.records()}
        val = SplitRows(checkpoint, splits["val"])
        if BLOB not in done:
            done[BLOB] = {
                "name": BLOB, "options": None, "crf": False,
                **{
                    name: blob_scores(images, options.replicates, options.limit if name == "train" else None)
                    for name, images in splits.items()
                },
            }  # fmt: skip
            run.add(done[BLOB])
        for row in ROWS:
            if row.name in done:
                continue
            note(f"pseudo labels: {row.name}")
            chosen, tried = choose(row, val)
            record: dict[str, Any] = {
                "name": row.name, "options": chosen.to_dict(), "crf": row.base.crf is not None, "tried": tried,
                "val": score_row(chosen, val.maps(chosen), options.replicates),
                "train": score_row(chosen, train.maps(chosen), options.replicates),
            }  # fmt: skip
            run.add(record)
            done[row.name] = record
        if PREDICTED not in done:
            best = max((r for r in done.values() if r["crf"]), key=lambda r: r["val"]["mean_iou"])
            note(f"test: CAM label maps of {best['name']}, true and predicted classes")
            chosen = _options(best["options"])
            predicted, true = SplitRows(checkpoint, splits["test"]).predicted(chosen)
            scores = {
                "test": score_row(chosen, predicted, options.replicates),
                "test, true classes": score_row(chosen, true, options.replicates),
            }
            done[PREDICTED] = {"name": PREDICTED, "options": best["options"], "crf": False, **scores}
            run.add(done[PREDICTED])
    return list(done.values())


def _labels(
    out: Path, checkpoint: Path, train: SplitRows, chosen: PseudoOptions, limit: int | None
) -> dict[str, Any]:
    """The pseudo labels, from the maps behind the rows; maps are made again only where labels are missing."""
    network = open_network(checkpoint)
    whole = (out / "results.json").is_file()
    maps = None if whole else train.maps(chosen)
    return pseudo_labels(network, train.images, out, chosen, limit=limit, maps=maps)


def _network_row(
    folder: Path, name: str, checkpoint: Path, test: ImageSet, options: Track1Options, note: Callable[[str], None]
) -> dict[str, Any]:
    """A segmentation network exported and scored on test in the runtime."""
    artifact = folder / f"{name}.onnx"
    if not _is_of(artifact, checkpoint):
        note(f"exporting {artifact.name}")
        export_segmentation(checkpoint, artifact)
    out = folder / f"eval_{name}"
    with load(artifact) as segmenter:
        assert isinstance(segmenter, Segmenter)
        evaluate_segmenter(segmenter, test, out, EvalOptions(metrics=("track1",), replicates=options.replicates))
    sums = MetricSet(("track1",), options.replicates, len(test.class_names) + 1)
    with np.load(out / "state.npz", allow_pickle=False) as arrays:
        sums.restore({key: arrays[key] for key in arrays.files if key != "done"})
    metric = sums.metrics["track1"]
    assert isinstance(metric, SegmentationScores)
    return {"test": scored(metric), "artifact_sha256": file_sha256(artifact)}


def _is_of(artifact: Path, checkpoint: Path) -> bool:
    """Whether an artifact was exported from the weights of a checkpoint."""
    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.errors import ArtifactError

    try:
        manifest = read_manifest(artifact)
    except ArtifactError:
        return False
    digest = file_sha256(checkpoint / "model.safetensors")
    return manifest.source.weights_sha256 == digest and manifest.package_version == __version__

