"""What a metric may look at: one picture, its truth, and what the model says."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.histogram import histogram
from lidcam_rt.results import Box

__all__ = ["Answer", "Sample"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to a picture with known classes.

    Attributes:
        labels: true classes, at least one.
        ranked: predicted classes, best first.
        box: half-open box of the first class's map, None where it has none.
        known_box: half-open box of the true class's map.
        known: whether `known_box` was requested.
    """

    labels: Sequence[int]
    ranked: Sequence[int]
    box: Box | None = None
    known_box: Box | None = None
    known: bool = False


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture. What is None or empty is unknown, and metrics that need it do not count the picture.

    Attributes:
        key: name of the picture, for the bootstrap.
        size: (width, height) in pixels.
        map8: localization map, uint8 [height, width].
        mask: uint8 [height, width]: 1 object, 0 background, 255 ignored.
        boxes: half-open ground-truth boxes.
        labels: predicted label map, uint8 [height, width].
        true_labels: true label map, 255 ignored.
        answer: class and box as the model answers.
    """

    key: str
    size: tuple[int, int]
    map8: npt.NDArray[np.uint8] | None = None
    mask: npt.NDArray[np.uint8] | None = None
    boxes: Sequence[Box] = ()
    labels: npt.NDArray[np.uint8] | None = None
    true_labels: npt.NDArray[np.uint8] | None = None
    answer: Answer | None = None
    _shared: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64] | None:
        """`histogram` of map and mask, int64 [2, 256], made once for all metrics; None without either."""
        return None if self.map8 is None or self.mask is None else histogram(self.map8, self.mask)

    def share(self, what: Hashable, make: Callable[[], _T]) -> _T:
        """The value of `make`, called once for all metrics that ask for the same `what`."""
        if what not in self._shared:
            self._shared[what] = make()
        value: _T = self._shared[what]
        return value
