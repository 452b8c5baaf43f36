"""`lidcam cache`: the engines that `lidcam build` keeps."""

from __future__ import annotations

from typing import Annotated

import typer

from lidcam_cli.options import JsonFlag
from lidcam_export.tensorrt.engine_cache import CachedEngine, EngineCache

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show or empty the cache of built engines.")


@app.command("list")
def list_engines(as_json: JsonFlag = False) -> None:
    """List the engines in the cache, the newest first."""
    import json

    from lidcam_cli.console import say

    cache = EngineCache.default()
    entries = cache.entries()
    if as_json:
        print(json.dumps({"folder": str(cache.folder), "engines": [entry.facts() for entry in entries]}, indent=1))
        return
    if entries:
        _print(entries)
    say(f"{len(entries)} engines, {sum(entry.engine_bytes for entry in entries) / 1e6:.1f} MB, in {cache.folder}")


@app.command("clear")
def clear(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Keys, or their first 4 digits. [default: all]", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove engines from the cache, except those being built."""
    import json

    from lidcam_cli.console import note, say

    cache = EngineCache.default()
    removed, busy = cache.clear(keys or ())
    if as_json:
        text = {"folder": str(cache.folder), "removed": [entry.facts() for entry in removed], "in_use": busy}
        print(json.dumps(text, indent=1))
        return
    for key in busy:
        note(f"{key[:12]}: is being built or removed by another process, and stays")
    say(f"{len(removed)} engines removed, {sum(entry.engine_bytes for entry in removed) / 1e6:.1f} MB, {cache.folder}")


def _print(entries: list[CachedEngine]) -> None:
    from rich.table import Table

    from lidcam_cli.console import cell, out

    table = Table(box=None, pad_edge=False)
    for name in ("key", "artifact", "built by", "for", "", "input", "MB"):
        table.add_column(name, no_wrap=name == "key", overflow="fold", justify="right" if name == "MB" else "left")
    for entry in entries:
        size = f"{entry.engine_bytes / 1e6:.1f}"
        if (spec := entry.spec) is None or entry.fault:
            table.add_row(cell(entry.key[:12]), cell("not usable: lidcam cache clear"), "", "", "", "", size)
            continue
        image = spec.profile["image"]
        height, width = (image.max[1:3] if image.max[-1] == 3 else image.max[2:4])
        table.add_row(
            cell(entry.key[:12]), cell(spec.artifact), cell(f"{spec.flavour} {spec.version}"),
            cell(", ".join(spec.compute_capability)), cell(spec.precision),
            cell(f"{image.min[0]}..{image.max[0]} {width}x{height}"), size,
        )  # fmt: skip
    out.print(table)
