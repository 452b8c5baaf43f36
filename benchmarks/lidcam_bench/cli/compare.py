"""`lidcam compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["compare"]

_NAMES = {
    "pictures": "pictures", "unreadable": "pictures not read", "top1_agreement_percent": "same first class, %",
    "logits_max_abs": "logits, largest difference", "cam_max_relative": "CAM, largest difference (share of its range)",
    "mask_iou_mean": "mask IoU, mean", "mask_iou_mean_same_class": "mask IoU, mean where the class is the same",
    "mask_iou_least": "mask IoU, least", "flipped_percent": "mask pixels that differ, %",
    "delta track3 peak_iou": "B - A: Track 3 peak IoU", "delta track3_per_image peak_iou": "B - A: peak IoU, mean",
    "delta pxap pxap": "B - A: PxAP", "delta max_box_acc max_box_acc": "B - A: MaxBoxAcc, %",
    "delta max_box_acc_v2 max_box_acc": "B - A: MaxBoxAccV2, %",
}  # fmt: skip


def compare(
    a: Annotated[
        Path, typer.Argument(help="The reference: an artifact, an engine, or a checkpoint folder (in PyTorch).")
    ],
    b: Annotated[Path, typer.Argument(help="What is held against it.")],
    data: Annotated[str, typer.Option(help="As for `lidcam eval`.")],
    split: Annotated[str, typer.Option(help="Split, for NAME:DIR.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="The first pictures only.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file, with a row per picture.")] = None,
    top1: Annotated[float, typer.Option(help="Least agreement of the first class, percent.")] = 99.0,
    mask_iou: Annotated[float, typer.Option(help="Least mean IoU of the masks.")] = 0.99,
    flipped: Annotated[float, typer.Option(help="Largest share of mask pixels that differ, percent.")] = 0.5,
    metric: Annotated[float, typer.Option(help="Largest difference of a metric, in points of 100.")] = 0.5,
    backend_a: Annotated[str, typer.Option(help="Engine of the first.")] = "auto",
    backend_b: Annotated[str, typer.Option(help="Engine of the second.")] = "auto",
    device_a: Annotated[str, typer.Option(help="Device of the first: auto, cpu, cuda or cuda:INDEX.")] = "auto",
    device_b: Annotated[str, typer.Option(help="Device of the second.")] = "auto",
) -> None:
    """Compare two ways to run a model on pictures. Exit status 1: beyond the tolerance."""
    import json

    from lidcam_bench.data.sets import open_data
    from lidcam_bench.evaluation.compare import Tolerance, open_runner
    from lidcam_bench.evaluation.compare import compare as run
    from lidcam_rt.cli.console import out as console
    from lidcam_rt.cli.console import progress
    from lidcam_rt.files import make_folder, replacing

    if out is not None:
        make_folder(out.parent)
    tolerance = Tolerance(top1, mask_iou, flipped, metric)
    images = open_data(data, split)
    first = open_runner(a, backend=backend_a, device=device_a)
    second = open_runner(b, backend=backend_b, device=device_b)
    with progress() as bar:
        task = bar.add_task("compare", total=None)
        found = run(
            first,
            second,
            list(images.records)[:limit],
            tolerance,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if out is not None:
        about: dict[str, Any] = {"a": _about(a, first), "b": _about(b, second), "data": images.name}
        content = json.dumps({**about, **found.to_dict()}, indent=1, sort_keys=True) + "\n"
        with replacing(out) as temporary:
            temporary.write_text(content, encoding="utf-8")
    _print(found, f"A: {_about(a, first)['text']}", f"B: {_about(b, second)['text']}")
    for fault in found.faults:
        console.print(f"Beyond the tolerance: {fault}", style="red", markup=False)
    if found.faults:
        raise typer.Exit(1)
    console.print("Within the tolerance.")


def _about(path: Path, runner: Any) -> dict[str, Any]:
    """What was run, for the report."""
    from lidcam_rt.files import file_sha256

    name = getattr(runner, "name", type(runner).__name__)
    digest = file_sha256(path) if path.is_file() else None
    return {"file": path.name, "sha256": digest, "engine": name, "text": f"{path.name} ({name})"}


def _print(found: Any, *heads: str) -> None:
    from rich.table import Table

    from lidcam_rt.cli.console import out as console

    for head in heads:
        console.print(head, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in found.total.items():
        table.add_row(_NAMES.get(name, name), "not to be had" if value is None else f"{value:.6g}")
    console.print(table)
    rows = sorted((row for row in found.rows if "error" not in row), key=lambda row: row["mask_iou"])
    worst = [row for row in rows[:3] if row["mask_iou"] < 1]
    if worst:
        console.print("Masks that differ most:")
    for row in worst:
        classes = row["class_a"] if row["same_class"] else f"{row['class_a']} / {row['class_b']}"
        console.print(f"  {row['file']}: {classes}, mask IoU {row['mask_iou']:.4f}", markup=False)
    for row in [row for row in found.rows if "error" in row][:3]:
        console.print(f"  not read: {row['error']}", markup=False, soft_wrap=True)
