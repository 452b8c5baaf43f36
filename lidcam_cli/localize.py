"""`lidcam localize`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lidcam_cli.options import (
    MAX_PIXELS,
    Augment,
    Backend,
    BatchSize,
    Deadline,
    Device,
    MaxPixels,
    Model,
    OutputFolder,
    Precision,
    RefinePreset,
    Strict,
)

if TYPE_CHECKING:
    from rich.table import Table

    from lidcam_rt.results import Localization
    from lidcam_rt.segmenter import Segmentation

__all__ = ["localize"]

#: Exit status of a run in which some pictures could not be localized.
SOME_FAILED = 8
_ROWS = 20


def localize(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES", help="Files, folders (to any depth), quoted patterns, or - for paths on standard input."
        ),
    ],
    output: OutputFolder,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print each result as a line of JSON, no table.")] = False,
    batch_size: BatchSize = None,
    backend: Backend = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Annotated[
        int, typer.Option(min=0, metavar="COUNT", help="Threads of the network on the CPU; 0: all cores.")
    ] = 0,
    top_k: Annotated[int, typer.Option(min=1, metavar="COUNT", help="Classes to localize per picture.")] = 1,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Localize this class, not the predicted one; may be repeated."),
    ] = None,
    overlay: Annotated[bool, typer.Option(help="Write overlay pictures.")] = True,
    html: Annotated[bool, typer.Option("--html", help="Write index.html, a page that shows the overlays.")] = False,
    save_map: Annotated[bool, typer.Option("--map", help="Write the localization maps as PNG too.")] = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    strict: Strict = True,
    refine: RefinePreset = None,
    augment: Augment = None,
    deadline: Deadline = None,
) -> None:
    """Localize the main object of pictures.

    Writes results.json, and an overlay and a mask per picture; for a
    segmentation network, an overlay and a label map.
    Run the same command again to do what is left.

    Exit status: 0 all went well, 8 some pictures failed (results.json
    says which and why), 2 wrong arguments, 3 the artifact, 5 the device,
    6 the output, 130 interrupted.
    """
    import itertools
    import json
    from dataclasses import asdict

    from lidcam_cli.console import note, print_error, progress, say
    from lidcam_cli.gallery import gallery
    from lidcam_cli.pictures import Pictures
    from lidcam_cli.runs import RunFolder
    from lidcam_cli.sources import find_images
    from lidcam_rt import __version__
    from lidcam_rt.backends import manifest_of
    from lidcam_rt.defaults import refinement, views
    from lidcam_rt.errors import InputError
    from lidcam_rt.files import file_sha256
    from lidcam_rt.loading import load
    from lidcam_rt.results import Failure
    from lidcam_rt.segmentation import Segmenter
    from lidcam_rt.segmenter import Segmentation

    if html and not overlay:
        raise InputError("--html shows the overlays: leave out --no-overlay")
    manifest = manifest_of(model)
    how, averaged = refinement(manifest, refine), views(manifest, augment)
    wanted = class_ids(labels, manifest.class_names) if labels else None
    found = find_images(images)
    paths = found.paths
    settings = {
        "artifact": model.name,
        "artifact_sha256": file_sha256(model),
        "top_k": top_k,
        "overlay": overlay,
        "map": save_map,
        "max_pixels": max_pixels,
        "crf": None if how is None else how.to_dict(),
        **({} if averaged is None else {"augment": augment or asdict(averaged)}),
        **({} if strict else {"strict": False}),
        **({} if wanted is None else {"labels": [manifest.class_names[i] for i in wanted]}),
    }
    engine: dict[str, Any] = {"backend": backend, "device": device, "precision": precision, "threads": threads}
    with load(model, **engine, max_pixels=max_pixels, strict=strict, deadline=deadline) as localizer:
        segments = isinstance(localizer, Segmenter)
        if segments and (wanted is not None or top_k > 1 or save_map):
            raise InputError(f"{model} is a segmentation network: leave out --labels, --top-k and --map")
        if not segments:
            localizer.pipeline.wanted(wanted, top_k)
        with RunFolder(output, {"run": "localize", **settings}, ignored=("artifact",)) as folder:
            pictures = Pictures(folder)
            todo = [path for path in paths if not pictures.is_done(path)]
            skipped = len(paths) - len(todo)
            if skipped:
                note(f"{skipped} of {len(paths)} pictures are already done, {len(todo)} to do")
            head = {
                "lidcam_rt": __version__,
                **settings,
                "source": manifest.source.name,
                "backend": localizer.backend.name,
                "device": localizer.device,
                "precision": localizer.backend.precision,
            }
            shared: dict[str, Any] = {
                "batch_size": batch_size, "keep_image": overlay, "refine": how or "none", "augment": averaged or "none",
            }  # fmt: skip
            stream: Any
            if isinstance(localizer, Segmenter):
                stream = localizer.stream(todo, **shared)
            else:
                given = None if wanted is None else itertools.repeat(wanted)
                stream = localizer.stream(todo, labels=given, top_k=top_k, **shared)
            try:
                with progress() as bar:
                    task = bar.add_task("localize", total=len(todo))
                    for path, result in zip(todo, stream, strict=True):
                        if isinstance(result, Failure):
                            record: dict[str, Any] = result.to_dict()
                        elif isinstance(result, Segmentation):
                            record = _save_labels(result, output, pictures.name_for(path))
                        else:
                            record = _save(result, output, pictures.name_for(path), save_map)
                        record = pictures.add(path, record)
                        if jsonl:
                            line = {k: v for k, v in record.items() if k != "stamp"}
                            print(json.dumps(line), flush=True)
                        bar.advance(task)
            finally:
                stream.close()
                pictures.finish(paths, head)
            records = [pictures[path] for path in paths]
            if html:
                folder.write("index.html", gallery(records, title=f"{len(records)} pictures, {model.name}"))
    failures = [record for record in records if "error" in record]
    if not jsonl:
        say(_table(records))
        # The path alone on a line, so that it can be clicked or copied in a terminal.
        say(f"{len(records) - len(failures)} localized, {len(failures)} failed")
        if found.skipped:
            say(f"not read: {found.left_out()}")
        say(str(output / ("index.html" if html else "results.json")))
    if failures:
        shown = [f"  {record['message']}" for record in failures[:_ROWS]]
        if len(failures) > _ROWS:
            shown.append(f"  and {len(failures) - _ROWS} more: see failures in {output / 'results.json'}")
        print_error(f"{len(failures)} of {len(records)} pictures failed", "\n".join(shown))
        raise typer.Exit(SOME_FAILED)


def class_ids(names: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Ids of classes by their names, whatever their case.

    Raises:
        InputError: a class is not one of the model's; the message suggests some that are.
    """
    import difflib

    from lidcam_rt.errors import InputError

    index = {name.casefold(): i for i, name in reversed(list(enumerate(class_names)))}
    for name in names:
        if name.casefold() not in index:
            near = [class_names[index[entry]] for entry in difflib.get_close_matches(name.casefold(), index, 3)]
            offer = f"Similar names: {', '.join(near)}" if near else f"Its first are: {', '.join(class_names[:3])}"
            raise InputError(
                f"--labels {name}: not a class of the model. {offer}. `lidcam inspect --json` lists all"
            )
    return tuple(index[name.casefold()] for name in names)


def _save(result: Localization, folder: Path, name: str, save_map: bool) -> dict[str, Any]:
    """Write a picture's files under their final names, and return its record."""
    import numpy as np

    from lidcam_rt.drawing import encode
    from lidcam_rt.files import write_atomically

    files = {"mask": f"{name}_mask.png"}
    write_atomically(folder / files["mask"], encode(result.mask.view(np.uint8) * np.uint8(255), ".png"))
    if save_map:
        files["map"] = f"{name}_map.png"
        write_atomically(folder / files["map"], encode(result.map, ".png"))
    if result.image is not None:
        files["overlay"] = f"{name}_overlay.jpg"
        write_atomically(folder / files["overlay"], encode(result.overlay(), ".jpg"))
    return {**result.to_dict(), "name": name, "files": files}


def _save_labels(result: Segmentation, folder: Path, name: str) -> dict[str, Any]:
    """Write a label map and its overlay under their final names, and return the record."""
    from lidcam_rt.drawing import encode
    from lidcam_rt.files import write_atomically

    files = {"labels": f"{name}_labels.png"}
    write_atomically(folder / files["labels"], encode(result.labels, ".png"))
    if result.image is not None:
        files["overlay"] = f"{name}_overlay.jpg"
        write_atomically(folder / files["overlay"], encode(result.overlay(legend=True), ".jpg"))
    return {**result.to_dict(), "name": name, "files": files}


def _table(records: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    from lidcam_cli.console import cell

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("picture", max_width=28, no_wrap=True, overflow="ellipsis")
    table.add_column("class", max_width=22, no_wrap=True, overflow="ellipsis")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("box x0 y0 x1 y1", no_wrap=True, max_width=23, overflow="ellipsis")
    for record in records[:_ROWS]:
        name = cell(Path(record["image"]).name)
        if "error" in record:
            table.add_row(name, cell("failed", "red"), "", "")
        elif "classes" in record:
            shown = ", ".join(entry["class_name"] for entry in record["classes"]) or "background"
            score = f"{record['classes'][0]['score']:.2f}" if record["classes"] else ""
            table.add_row(name, cell(shown), score, "label map")
        else:
            box = " ".join(map(str, record["box"])) if record["box"] else "none"
            table.add_row(name, cell(record["class_name"]), f"{record['score']:.2f}", box)
    if len(records) > _ROWS:
        table.add_row(f"and {len(records) - _ROWS} more", "", "", "")
    return table
