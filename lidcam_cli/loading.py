"""Loading for verbs that need activation maps."""

from __future__ import annotations

import os
from typing import Any

from lidcam_rt.errors import InputError
from lidcam_rt.loading import load
from lidcam_rt.localizer import Localizer

__all__ = ["load_localizer"]


def load_localizer(path: str | os.PathLike[str], **options: Any) -> Localizer:
    """As `lidcam_rt.load`, for callers that need activation maps.

    Raises:
        InputError: it is a segmentation network; and whatever `load` raises.
    """
    loaded = load(path, **options)
    if isinstance(loaded, Localizer):
        return loaded
    loaded.close()
    raise InputError(f"{os.fspath(path)} is a segmentation network and has no activation maps: give a classifier")
