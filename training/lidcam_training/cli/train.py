"""`lidcam train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example optim.lr=0.1")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/RECIPE.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
    show: Annotated[
        bool, typer.Option("--print", help="Print the recipe with the overrides and stop.")
    ] = False,
) -> None:
    """Train a classifier, or go on with a run that was cut off (the same command again)."""
    from lidcam_training.recipe import read_recipe

    chosen = read_recipe(recipe, overrides or [])
    if show:
        import yaml

        typer.echo(yaml.safe_dump(chosen.to_dict(), sort_keys=False))
        return
    from lidcam_training.fit import fit

    folder = fit(chosen, run or Path("runs") / Path(recipe).stem, progress=not quiet)
    if os.environ.get("RANK", "0") != "0":
        return
    last = (folder.parent / "metrics.csv").read_text().strip().splitlines()
    for key, value in zip(last[0].split(","), last[-1].split(","), strict=True):
        typer.echo(f"{key:>18}  {float(value or 'nan'):g}")
    typer.echo(f"checkpoint: {folder}")
