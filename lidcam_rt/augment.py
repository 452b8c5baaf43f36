"""Several views of a picture, scaled and mirrored, whose maps are averaged (as irn does)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.artifact import InputSpec
from lidcam_rt.errors import InputError
from lidcam_rt.image import RgbImage, network_input

__all__ = ["Augment"]


@dataclass(frozen=True, slots=True)
class Augment:
    """The views of a picture. `Augment.of("ms-flip")` is irn's choice: scales 0.5, 1, 1.5 and 2, each also mirrored.

    Attributes:
        scales: relative to the network's input size; scales other than 1 need an artifact with free height and width.
        flip: mirror each view too.

    Raises:
        InputError: no scale, or one outside 0.1 to 8.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales or not all(0.1 <= scale <= 8 for scale in self.scales):
            raise InputError(f"scales of views must be between 0.1 and 8, got {self.scales!r}")

    @classmethod
    def of(cls, value: Augment | str | None) -> Augment | None:
        """From a user's `augment=`: None or `none`, `flip`, `ms-flip`, or an `Augment`.

        Raises:
            InputError: it is none of these.
        """
        if value is None or isinstance(value, Augment):
            return value
        if value == "none":
            return None
        named = {"flip": cls(flip=True), "ms-flip": cls((0.5, 1.0, 1.5, 2.0), flip=True)}
        if value not in named:
            raise InputError(f"augment must be flip, ms-flip, none, an Augment or None, got {value!r}")
        return named[value]

    def inputs(self, picture: RgbImage, spec: InputSpec, multiple: int = 1) -> list[npt.NDArray[Any]]:
        """The network inputs of a picture: per scale an array [views, ...] of the picture and its mirror image.

        Args:
            picture: uint8 [H, W, 3] RGB.
            spec: the manifest's input.
            multiple: sides of the inputs are multiples of this, pixels.

        Raises:
            InputError: a scale is not 1, and the network takes one size only.
        """
        if not spec.dynamic_size and any(scale != 1 for scale in self.scales):
            raise InputError("views at other scales need an artifact with free height and width: export it without "
                             "--fixed-size, or use augment='flip'")  # fmt: skip
        out = []
        for scale in self.scales:
            height, width = (max(1, round(scale * n / multiple)) * multiple for n in (spec.height, spec.width))
            scaled = spec.model_copy(update={"height": height, "width": width})
            array: npt.NDArray[Any] = network_input(picture, scaled)
            views = [array]
            if self.flip:
                views.append(array[:, ::-1] if spec.layout == "NHWC" else array[:, :, ::-1])
            out.append(np.ascontiguousarray(np.stack(views)))
        return out

    def merge(self, maps: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """The mean of the views' maps, at the size of the finest.

        Args:
            maps: per scale float32 [views, K, h, w], in the order of `inputs`.

        Returns:
            float32 [K, h, w].
        """
        import cv2

        height, width = max((part.shape[2:] for part in maps), key=lambda shape: shape[0] * shape[1])
        total = np.zeros((maps[0].shape[1], height, width), np.float32)
        for part in maps:
            upright = part[0] if not self.flip else part[0] + part[1][..., ::-1]
            for k, plane in enumerate(upright):
                total[k] += cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=cv2.INTER_LINEAR)
        total /= np.float32(len(maps) * (2 if self.flip else 1))
        return total
