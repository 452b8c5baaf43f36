"""`lidcam train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lidcam_cli.options import Quiet

__all__ = ["train"]


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of the recipe, such as optim.lr=0.1.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the run. [default: runs/RECIPE]")
    ] = None,
    quiet: Quiet = False,
    show: Annotated[bool, typer.Option("--print", help="Print the recipe with the overrides and stop.")] = False,
) -> None:
    """Train a classifier or a segmentation network.

    Repeat the command to resume a run that was stopped.
    """
    from lidcam_cli.console import out, say
    from lidcam_training.recipe import read_any_recipe

    chosen = read_any_recipe(recipe, overrides or [])
    if show:
        import yaml

        out.print(yaml.safe_dump(chosen.to_dict(), sort_keys=False), soft_wrap=True)
        return
    from lidcam_training.fit import fit

    folder = fit(chosen, output or Path("runs") / Path(recipe).stem, progress=not quiet)
    if os.environ.get("RANK", "0") != "0":
        return
    last = (folder.parent / "metrics.csv").read_text().strip().splitlines()
    for key, value in zip(last[0].split(","), last[-1].split(","), strict=True):
        say(f"{key:>18}  {float(value or 'nan'):g}")
    say(f"checkpoint: {folder}")
