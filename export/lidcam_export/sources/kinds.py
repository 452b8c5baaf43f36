"""What SOURCE of `lidcam export` can be: a table of kinds, and a check of names that needs no PyTorch.

A new kind of source is a file whose `load(name, request)` returns the network, and an entry here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lidcam_rt.errors import ExportError

__all__ = ["KINDS", "Kind", "check_name", "kind_of"]


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        module: its `load(name, request)` returns the network.
        form: as users write it.
        names: all names that there are, where they can be listed without loading anything heavy.
    """

    module: str
    form: str
    names: Callable[[], frozenset[str]] | None = None


@cache
def _registered(package: str) -> frozenset[str]:
    """Names of the networks that a package registers, read from its source: importing it takes seconds."""
    spec = find_spec(package)
    folders = [Path(place) / "models" for place in (spec.submodule_search_locations or ())] if spec else []
    function = re.compile(r"@register_model(?:\(.*?\))?\s*(?:@.*?\n\s*)*def (\w+)\(", re.DOTALL)
    renamed = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.DOTALL)
    names: set[str] = set()
    for file in (file for folder in folders for file in folder.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        names.update(function.findall(text))
        names.update(name for table in renamed.findall(text) for name in re.findall(r"'(\w+)':", table))
    return frozenset(names)


KINDS = {
    "timm": Kind("lidcam_export.sources.timm", "timm:NAME", lambda: _registered("timm")),
    "torchvision": Kind(
        "lidcam_export.sources.torchvision", "torchvision:NAME", lambda: _registered("torchvision")
    ),
    "hf_hub": Kind("lidcam_export.sources.hf_hub", "hf_hub:OWNER/NAME"),
    "cam": Kind(
        "lidcam_export.sources.cam_vgg", "cam:vgg16", lambda: frozenset({"vgg11", "vgg13", "vgg16", "vgg19"})
    ),
    "python": Kind("lidcam_export.sources.python", "python:PACKAGE.MODULE:FUNCTION"),
    "zoo": Kind(
        "lidcam_export.sources.zoo",
        "zoo:efficientnet_lite0",
        lambda: frozenset({"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}),
    ),
}
_FORMS = (
    "SOURCE is a checkpoint folder of `lidcam train`, a weights file (.pth, .safetensors), "
    + ", ".join(kind.form for kind in KINDS.values())
)


def kind_of(text: str) -> tuple[str, str] | None:
    """(kind, name) of `KIND:NAME`; None for a path.

    Raises:
        ExportError: the kind is unknown.
    """
    kind, colon, name = text.partition(":")
    kind = kind.replace("-", "_")
    if colon and kind in KINDS:
        return kind, name
    if not colon or Path(text).exists():
        return None
    near = difflib.get_close_matches(kind, KINDS, 1, 0.5)
    raise ExportError(
        f"{text}: no such source."
        + (f" Did you mean {KINDS[near[0]].form}? " if near else " ")
        + _FORMS
    )


def check_name(text: str) -> None:
    """Check that a source exists, as far as that can be seen without loading it.

    Raises:
        ExportError: unknown kind or name, or no such file; the message gives the nearest names.
    """
    split = kind_of(text)
    if split is None:
        if Path(text).exists():
            return
        known = [f"{kind}:{text}" for kind in ("timm", "torchvision") if text in _names(kind)]
        hint = f"Did you mean {' or '.join(known)}? " if known else ""
        raise ExportError(f"{text}: no such checkpoint folder or weights file. {hint}{_FORMS}")
    kind, name = split
    names = _names(kind)
    if not names or name.split(".")[0] in names:
        return
    near = sorted(names) if len(names) < 10 else difflib.get_close_matches(name, sorted(names), 5, 0.6)
    raise ExportError(f"{kind}:{name}: unknown" + (f"; similar names: {', '.join(near)}" if near else ""))


def _names(kind: str) -> frozenset[str]:
    names = KINDS[kind].names
    return names() if names else frozenset()
