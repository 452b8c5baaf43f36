"""What goes into a run of the network, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lidcam_rt.image import RgbImage

if TYPE_CHECKING:
    from lidcam_rt.augment import Augment

__all__ = ["Outputs", "Prepared"]

#: The outputs of the graph by name, each with a row per picture.
Outputs: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A decoded picture and its network input.

    Attributes:
        path: its name in results, or None for a picture from memory.
        size: (width, height) in pixels.
        picture: uint8 [H, W, 3], or None where it is not kept.
        array: network input without its batch dimension.
        keep_image: whether the result gets the picture.
        missing: what was missing in its file, or None.
        views: with an augmentation, the network inputs [views, ...] of each scale.
        augment: the augmentation, or None.
    """

    path: str | None
    size: tuple[int, int]
    picture: RgbImage | None
    array: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    keep_image: bool = True
    missing: str | None = None
    views: tuple[npt.NDArray[Any], ...] = ()
    augment: Augment | None = None
