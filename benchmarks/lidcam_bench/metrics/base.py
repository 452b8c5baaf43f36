"""What all metrics share: whole-number state, exact merge, a streaming bootstrap, and the entry of the registry."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lidcam_bench.metrics.checks import check_number, check_whole
from lidcam_bench.metrics.sample import Sample
from lidcam_rt.errors import InputError
from lidcam_rt.text import encode_text

__all__ = ["Accumulator", "Interval", "Metric", "Score"]

#: Lower and upper end of an interval.
Interval = tuple[float, float]
_State = dict[str, npt.NDArray[np.int64]]
_Self = TypeVar("_Self", bound="Accumulator")
#: Images whose counts wait for their place in the bootstrap copies: one matrix product adds them all.
_WAITING = 64


@functools.lru_cache(maxsize=8)
def _weights(key: str, replicates: int) -> npt.NDArray[np.float64]:
    """How often each bootstrap copy counts the image `key`: float64 [replicates], whole numbers."""
    seed = int.from_bytes(hashlib.sha256(encode_text(key)).digest()[:8], "little")
    weights = np.random.Generator(np.random.PCG64(seed)).poisson(1.0, replicates).astype(np.float64)
    weights.setflags(write=False)
    return weights


class Accumulator(ABC):
    """A metric over a set of images, as sums of whole numbers.

    The state is a few int64 arrays of fixed size, so memory does not grow with the images, and `merge` of
    any split in any order gives the state of one pass, bit for bit.

    Confidence intervals come from the Poisson bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012): each of
    `replicates` copies of the state counts an image n ~ Poisson(1) times, n drawn from a hash of the image's key, so
    that merging and order change nothing here either. (Kept instead of torchmetrics' BootStrapper, whose copies depend
    on the order of the images and cannot be merged.) It takes images as independent: several images of one scene, or
    several pictures made from one cut-out, make the true interval wider.

    Args:
        replicates: bootstrap copies; 0 for none.
    """

    #: What distinguishes this accumulator's numbers; equal for those that may be merged.
    options: dict[str, Any]

    def __init__(self, replicates: int = 0) -> None:
        self.replicates = check_whole("replicates", replicates, 0, 10000)
        self.images = 0
        self.state: _State = {}
        self._copies: _State = {}
        self._waiting: list[tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]] = []

    def _allocate(self, **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            self.state[name] = np.zeros(shape, np.int64)
            if self.replicates:
                self._copies[name] = np.zeros((self.replicates, *shape), np.int64)

    def _add(self, key: str | None, **counts: npt.NDArray[np.int64]) -> None:
        """Add one image's counts to the state and, weighted, to the copies.

        Raises:
            InputError: the key is not text, or is missing though there are copies; nothing was counted then.
        """
        if self.replicates and key is None:
            raise InputError("a bootstrap needs the key of each image: give update(..., key=...)")
        if key is not None and not isinstance(key, str):
            raise InputError(f"the key of an image must be text, got {type(key).__name__}")
        self.images += 1
        for name, value in counts.items():
            self.state[name] += value
        if key is not None and self.replicates:
            values = {name: value.astype(np.float64) for name, value in counts.items()}
            self._waiting.append((_weights(key, self.replicates), values))
            if len(self._waiting) == _WAITING:
                self.copies()

    def copies(self) -> _State:
        """The bootstrap copies of `state`: each array [replicates, ...]; empty without replicates.

        Sums of up to 64 whole numbers below 2^44 are exact in float64 in any order, hence the products.
        """
        if self._waiting:
            weights = np.array([w for w, _ in self._waiting]).T
            for name, array in self._copies.items():
                values = np.array([counts[name].ravel() for _, counts in self._waiting])
                array += (weights @ values).astype(np.int64).reshape(array.shape)
            self._waiting.clear()
        return self._copies

    def merge(self: _Self, other: _Self) -> _Self:
        """Add another accumulator's images to this one's; exact. Returns self.

        Raises:
            InputError: it is of another kind or has other options.
        """
        if type(other) is not type(self) or other.options != self.options or other.replicates != self.replicates:
            raise InputError(
                f"cannot merge {type(other).__name__}{getattr(other, 'options', '')} into {self.options}: "
                "kind, options and replicates must be equal"
            )
        self.images += other.images
        for name in self.state:
            self.state[name] += other.state[name]
        mine, theirs = self.copies(), other.copies()
        for name in mine:
            mine[name] += theirs[name]
        return self

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """The whole state as arrays by name, for `np.savez`; `restore` takes it back."""
        copies = {f"{name}.copies": value for name, value in self.copies().items()}
        return {"images": np.array(self.images, np.int64), **self.state, **copies}

    def restore(self, arrays: dict[str, npt.NDArray[np.int64]]) -> None:
        """Restore what `arrays` returned.

        Raises:
            InputError: the arrays are those of other options, or not counts; nothing is restored then.
        """
        mine = self.arrays()
        if mine.keys() != arrays.keys() or any(
            mine[k].shape != arrays[k].shape or arrays[k].dtype != np.int64 or (arrays[k] < 0).any() for k in mine
        ):
            raise InputError(f"this state is not one of {type(self).__name__}{self.options}")
        self.images = int(arrays["images"])
        for name in self.state:
            self.state[name][...] = arrays[name]
        for name, copies in self.copies().items():
            copies[...] = arrays[f"{name}.copies"]

    @abstractmethod
    def count(self, sample: Sample) -> dict[str, Any]:
        """Count a picture of an evaluation.

        Returns:
            The picture's own numbers by name, for images.csv; empty where the sample lacks what this metric needs.

        Raises:
            InputError: map, mask or labels are not as `Sample` says.
        """

    @abstractmethod
    def _scores(self, state: _State) -> dict[str, float | None]:
        """The headline numbers of a state; None where nothing was counted."""

    def scores(self) -> dict[str, float | None]:
        """The headline numbers by name; None where nothing was counted."""
        return self._scores(self.state)

    def replicate_scores(self) -> list[dict[str, float | None]]:
        """`scores` of every bootstrap copy. Copy i of two metrics over the same keys drew the same images."""
        copies = self.copies()
        return [self._scores({k: v[i] for k, v in copies.items()}) for i in range(self.replicates)]

    def intervals(self, level: float = 0.95) -> dict[str, Interval | None]:
        """Percentile bootstrap intervals of `scores`; None without replicates or with fewer than two images.

        Args:
            level: share of the replicates within, between 0 and 1.

        Raises:
            InputError: the level is not between 0 and 1.
        """
        if not 0 < check_number("level", level) < 1:
            raise InputError(f"level must be between 0 and 1, got {level}")
        names = self.scores()
        if not self.replicates or self.images < 2:
            return dict.fromkeys(names)
        runs = self.replicate_scores()
        intervals: dict[str, Interval | None] = {}
        for name in names:
            values = [run[name] for run in runs if run[name] is not None]
            ends = np.percentile(np.array(values, np.float64), [50 * (1 - level), 50 * (1 + level)]) if values else None
            intervals[name] = None if ends is None else (float(ends[0]), float(ends[1]))
        return intervals

    def to_dict(self) -> dict[str, Any]:
        """Scores, their intervals, the options and the number of images, as plain values."""
        return {
            "metric": type(self).__name__,
            "images": self.images,
            "options": dict(self.options),
            "scores": self.scores(),
            "intervals_95": {k: None if v is None else list(v) for k, v in self.intervals().items()},
        }


@dataclass(frozen=True, slots=True)
class Score:
    """A number of a metric.

    Attributes:
        name: its key in `Accumulator.scores`.
        title: as the field writes it.
        digits: after the point.
    """

    name: str
    title: str
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Metric:
    """An entry of `lidcam_bench.metrics.registry`.

    Attributes:
        name: its key in results.json.
        group: what `--metrics` calls it, with others.
        title: as the field writes it.
        meaning: what the number says, in words, for the report.
        is_not: what it is mistaken for and is not.
        make: called with (replicates, number of classes with the background).
        scores: its numbers, the headline first.
        glance: names of the scores in the report's first table.
        against_blob: whether the headline is compared with that of the map without a model.
    """

    name: str
    group: str
    title: str
    meaning: str
    is_not: str
    make: Callable[[int, int], Accumulator]
    scores: tuple[Score, ...]
    glance: tuple[str, ...]
    against_blob: bool = True

    @property
    def headline(self) -> str:
        """Name of the first score."""
        return self.scores[0].name

    def score(self, name: str) -> Score:
        """A score by name; one that is not listed is called by its name."""
        return next((s for s in self.scores if s.name == name), Score(name, name.replace("_", " ")))
