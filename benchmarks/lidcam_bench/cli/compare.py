"""`lidcam compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lidcam_cli.options import Data, Limit, Split

__all__ = ["compare"]

_NAMES = {
    "pictures": "pictures", "unreadable": "pictures not read", "top1_agreement_percent": "same first class, %",
    "logits_max_abs": "logits, largest difference", "cam_max_relative": "CAM, largest difference (share of its range)",
    "mask_iou_mean": "mask IoU, mean", "mask_iou_mean_same_class": "mask IoU, mean where the class is the same",
    "mask_iou_least": "mask IoU, smallest", "flipped_percent": "pixels whose mask or label differs, %",
    "delta track3 peak_iou": "B - A: Track 3 peak IoU", "delta track3_per_image peak_iou": "B - A: peak IoU, mean",
    "delta pxap pxap": "B - A: PxAP", "delta max_box_acc max_box_acc": "B - A: MaxBoxAcc, %",
    "delta max_box_acc_v2 max_box_acc": "B - A: MaxBoxAccV2, %",
}  # fmt: skip


def compare(
    a: Annotated[
        Path,
        typer.Argument(metavar="A", help="The reference: an artifact, an engine, or a checkpoint folder (in PyTorch)."),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="What is compared with it.")],
    data: Data,
    split: Split = "test",
    limit: Limit = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.json", help="JSON file with an entry per picture.")
    ] = None,
    top1: Annotated[float, typer.Option(metavar="PERCENT", help="Lowest agreement of the first class.")] = 99.0,
    mask_iou: Annotated[float, typer.Option(metavar="IOU", help="Lowest mean IoU of the masks.")] = 0.99,
    label_iou: Annotated[
        float, typer.Option(metavar="IOU", help="Segmentation: lowest mean IoU of the label maps.")
    ] = 0.99,
    flipped: Annotated[
        float, typer.Option(metavar="PERCENT", help="Largest share of pixels whose mask or label differs.")
    ] = 0.5,
    metric: Annotated[
        float, typer.Option(metavar="POINTS", help="Largest difference of a metric, in points of 100.")
    ] = 0.5,
    backend_a: Annotated[str, typer.Option(metavar="NAME", help="Engine of A.")] = "auto",
    backend_b: Annotated[str, typer.Option(metavar="NAME", help="Engine of B.")] = "auto",
    device_a: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device of A: auto, cpu, cuda or cuda:INDEX.")
    ] = "auto",
    device_b: Annotated[str, typer.Option(metavar="DEVICE", help="Device of B.")] = "auto",
) -> None:
    """Compare two ways to run a model on pictures.

    Exit status 1: they differ by more than the tolerance.
    """
    import json

    from lidcam_bench.data import open_data
    from lidcam_bench.evaluation.compare import Tolerance, open_runner
    from lidcam_bench.evaluation.compare import compare as run
    from lidcam_bench.evaluation.compare_labels import compare_segmenters
    from lidcam_cli.console import progress, say
    from lidcam_rt import load
    from lidcam_rt.files import make_folder, replacing

    if output is not None:
        make_folder(output.parent)
    tolerance = Tolerance(top1, mask_iou, flipped, metric, label_iou)
    images = open_data(data, split)
    first: Any
    second: Any
    segments = _are_segmentation(a, b)
    if segments:
        first = load(a, backend=backend_a, device=device_a)
        second = load(b, backend=backend_b, device=device_b)
    else:
        first = open_runner(a, backend=backend_a, device=device_a)
        second = open_runner(b, backend=backend_b, device=device_b)
    with progress() as bar:
        task = bar.add_task("compare", total=None)

        def tick(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if segments:
            result = compare_segmenters(first, second, images, tolerance, limit=limit, progress=tick)
        else:
            result = run(first, second, list(images.records)[:limit], tolerance, progress=tick)
    if output is not None:
        about: dict[str, Any] = {"a": _about(a, first), "b": _about(b, second), "data": images.name}
        content = json.dumps({**about, **result.to_dict()}, indent=1, sort_keys=True) + "\n"
        with replacing(output) as temporary:
            temporary.write_text(content, encoding="utf-8")
    _print(result, f"A: {_about(a, first)['text']}", f"B: {_about(b, second)['text']}")
    for fault in result.faults:
        say(f"Beyond the tolerance: {fault}", style="red")
    if result.faults:
        raise typer.Exit(1)
    say("Within the tolerance.")


def _are_segmentation(a: Path, b: Path) -> bool:
    """Whether both are artifacts of segmentation networks.

    Raises:
        InputError: only one is.
    """
    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.errors import InputError

    kinds = [path.suffix == ".onnx" and read_manifest(path).task == "segmentation" for path in (a, b)]
    if any(kinds) and not all(kinds):
        one, other = (a, b) if kinds[0] else (b, a)
        raise InputError(
            f"{one} is a segmentation network and {other} is not an artifact of one: give two artifacts of one "
            "network; `lidcam export` makes one from a checkpoint of `lidcam train`"
        )
    return all(kinds)


def _about(path: Path, runner: Any) -> dict[str, Any]:
    """What was run, for the report."""
    from lidcam_rt.files import file_sha256

    name = runner.pipeline.engine if hasattr(runner, "pipeline") else getattr(runner, "name", type(runner).__name__)
    digest = file_sha256(path) if path.is_file() else None
    return {"file": path.name, "sha256": digest, "engine": name, "text": f"{path.name} ({name})"}


def _print(result: Any, *heads: str) -> None:
    from rich.table import Table

    from lidcam_cli.console import say

    for head in heads:
        say(head)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in result.total.items():
        table.add_row(_NAMES.get(name, name), "unavailable" if value is None else f"{value:.6g}")
    say(table)
    iou = "label_iou" if "label_iou" in result.total else "mask_iou"
    rows = sorted((row for row in result.rows if "error" not in row), key=lambda row: row[iou])
    worst = [row for row in rows[:3] if row[iou] < 1]
    if worst:
        say("Label maps that differ most:" if iou == "label_iou" else "Masks that differ most:")
    for row in worst:
        if iou == "label_iou":
            say(f"  {row['file']}: mean IoU {row[iou]:.4f}, {row['flipped_percent']:.2f}% of the pixels differ")
            continue
        classes = row["class_a"] if row["same_class"] else f"{row['class_a']} / {row['class_b']}"
        say(f"  {row['file']}: {classes}, mask IoU {row['mask_iou']:.4f}")
    for row in [row for row in result.rows if "error" in row][:3]:
        say(f"  not read: {row['error']}")
