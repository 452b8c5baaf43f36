"""`lidcam ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lidcam_bench.data import ImageSet
    from lidcam_training.checkpoint import Checkpoint

__all__ = ["ablate"]


def _artifact(checkpoint: Checkpoint, nwc: bool, folder: Path) -> Path:
    """The checkpoint as an artifact; an existing one of the same weights, classes and version is reused."""
    from lidcam_export.exporter import export_artifact
    from lidcam_export.options import ExportOptions
    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.errors import ArtifactError
    from lidcam_rt.version import __version__

    file = folder / f"{checkpoint.weights_sha256[:12]}-{'nwc' if nwc else 'signed'}.onnx"
    try:
        manifest = read_manifest(file)
        names = checkpoint.meta.class_names
        clamped = manifest.cam is not None and manifest.cam.nwc
        if (manifest.package_version, clamped, manifest.class_names) == (__version__, nwc, names):
            return file
    except ArtifactError:
        pass
    export_artifact(str(checkpoint.path), file, ExportOptions(nwc=nwc))
    return file


def _scored(
    checkpoint: Checkpoint, splits: Sequence[ImageSet], output: Path, *, seed: int, crf: bool
) -> dict[str, Any]:
    """Rows, accuracy and blob of a checkpoint; those of an earlier call for the same weights and data are reused."""
    import dataclasses
    import json

    import lidcam_rt
    from lidcam_cli.loading import load_localizer
    from lidcam_export.ablation.stages import AblationRow, ablate_artifacts, blob_row, run_maps
    from lidcam_rt.artifact import json_object
    from lidcam_rt.files import read_file, write_atomically

    identity = {
        "version": lidcam_rt.__version__,
        "weights": checkpoint.weights_sha256,
        "classes": list(checkpoint.meta.class_names),
        "seed": seed,
        "data": [images.fingerprint() for images in splits],
        "crf": crf,
    }
    file = output / "rows" / f"{checkpoint.weights_sha256[:12]}.json"
    try:
        earlier = json_object(read_file(file))
        if earlier.get("identity") == identity:
            for row in (earlier["blob"], *earlier["rows"]):
                AblationRow(**row)
            if isinstance(earlier["accuracy"], float) and isinstance(earlier["backend"], str):
                return earlier
    except (OSError, ValueError, KeyError, TypeError):  # from another version, or damaged: made again
        pass
    maps = {}
    for nwc in (False, True):
        with load_localizer(_artifact(checkpoint, nwc, output / "artifacts")) as localizer:
            maps[nwc] = (run_maps(localizer, splits[0]), run_maps(localizer, splits[1]))
            backend = localizer.pipeline.engine
    rows = ablate_artifacts(checkpoint.pooling, seed, maps[False], maps[True], crf=crf)
    record = {
        "identity": identity,
        "backend": backend,
        "accuracy": maps[True][1].accuracy,
        "blob": dataclasses.asdict(blob_row(*maps[True])),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_atomically(file, json.dumps(record, indent=1).encode())
    return record


def ablate(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINTS", help="Folders written by `lidcam train`, with gap and tap.")
    ],
    data: Annotated[str, typer.Option(metavar="NAME:DIR", help="Data set with masks.")],
    choose: Annotated[str, typer.Option(metavar="SPLIT", help="Split on which thresholds are chosen.")] = "val",
    score: Annotated[str, typer.Option(metavar="SPLIT", help="Split that is scored.")] = "test",
    crf: Annotated[bool, typer.Option(help="End with the dense CRF.")] = True,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for table, JSON, plot and artifacts.")
    ] = Path("ablation"),
) -> None:
    """Score the steps of the talk: CAM, +TAP, +NWC, +PaS, +CRF.

    The checkpoints are exported and run by the runtime, beside a blob. With several seeds the table gives mean and
    spread, and for each step the difference between runs of the same seed with its 95% interval. Repeat the command
    to resume a run that was stopped.
    """
    import dataclasses
    import json

    from lidcam_bench.data import open_data
    from lidcam_training.checkpoint import load_checkpoint

    import lidcam_rt
    from lidcam_cli.console import say
    from lidcam_export.ablation.report import plot, steps, summarize, table
    from lidcam_export.ablation.stages import AblationRow
    from lidcam_rt.errors import InputError
    from lidcam_rt.files import output_folder, write_atomically

    if choose == score:
        raise InputError(f"--choose and --score are both {score}: thresholds must be chosen on other pictures")
    splits = [open_data(data, split) for split in (choose, score)]
    accuracy: dict[str, list[float]] = {}
    opened: dict[tuple[str, int], Checkpoint] = {}
    for checkpoint in (load_checkpoint(path) for path in checkpoints):
        key = checkpoint.pooling, int(checkpoint.meta.recipe.get("seed", 0))
        if key in opened:
            raise InputError(
                f"{opened[key].path} and {checkpoint.path}: both have pooling {key[0]} and seed {key[1]}, so their "
                f"rows could not be told apart. Ablate them in two calls, into two folders"
            )
        opened[key] = checkpoint
    with output_folder(output), output_folder(output / "rows"):
        records = []
        for (_, seed), checkpoint in sorted(opened.items(), key=lambda item: item[0][0]):
            records.append(_scored(checkpoint, splits, output, seed=seed, crf=crf))
            accuracy.setdefault(checkpoint.pooling, []).append(records[-1]["accuracy"])
            say(f"{checkpoint.path}: accuracy {records[-1]['accuracy']:.3f}")
        runs = [[AblationRow(**records[0]["blob"])]]
        runs += [[AblationRow(**row) for row in record["rows"]] for record in records]
        summary, changes = summarize(runs), steps(runs)
        report = {
            "data": data.partition(":")[0],
            "chosen_on": choose,
            "scored_on": score,
            "backend": records[-1]["backend"],
            "version": lidcam_rt.__version__,
            "accuracy": accuracy,
            "summary": summary,
            "steps": changes,
            "runs": [[dataclasses.asdict(row) for row in rows] for rows in runs],
        }
        text = table(summary) + "\n" + table(changes, "step")
        write_atomically(output / "ablation.json", json.dumps(report, indent=1).encode() + b"\n")
        write_atomically(output / "ablation.md", text.encode())
        write_atomically(output / "ablation.png", plot(summary))
    say(text)
