"""`lidcam tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lidcam_cli.options import Limit

if TYPE_CHECKING:
    from rich.table import Table

    from lidcam_export.tuning.run import Compared, Tuned
    from lidcam_export.tuning.settings import Settings

__all__ = ["tune"]

_WORDS = {"grid": "maps", "crf": "dense CRF", "before": "before", "after": "after"}
_NAMES = {"mask-iou": "mask IoU", "pxap": "PxAP", "box": "box accuracy"}


def tune(
    model: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Artifact made by `lidcam export`.")],
    data: Annotated[str, typer.Option(metavar="DATA", help="Pictures with masks, as for `lidcam eval`.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="The artifact to write, not MODEL itself.")
    ],
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split of DATA to choose on.")] = "val",
    report_on: Annotated[
        str | None, typer.Option(metavar="DATA", help="Other pictures, to score the chosen settings on.")
    ] = None,
    report_split: Annotated[str, typer.Option(metavar="SPLIT", help="Split of the --report-on data.")] = "test",
    metric: Annotated[
        Literal["mask-iou", "pxap", "box"],
        typer.Option(metavar="NAME", help="What to maximise: mask-iou, pxap or box (IoU >= 0.5 with an object's box)."),
    ] = "mask-iou",
    nwc: Annotated[bool, typer.Option(help="Choose NWC too.")] = True,
    views: Annotated[bool, typer.Option(help="Choose views too, which cost more runs of the network.")] = True,
    crf: Annotated[bool, typer.Option(help="Choose a dense CRF too.")] = True,
    limit: Limit = None,
) -> None:
    """Choose an artifact's settings on pictures with masks.

    Percentile, theta, NWC, views (scales, mirror images) and the dense CRF
    are chosen and written into a new artifact, which uses them by default.
    Views and CRF, which cost time, are used only where they are better
    beyond chance. Settings that are worse than the artifact's own on these
    pictures are never written. Repeat the command to resume after a kill.
    """
    import dataclasses

    from lidcam_bench.data import open_data

    from lidcam_cli.console import note, progress, say
    from lidcam_export.tuning.run import tune_artifact
    from lidcam_export.tuning.settings import TuneOptions

    images = open_data(data, split)
    other = None if report_on is None else open_data(report_on, report_split)
    if limit is not None:
        images = dataclasses.replace(images, records=images.records[:limit])
        other = None if other is None else dataclasses.replace(other, records=other.records[:limit])
    options = TuneOptions(metric, nwc=nwc, views=views, crf=crf)
    with progress() as bar:
        tasks = {}

        def tick(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(_WORDS.get(what, what), total=total)
            bar.update(tasks[what], completed=done)

        result = tune_artifact(model, output, images, options, report_on=other, note=note, tick=tick)
    say(_settings(result))
    for part in (result.chosen_on, result.held_out):
        if part is not None:
            say()
            say(_scores(part, result.metric, chosen=part is result.chosen_on))
    for text in result.notes:
        say(f"Note: {text}", style="dim", wrap=True)
    say(str(output))


def _settings(result: Tuned) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", width=12)
    table.add_column("before", width=30)
    table.add_column("chosen", width=34)
    rows = zip(_words(result.before), _words(result.after), strict=True)
    for (name, before), (_, after) in rows:
        table.add_row(name, before, after, style="" if before == after else "green")
    return table


def _words(settings: Settings) -> list[tuple[str, str]]:
    scales = ", ".join(f"{scale:g}" for scale in settings.views.scales)
    runs = len(settings.views.scales) * (2 if settings.views.flip else 1)
    views = "one" if runs == 1 else f"{scales}{', mirrored too' if settings.views.flip else ''} ({runs} runs)"
    return [
        ("NWC", "on" if settings.nwc else "off"),
        ("percentile", f"{settings.percentile:g}"),
        ("theta", f"{settings.theta:g}"),
        ("views", views),
        ("CRF", settings.refine or "none"),
    ]


def _scores(part: Compared, metric: str, *, chosen: bool) -> Table:
    from rich.table import Table

    how = "chosen on" if chosen else "held out"
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=f"{part.name}, {part.pictures} pictures, {how}",
        title_justify="left",
    )  # fmt: skip
    for name, width in (("measure", 16), ("before", 8), ("after", 8), ("difference", 10), ("95% interval", 20)):
        table.add_column(name, width=width, justify="left" if name == "measure" else "right")
    for key, label in _NAMES.items():
        digits = 1 if key == "pxap" else 3
        before, after, (low, high) = part.before[key], part.after[key], part.intervals[key]
        table.add_row(
            f"{label}{' *' if key == metric else ''}",
            f"{before:.{digits}f}",
            f"{after:.{digits}f}",
            f"{after - before:+.{digits}f}",
            f"{low:+.{digits}f} to {high:+.{digits}f}",
        )
    return table
