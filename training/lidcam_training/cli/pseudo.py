"""`lidcam pseudo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import Data, Limit, OutputFolder

__all__ = ["pseudo"]


def pseudo(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Checkpoint folder or artifact of several labels.")],
    data: Data,
    output: OutputFolder,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split whose pictures get labels.")] = "train",
    scales: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Views: scales of the network's input.")
    ] = "0.5,1,1.5,2",
    flip: Annotated[bool, typer.Option(help="Views: mirror each.")] = True,
    nwc: Annotated[
        bool | None, typer.Option("--nwc/--no-nwc", help="Clamp negative weights. [default: the model's choice]")
    ] = None,
    percentile: Annotated[
        float, typer.Option(metavar="PERCENT", help="PaS: divide each map by this percentile of it; 100: its maximum.")
    ] = 98.0,
    background: Annotated[str, typer.Option(metavar="RULE", help="Background score: constant, power or mask.")] = (
        "constant"
    ),
    level: Annotated[float, typer.Option(metavar="SCORE", help="constant: the score.")] = 0.3,
    alpha: Annotated[float, typer.Option(metavar="NUMBER", help="power: (1 - highest map) ** NUMBER.")] = 4.0,
    confident: Annotated[
        str | None, typer.Option(metavar="F,B", help="irn: foreground and background level; 255 between them.")
    ] = None,
    walk: Annotated[str, typer.Option(metavar="RULE", help="Random walk along colours, features, or none.")] = "none",
    refine: Annotated[str, typer.Option(metavar="PRESET", help="Dense CRF of all classes at once, or none.")] = "psa",
    search: Annotated[
        bool, typer.Option("--search", help="Choose percentile, level and NWC on the split of --choose.")
    ] = False,
    choose: Annotated[str, typer.Option(metavar="SPLIT", help="Split for --search; never test.")] = "val",
    maps: Annotated[bool, typer.Option("--maps", help="Write the activation maps too (npz, float16).")] = False,
    gallery: Annotated[
        int, typer.Option(min=0, metavar="COUNT", help="Best, middle and worst pictures in gallery.png, COUNT each.")
    ] = 4,
    limit: Limit = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="COUNT", help="Pictures per call of the network.")] = 16,
) -> None:
    """Make label maps for training from activation maps.

    Writes a label map per picture (8-bit PNG, 255 ignored), results.json and
    gallery.png. Repeat the command to do what is left.
    """
    import json

    from lidcam_bench.data import open_data

    from lidcam_cli.console import note, progress, say
    from lidcam_rt.errors import InputError
    from lidcam_rt.files import write_atomically
    from lidcam_training.pseudo.gallery import gallery_sheet
    from lidcam_training.pseudo.network import open_network
    from lidcam_training.pseudo.options import PseudoOptions
    from lidcam_training.pseudo.run import pseudo_labels

    network = open_network(model)
    if background == "mask":  # the model's own threshold: map > theta * percentile
        background, level, percentile = "constant", network.theta, network.percentile
    options = PseudoOptions(
        scales=_numbers("--scales", scales),
        flip=flip,
        nwc=nwc,
        percentile=percentile,
        background=background,  # type: ignore[arg-type]  # checked by the class
        level=level,
        alpha=alpha,
        confident=None if confident is None else _numbers("--confident", confident, 2),  # type: ignore[arg-type]
        walk=walk,  # type: ignore[arg-type]  # checked by the class
        crf=None if refine == "none" else refine,
    )
    if search:
        from lidcam_training.pseudo.search import choose_settings

        if choose == "test" or choose == split:
            raise InputError(f"--choose {choose}: settings are chosen on pictures that are not scored, such as val")
        note(f"choosing settings on {choose}")
        options, tried = choose_settings(network, open_data(data, choose), options)
        say(f"chosen on {choose}: " + ", ".join(f"{k} {tried['chosen'][k]}" for k in ("percentile", "level", "nwc")))
    images = open_data(data, split)
    with progress() as bar:
        task = bar.add_task("pseudo", total=None)
        results = pseudo_labels(
            network,
            images,
            output,
            options,
            limit=limit,
            keep_maps=maps,
            batch_size=batch_size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if search:
        write_atomically(output / "search.json", json.dumps(tried, indent=1).encode() + b"\n")
    say(f"{results['pictures']} label maps, {results['ignored_percent']:.1f}% of the pixels ignored")
    if "truth" in results:
        say(f"mean IoU against the true label maps: {results['truth']['mean_iou']:.1f}")
        if gallery:
            sheet = gallery_sheet(images.records, output, results["picture_iou"], each=gallery)
            write_atomically(output / "gallery.png", sheet)
    say(str(output / "results.json"))


def _numbers(name: str, text: str, count: int | None = None) -> tuple[float, ...]:
    from lidcam_rt.errors import InputError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count is not None and len(values) != count):
        raise InputError(f"{name} {text}: give {count or 'some'} numbers separated by commas")
    return values
