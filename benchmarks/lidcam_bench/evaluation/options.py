"""How an evaluation is run, the names of its rows, and which classes of model and data are the same."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lidcam_bench.metrics.registry import GROUPS
from lidcam_rt.artifact import Manifest
from lidcam_rt.augment import Augment
from lidcam_rt.crf import CrfOptions, Refine
from lidcam_rt.defaults import refinement, views
from lidcam_rt.errors import InputError
from lidcam_rt.segmenter import SegmentOptions

__all__ = ["BASELINE", "KNOWN", "NO_CLASS", "PREDICTED", "EvalOptions", "class_map"]

#: Names of the rows: the model's own class, the class it is given, and the map without a model.
PREDICTED, KNOWN, BASELINE = "predicted class", "ground-truth class", "baseline: centred blob"
#: In `class_map`: a class of the data that the model does not have.
NO_CLASS = -1


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """How an evaluation is run.

    Attributes:
        metrics: of track3, wsol, track1.
        gt_known: score the true class's map too, as a row of its own.
        replicates: bootstrap copies for the 95% intervals; 0 for none.
        limit: score the first pictures only; None for all.
        batch_size: pictures per network call; None: 1 on the CPU, 8 on a GPU.
        save_every: smallest number of pictures between two saved states (fewer saves where they take over 5% of the
            time).
        segment: how label maps are made, for track1 (with a CRF of their own).
        refine: how maps, masks and boxes are refined, as in a call of the Localizer.
        augment: views whose maps or logits are averaged, as in a call.
    """

    metrics: tuple[str, ...] = ("track3", "wsol")
    gt_known: bool = False
    replicates: int = 200
    limit: int | None = None
    batch_size: int | None = None
    save_every: int = 20
    segment: SegmentOptions = field(default_factory=SegmentOptions)
    refine: Refine | CrfOptions | str | None = None
    augment: Augment | str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in GROUPS]
        if unknown or not self.metrics:
            raise InputError(f"metrics must be from {', '.join(GROUPS)}, got {', '.join(self.metrics) or 'none'}")
        Refine.of(self.refine)
        Augment.of(self.augment)
        for name in ("batch_size", "save_every", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")

    def resolved(self, manifest: Manifest) -> EvalOptions:
        """These options with the artifact's own views and CRF where none are named."""
        refine, augment = refinement(manifest, self.refine), views(manifest, self.augment)
        return replace(self, refine=refine or "none", augment=augment or "none")

    def to_dict(self) -> dict[str, Any]:
        """All that results depend on, as plain values; `crf` and `crf_size` say how maps are refined."""
        refine, of_labels = Refine.of(self.refine), Refine.of(self.segment.refine)
        segment = asdict(self.segment)
        del segment["refine"]
        segment["crf"] = None if of_labels is None else asdict(of_labels)["crf"]
        options = {k: v for k, v in asdict(self).items() if k not in ("save_every", "refine", "augment")}
        if (views := Augment.of(self.augment)) is not None:
            options["augment"] = asdict(views)
        return options | {
            "segment": segment,
            "crf": None if refine is None else refine.to_dict(),
            "crf_size": "network" if refine is None else refine.size,
        }


def class_map(model: tuple[str, ...], data: tuple[str, ...]) -> tuple[int, ...] | None:
    """The model's class for each class of the data, by name and regardless of case.

    Returns:
        Index in the model per class of the data, `NO_CLASS` where the model lacks it; None where it lacks all.

    Raises:
        InputError: a class of the data has the name of several of the model's.
    """
    if model == data:  # names may repeat: ImageNet has two cranes
        return tuple(range(len(model)))
    by_name: dict[str, list[int]] = {}
    for i, name in enumerate(model):
        by_name.setdefault(_plain(name), []).append(i)
    for name in data:
        if len(by_name.get(_plain(name), [])) > 1:
            numbers = ", ".join(map(str, by_name[_plain(name)]))
            raise InputError(
                f"the data's class {name!r} may be any of the model's classes {numbers}, which have that name: rename "
                "them, in the artifact by `lidcam export --classes`"
            )
    classes = tuple(by_name.get(_plain(name), [NO_CLASS])[0] for name in data)
    return classes if any(i != NO_CLASS for i in classes) else None


def _plain(name: str) -> str:
    """A class name regardless of case and of how its accents are encoded."""
    return unicodedata.normalize("NFC", name).casefold()
