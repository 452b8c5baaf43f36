"""`--crf [PRESET]`: an option whose value may be left out, which typer itself does not have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Crf", "CrfSize", "with_preset"]

_DEFAULT = "psa"
_OPTION = "--crf"

Crf = Annotated[
    str | None,
    typer.Option(
        _OPTION,
        metavar="[PRESET]",
        help="Refine maps, masks and boxes by the picture with a dense CRF: psa (if none is named), irn, deeplab or "
        "example; psa-fast and so on leave pydensecrf's rounding for speed.",
    ),
]
CrfSize = Annotated[
    str, typer.Option(help="Where the CRF works: network (on the network's input) or original (on the picture).")
]


def with_preset(arguments: Sequence[str]) -> list[str]:
    """Command line arguments in which every `--crf` has its value.

    The next argument is the value if it is the name of a preset, or can be nothing but a misspelt one: not an option,
    not a path, not a pattern.

    Args:
        arguments: what follows `lidcam`.
    """
    out: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*out, argument, *rest]
        out.append(argument)
        if argument == _OPTION and not (rest and _is_value(rest[0])):
            out.append(_DEFAULT)
    return out


def _is_value(argument: str) -> bool:
    from lidcam_rt.crf.options import is_preset

    if is_preset(argument):
        return True
    return (argument.isidentifier() or is_preset(argument.split("-")[0])) and not Path(argument).exists()
