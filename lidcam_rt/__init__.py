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
    from lidcam_rt import boxes, crf, errors, pas
    from lidcam_rt.artifact import Manifest, read_manifest
    from lidcam_rt.crf.localization import Refine
    from lidcam_rt.crf.options import CrfOptions
    from lidcam_rt.errors import LidcamError
    from lidcam_rt.loading import load
    from lidcam_rt.localizer import Localizer
    from lidcam_rt.pas.options import PasOptions
    from lidcam_rt.pipeline import Pipeline
    from lidcam_rt.results import Box, ClassScore, Failure, Localization
    from lidcam_rt.segmentation import Segmenter
    from lidcam_rt.segmenter import CamSegmenter, Segmentation, SegmentOptions

__all__ = [
    "Box",
    "ClassScore",
    "CrfOptions",
    "Failure",
    "LidcamError",
    "Localization",
    "Localizer",
    "Manifest",
    "PasOptions",
    "Pipeline",
    "Refine",
    "SegmentOptions",
    "Segmentation",
    "CamSegmenter",
    "Segmenter",
    "__version__",
    "boxes",
    "crf",
    "errors",
    "load",
    "pas",
    "read_manifest",
]

#: Module of each name.
_HOME = {
    "Box": "results",
    "ClassScore": "results",
    "CrfOptions": "crf.options",
    "Failure": "results",
    "LidcamError": "errors",
    "Localization": "results",
    "Localizer": "localizer",
    "Manifest": "artifact",
    "PasOptions": "pas.options",
    "Pipeline": "pipeline",
    "Refine": "crf.localization",
    "SegmentOptions": "segmenter",
    "Segmentation": "segmenter",
    "CamSegmenter": "segmenter",
    "Segmenter": "segmentation",
    "load": "loading",
    "read_manifest": "artifact",
}
_MODULES = frozenset({"boxes", "crf", "errors", "pas"})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lidcam_rt.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"lidcam_rt.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lidcam_rt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
