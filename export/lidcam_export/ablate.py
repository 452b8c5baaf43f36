"""`lidcam ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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


def ablate(
    checkpoints: Annotated[list[Path], typer.Argument(help="Folders that `lidcam train` wrote, gap and tap.")],
    data: Annotated[str, typer.Option(help="NAME:DIR with masks.")],
    choose: Annotated[str, typer.Option(help="Split on which thresholds are chosen.")] = "val",
    score: Annotated[str, typer.Option(help="Split that is scored.")] = "test",
    crf: Annotated[bool, typer.Option(help="End with the dense CRF.")] = True,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for table, JSON, plot and artifacts.")] = Path(
        "ablation"
    ),
) -> None:
    """Score CAM, +TAP, +NWC, +PaS, +CRF of checkpoints, exported and run by the runtime, beside a blob.

    With several seeds the table gives mean and spread.
    """
    import dataclasses
    import json

    from lidcam_training.checkpoint import load_checkpoint
    from lidcam_training.data import open_dataset

    import lidcam_rt
    from lidcam_export.ablation import Found, ablate_artifacts, blob_row, find_maps
    from lidcam_export.ablation_report import steps, summarize, table, write_plot
    from lidcam_rt.errors import InputError

    if choose == score:
        raise InputError(f"--choose and --score are both {score}: thresholds must be chosen on other pictures")
    splits = [open_dataset(data, split) for split in (choose, score)]
    read = sorted((load_checkpoint(path) for path in checkpoints), key=lambda c: c.pooling)
    runs = []
    accuracy: dict[str, list[float]] = {}
    backend = ""
    for checkpoint in read:
        found: dict[bool, tuple[Found, Found]] = {}
        for nwc in (False, True):
            with lidcam_rt.load(_artifact(checkpoint, nwc, output / "artifacts")) as localizer:
                found[nwc] = (find_maps(localizer, splits[0]), find_maps(localizer, splits[1]))
                backend = f"{localizer.backend.name} on {localizer.device}"
        if not runs:
            runs.append([blob_row(*found[True])])
        seed = int(checkpoint.recipe.get("seed", 0))
        accuracy.setdefault(checkpoint.pooling, []).append(found[True][1].accuracy)
        runs.append(ablate_artifacts(checkpoint.pooling, seed, found[False], found[True], crf=crf))
        typer.echo(f"{checkpoint.path}: accuracy {accuracy[checkpoint.pooling][-1]:.3f}")
    summary, changes = summarize(runs), steps(runs)
    record = {
        "data": data.partition(":")[0],
        "chosen_on": choose,
        "scored_on": score,
        "backend": backend,
        "version": lidcam_rt.__version__,
        "accuracy": accuracy,
        "summary": summary,
        "steps": changes,
        "runs": [[dataclasses.asdict(row) for row in rows] for rows in runs],
    }
    output.mkdir(parents=True, exist_ok=True)
    text = table(summary) + "\n" + table(changes, "step")
    (output / "ablation.json").write_text(json.dumps(record, indent=1) + "\n")
    (output / "ablation.md").write_text(text)
    write_plot(summary, output / "ablation.png")
    typer.echo(text)
