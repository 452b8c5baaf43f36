"""Options of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lidcam_rt.errors import InputError

__all__ = ["BuildOptions", "FlavourName", "PasForm", "Precision"]

FlavourName = Literal["auto", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16"]
PasForm = Literal["body", "plugin"]


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        flavour: `tensorrt`, `tensorrt-rtx`, or `auto`: the first of these that is installed.
        precision: `fp32`, or `fp16`: the network in half precision, CAM head and PaS in float32.
        batch: smallest, preferred and largest batch.
        size: (height, width) of the input in pixels; None: the artifact's.
        capability: compute capabilities of the GPUs that will run it (TensorRT for RTX); empty: this machine's GPU.
        pas: `body`, standard operators, or `plugin`, the kernel baked into the engine (TensorRT only).
        workspace_mib: limit of the builder's scratch memory; None: TensorRT's default.
        force: build even where the output is up to date.
    """

    flavour: FlavourName = "auto"
    precision: Precision = "fp32"
    batch: tuple[int, int, int] = (1, 8, 32)
    size: tuple[int, int] | None = None
    capability: tuple[str, ...] = ()
    pas: PasForm = "body"
    workspace_mib: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        low, middle, high = self.batch
        if not 1 <= low <= middle <= high:
            raise InputError(f"batch must be smallest <= preferred <= largest, all at least 1, got {self.batch}")
        for name, value, known in (
            ("flavour", self.flavour, get_args(FlavourName)),
            ("precision", self.precision, get_args(Precision)),
            ("pas", self.pas, get_args(PasForm)),
        ):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")
