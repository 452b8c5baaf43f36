"""lidcam_rt: class activation map localization as a deployed artifact.

    import lidcam_rt
    with lidcam_rt.load("model.onnx") as localizer:
        result = localizer("photo.jpg")
        print(result.class_name, result.score, result.box)

Importing this package loads nothing heavy: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lidcam_rt.version import __version__

if TYPE_CHECKING:
    from lidcam_rt.artifact import Manifest, read_manifest
    from lidcam_rt.errors import LidcamError
    from lidcam_rt.localizer import Localizer, load
    from lidcam_rt.results import ClassScore, Failure, Localization
    from lidcam_rt.segmenter import Segmentation, Segmenter, SegmentOptions

__all__ = [
    "ClassScore",
    "Failure",
    "LidcamError",
    "Localization",
    "Localizer",
    "Manifest",
    "SegmentOptions",
    "Segmentation",
    "Segmenter",
    "__version__",
    "load",
    "read_manifest",
]

_HOME = {
    "ClassScore": "results",
    "Failure": "results",
    "LidcamError": "errors",
    "Localization": "results",
    "Localizer": "localizer",
    "Manifest": "artifact",
    "SegmentOptions": "segmenter",
    "Segmentation": "segmenter",
    "Segmenter": "segmenter",
    "load": "localizer",
    "read_manifest": "artifact",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"lidcam_rt.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lidcam_rt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
