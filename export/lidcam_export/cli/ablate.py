"""`lidcam ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lidcam_training.checkpoint import Checkpoint

__all__ = ["ablate"]


def _artifact(checkpoint: Checkpoint, nwc: bool, folder: Path) -> Path:
    """The checkpoint as an artifact; one that is there already, of the same weights and version, is taken."""
    from lidcam_export.exporter import ExportOptions, export_artifact
    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.errors import ArtifactError
    from lidcam_rt.version import __version__

    file = folder / f"{checkpoint.weights_sha256[:12]}-{'nwc' if nwc else 'signed'}.onnx"
    try:
        manifest = read_manifest(file)
        names = tuple(checkpoint.class_names)
        if (manifest.package_version, manifest.cam.nwc, manifest.class_names) == (__version__, nwc, names):
            return file
    except ArtifactError:
        pass
    export_artifact(str(checkpoint.path), file, ExportOptions(nwc=nwc))
    return file


def _read_rows(file: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier call found for the same weights, data and version; None: nothing."""
    import json

    try:
        done: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return done if done.get("identity") == identity else None


def ablate(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINTS", help="Folders that `lidcam train` wrote, with gap and tap.")
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
    spread. The same command again resumes a run that was stopped.
    """
    import dataclasses
    import json

    from lidcam_bench.data.records import open_dataset
    from lidcam_training.checkpoint import load_checkpoint

    import lidcam_rt
    from lidcam_export.ablation.report import plot, steps, summarize, table
    from lidcam_export.ablation.stages import AblationRow, Found, ablate_artifacts, blob_row, find_maps
    from lidcam_rt.cli.console import say
    from lidcam_rt.errors import InputError
    from lidcam_rt.files import output_folder, write_atomically

    if choose == score:
        raise InputError(f"--choose and --score are both {score}: thresholds must be chosen on other pictures")
    splits = [open_dataset(data, split) for split in (choose, score)]
    read = sorted((load_checkpoint(path) for path in checkpoints), key=lambda c: c.pooling)
    runs: list[list[AblationRow]] = []
    accuracy: dict[str, list[float]] = {}
    with output_folder(output), output_folder(output / "rows"):
        for checkpoint in read:
            identity = {
                "version": lidcam_rt.__version__,
                "weights": checkpoint.weights_sha256,
                "classes": list(checkpoint.class_names),
                "seed": int(checkpoint.recipe.get("seed", 0)),
                "data": [images.fingerprint() for images in splits],
                "crf": crf,
            }
            file = output / "rows" / f"{checkpoint.weights_sha256[:12]}.json"
            done = _read_rows(file, identity)
            if done is None:
                found: dict[bool, tuple[Found, Found]] = {}
                for nwc in (False, True):
                    with lidcam_rt.load(_artifact(checkpoint, nwc, output / "artifacts")) as localizer:
                        found[nwc] = (find_maps(localizer, splits[0]), find_maps(localizer, splits[1]))
                        backend = f"{localizer.backend.name} on {localizer.device}"
                rows = ablate_artifacts(checkpoint.pooling, identity["seed"], found[False], found[True], crf=crf)
                done = {
                    "identity": identity,
                    "backend": backend,
                    "accuracy": found[True][1].accuracy,
                    "blob": dataclasses.asdict(blob_row(*found[True])),
                    "rows": [dataclasses.asdict(row) for row in rows],
                }
                write_atomically(file, json.dumps(done, indent=1).encode())
            if not runs:
                runs.append([AblationRow(**done["blob"])])
            accuracy.setdefault(checkpoint.pooling, []).append(done["accuracy"])
            runs.append([AblationRow(**row) for row in done["rows"]])
            say(f"{checkpoint.path}: accuracy {done['accuracy']:.3f}")
        summary, changes = summarize(runs), steps(runs)
        record = {
            "data": data.partition(":")[0],
            "chosen_on": choose,
            "scored_on": score,
            "backend": done["backend"],
            "version": lidcam_rt.__version__,
            "accuracy": accuracy,
            "summary": summary,
            "steps": changes,
            "runs": [[dataclasses.asdict(row) for row in rows] for rows in runs],
        }
        text = table(summary) + "\n" + table(changes, "step")
        write_atomically(output / "ablation.json", json.dumps(record, indent=1).encode() + b"\n")
        write_atomically(output / "ablation.md", text.encode())
        write_atomically(output / "ablation.png", plot(summary))
    say(text)
