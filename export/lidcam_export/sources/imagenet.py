"""Class names of ImageNet heads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lidcam_rt.files import file_sha256

__all__ = ["imagenet_names", "is_published", "short_names"]


def imagenet_names() -> tuple[str, ...]:
    """The 1000 classes of ILSVRC 2012 in the usual order (timm's list)."""
    from timm.data.imagenet_info import ImageNetInfo

    return short_names(list(ImageNetInfo("imagenet-1k").label_descriptions()))


def short_names(descriptions: Sequence[str]) -> tuple[str, ...]:
    """The first term of each description, such as `tench` from `tench, Tinca tinca`.

    Where two classes would share a name it is the whole description, with the number if those are alike too (`crane`).
    """
    first = [text.split(",")[0].strip() for text in descriptions]
    terms, texts = Counter(first), Counter(descriptions)
    return tuple(
        name if terms[name] == 1 else text if texts[text] == 1 else f"{text} ({i})"
        for i, (name, text) in enumerate(zip(first, descriptions, strict=True))
    )


def is_published(weights: Path) -> bool:
    """Whether a file is one that torchvision or timm publish: its name ends in the start of its SHA-256."""
    match = re.fullmatch(r".+-([0-9a-f]{8})\.pth", weights.name)
    return match is not None and file_sha256(weights).startswith(match[1])
