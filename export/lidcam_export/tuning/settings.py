"""What `lidcam tune` chooses, and how it is asked to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from lidcam_rt.artifact import DefaultsSpec, Manifest
from lidcam_rt.augment import Augment
from lidcam_rt.errors import InputError

__all__ = ["METRICS", "PERCENTILES", "PRESETS", "THETAS", "VIEWS", "MetricName", "Settings", "TuneOptions"]

MetricName: TypeAlias = Literal["mask-iou", "pxap", "box"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)

#: What is tried. 100 is the maximum.
PERCENTILES = (100.0, 98.0, 95.0, 90.0, 85.0, 80.0)
THETAS = tuple(round(0.05 * i, 2) for i in range(1, 20))
#: By rising cost: each must be better than the cheaper ones by more than chance.
VIEWS = (
    Augment(),
    Augment(flip=True),
    Augment((0.5, 1.0, 1.5), flip=True),
    Augment((0.5, 1.0, 1.5, 2.0), flip=True),
)
PRESETS = ("psa", "irn", "deeplab")


@dataclass(frozen=True)
class Settings:
    """How an artifact localizes.

    Attributes:
        nwc: negative weights are clamped.
        percentile: of PaS, 0 to 100.
        theta: of PaS, 0 to 1.
        views: whose maps are averaged.
        refine: preset of the CRF, or None.
    """

    nwc: bool
    percentile: float
    theta: float
    views: Augment = VIEWS[0]
    refine: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Settings:
        """Those of an artifact."""
        assert manifest.cam is not None
        spec = manifest.defaults or DefaultsSpec()
        views = Augment(spec.scales, spec.flip)
        return cls(manifest.cam.nwc, manifest.pas.percentile, manifest.pas.theta, views, spec.refine)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "nwc": self.nwc,
            "percentile": self.percentile,
            "theta": self.theta,
            "scales": list(self.views.scales),
            "flip": self.views.flip,
            "refine": self.refine,
        }


@dataclass(frozen=True)
class TuneOptions:
    """How settings are chosen.

    Attributes:
        metric: `mask-iou`: mean over pictures of the mask's IoU with the object. `pxap`: pixel average precision of
            the map (percentile and theta, which it hardly sees, are chosen by mask IoU). `box`: share of pictures
            whose box has IoU >= 0.5 with an object's.
        nwc: choose NWC too.
        views: choose views too.
        crf: choose a CRF too.

    Raises:
        InputError: no such metric.
    """

    metric: MetricName = "mask-iou"
    nwc: bool = True
    views: bool = True
    crf: bool = True

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"the metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
