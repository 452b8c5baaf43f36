"""The search: every setting that costs nothing at run time, then views and CRF where they are better beyond chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import Truth
from lidcam_bench.metrics import histogram

from lidcam_export.tuning.maps import MapSource, PictureMaps
from lidcam_export.tuning.scores import Part, Scores, average_precision, difference_interval, hits, score_picture
from lidcam_export.tuning.settings import PERCENTILES, PRESETS, THETAS, VIEWS, Settings, TuneOptions
from lidcam_rt.augment import Augment
from lidcam_rt.backends.base import usable_cores
from lidcam_rt.boxes import largest_box

__all__ = ["Grid", "Memory", "Search", "each_picture"]


class Memory(Protocol):
    """The numbers of pictures, kept so that an interrupted run can resume."""

    def get(self, what: str, index: int) -> dict[str, Any] | None:
        """The numbers of a picture that an earlier run made, or None."""

    def put(self, what: str, index: int, row: dict[str, Any]) -> None:
        """Keep the numbers of a picture."""


@dataclass(frozen=True)
class Grid:
    """What is tried.

    Attributes:
        nwc: choices of NWC, the artifact's own first.
        views: by rising cost.
        percentiles: of PaS.
        thetas: of PaS.
    """

    nwc: tuple[bool, ...]
    views: tuple[Augment, ...]
    percentiles: tuple[float, ...]
    thetas: tuple[float, ...]

    @classmethod
    def around(cls, own: Settings, options: TuneOptions, *, signs: bool, other_sizes: bool, labels: bool) -> Grid:
        """The grid of an artifact, its own settings among it.

        Args:
            own: settings of the artifact.
            options: what may be chosen.
            signs: whether its weights can be clamped, or their signs are still known.
            other_sizes: whether it takes other sizes of input.
            labels: whether it takes labels, which views need.
        """
        views: tuple[Augment, ...] = (own.views,)
        if options.views and labels:
            possible = [entry for entry in VIEWS if other_sizes or entry.scales == (1.0,)]
            views = (*possible, *(() if own.views in possible else (own.views,)))
        return cls(
            nwc=(own.nwc, not own.nwc) if options.nwc and signs else (own.nwc,),
            views=views,
            percentiles=tuple(dict.fromkeys((own.percentile, *PERCENTILES))),
            thetas=tuple(dict.fromkeys((own.theta, *THETAS))),
        )

    def cells(self) -> Iterator[tuple[str, bool, Augment]]:
        """Choices that need maps of their own, by name."""
        for number, views in enumerate(self.views):
            for nwc in self.nwc:
                yield f"{number}|{int(nwc)}", nwc, views


class Search:
    """Chooses settings on a part of a data set.

    Args:
        source: of maps.
        part: the pictures.
        grid: what is tried.
        options: by which metric, and whether with a CRF.
        memory: of the numbers made so far.
        tick: called for each picture with (what, done, all).
    """

    def __init__(
        self,
        source: MapSource,
        part: Part,
        grid: Grid,
        options: TuneOptions,
        memory: Memory,
        tick: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self._source, self._part, self._grid, self._options = source, part, grid, options
        self._memory, self._tick = memory, tick

    def choose(self, own: Settings) -> Settings:
        """The settings; they are at least as good on these pictures as the artifact's own, by the search's scores."""
        rows = self._each("grid", self._grid_row)
        best, best_row = own, self._row_of(rows, own)
        for number, views in enumerate(self._grid.views):
            settings = self._best_of(rows, number)
            row = self._row_of(rows, settings)
            cheap = views.scales == (1.0,) and not views.flip
            if number == 0 and (cheap or settings.views == own.views):
                better = self._key(row) > self._key(best_row)
            else:
                better = self._beyond_chance(best_row, row)
            if better:
                best, best_row = settings, row
        if not self._options.crf:
            return replace(best, refine=own.refine)
        return self._with_crf(replace(best, refine=None))

    def _grid_row(self, index: int) -> dict[str, Any]:
        """The numbers of one picture for the whole grid."""
        maps = self._maps(index)
        truth, mask = self._part.truth(index, maps.prepared.size)
        return {name: self._cell(maps, truth, mask, nwc, views) for name, nwc, views in self._grid.cells()}

    def _cell(
        self, maps: PictureMaps, truth: Truth, true_mask: npt.NDArray[np.uint8], nwc: bool, views: Augment
    ) -> dict[str, Any]:
        """IoU (and box hits) per percentile and theta, and the maps' histograms."""
        grid, metric = self._grid, self._options.metric
        normalizes = self._source.manifest.pas.mode == "normalize"
        iou, hit, counts = [], [], []
        made: dict[int, bool] = {}
        for number, percentile in enumerate(grid.percentiles):
            if normalizes or number == 0:  # else the map is the same for all
                map8, full, _ = self._source.map8(maps, Settings(nwc, percentile, grid.thetas[0], views))
                pair = histogram(full, true_mask)
                below = pair.cumsum(1)
                outside, inside = (pair.sum(1)[:, None] - below)
                curve = inside / np.maximum(outside + pair[1].sum(), 1)
                made = {}
                counts.append(pair.ravel().tolist())
            levels = self._levels(maps, map8, nwc, views, percentile)
            iou.append([round(float(curve[level]), 7) for level in levels])
            if metric == "box":
                label = self._own_label(truth)
                for level in levels:
                    if level not in made:
                        made[level] = hits(truth, label, largest_box(full.astype(np.int16) > level))
                hit.append([made[level] for level in levels])
        out: dict[str, Any] = {"iou": iou}
        if metric == "box":
            out["hit"] = hit
        if metric == "pxap":
            out["counts"] = counts
        return out

    def _levels(
        self, maps: PictureMaps, map8: npt.NDArray[np.uint8], nwc: bool, views: Augment, percentile: float
    ) -> list[int]:
        """The level above which the map is the mask, per theta."""
        pas_options, thetas = self._source.manifest.pas, self._grid.thetas
        if pas_options.mode == "normalize":
            return [int(theta * 255) for theta in thetas]
        if pas_options.where == "resized" and pas_options.precision == "uint8":
            standard = float(np.percentile(map8, percentile))
            return [int(theta * standard) for theta in thetas]
        thresholds = (self._source.map8(maps, Settings(nwc, percentile, theta, views))[2] for theta in thetas)
        return [min(max(int(np.floor(value)), 0), 255) for value in thresholds]

    def _with_crf(self, plain: Settings) -> Settings:
        """The same settings with a CRF, and a theta near theirs, where that is better beyond chance."""
        thetas = sorted({plain.theta, *(t for t in self._grid.thetas if 0.04 < abs(t - plain.theta) < 0.11)})
        tried = [replace(plain, refine=preset, theta=theta) for preset in PRESETS for theta in thetas]
        names = [f"{entry.refine}|{entry.theta:g}" for entry in tried]

        def row(index: int) -> dict[str, Any]:
            maps = self._maps(index)
            truth, mask = self._part.truth(index, maps.prepared.size)
            out = {}
            for name, settings in zip(("plain", *names), (plain, *tried), strict=True):
                fast = settings if settings.refine is None else replace(settings, refine=f"{settings.refine}-fast")
                result = self._source.localize(maps, fast)
                label = self._own_label(truth)
                out[name] = score_picture(truth, mask, label, result.mask, result.map, result.box)
            return out

        rows = self._each("crf", row)
        scores = {name: Scores.of([entry[name] for entry in rows]) for name in ("plain", *names)}
        metric = self._options.metric
        best = max(range(len(tried)), key=lambda i: scores[names[i]].value(metric))
        low, _ = difference_interval(scores["plain"], scores[names[best]], metric)
        return tried[best] if low > 0 else plain

    def _each(self, what: str, make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        return each_picture(what, len(self._part.labels), make, self._memory, self._tick)

    def _maps(self, index: int) -> PictureMaps:
        record = self._part.images.records[index]
        return self._source.of(record.image, self._part.labels[index])

    @staticmethod
    def _own_label(truth: Truth) -> int | None:
        return truth.labels[0] if len(truth.labels) > 1 else None

    def _best_of(self, rows: Sequence[dict[str, Any]], number: int) -> Settings:
        """The best settings with these views."""
        best: tuple[tuple[float, float], Settings] | None = None
        views = self._grid.views[number]
        for nwc in self._grid.nwc:
            name = f"{number}|{int(nwc)}"
            iou = np.mean([row[name]["iou"] for row in rows], axis=0)
            first = iou
            if self._options.metric == "box":
                first = np.mean([row[name]["hit"] for row in rows], axis=0)
            elif self._options.metric == "pxap":
                pooled = np.sum([row[name]["counts"] for row in rows], axis=0).reshape(-1, 2, 256)
                values = [average_precision(entry) for entry in pooled]
                first = np.broadcast_to(np.reshape(values, (-1, 1)), iou.shape)
            for p, t in np.ndindex(*iou.shape):
                key = (float(first[p, t]), float(iou[p, t]))
                if best is None or key > best[0]:
                    settings = Settings(nwc, self._grid.percentiles[p], self._grid.thetas[t], views)
                    best = (key, settings)
        assert best is not None
        return best[1]

    def _row_of(self, rows: Sequence[dict[str, Any]], settings: Settings) -> Scores:
        """The scores of settings without a CRF, picture by picture."""
        grid = self._grid
        name = f"{grid.views.index(settings.views)}|{int(settings.nwc)}"
        p, t = grid.percentiles.index(settings.percentile), grid.thetas.index(settings.theta)
        n = len(rows)
        iou = np.array([row[name]["iou"][p][t] for row in rows])
        hit = np.array([row[name]["hit"][p][t] for row in rows]) if "hit" in rows[0][name] else np.zeros(n, np.bool_)
        counts = np.zeros((n, 2, 256), np.int64)
        if "counts" in rows[0][name]:
            place = min(p, len(rows[0][name]["counts"]) - 1)  # one map for all percentiles, or one for each
            counts[:] = [np.reshape(row[name]["counts"][place], (2, 256)) for row in rows]
        return Scores(iou, hit, counts)

    def _key(self, scores: Scores) -> tuple[float, float]:
        return scores.value(self._options.metric), scores.value("mask-iou")

    def _beyond_chance(self, before: Scores, after: Scores) -> bool:
        return difference_interval(before, after, self._options.metric)[0] > 0


def each_picture(
    what: str,
    total: int,
    make: Callable[[int], dict[str, Any]],
    memory: Memory,
    tick: Callable[[str, int, int], None],
) -> list[dict[str, Any]]:
    """A row per picture, several made at once; those of an earlier run are reused.

    Args:
        what: name of the rows in the memory.
        total: number of pictures.
        make: the row of a picture.
        memory: of rows.
        tick: called for each picture.
    """
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        width = 2 * usable_cores()
        for start in range(0, total, width):
            earlier = {i: memory.get(what, i) for i in range(start, min(start + width, total))}
            futures = {i: pool.submit(make, i) for i, row in earlier.items() if row is None}
            for index, known in earlier.items():
                row = known
                if row is None:
                    row = futures[index].result()
                    memory.put(what, index, row)
                rows.append(row)
                tick(what, len(rows), total)
    return rows
