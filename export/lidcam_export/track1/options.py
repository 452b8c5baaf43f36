"""How the Track 1 pipeline is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lidcam_rt.errors import InputError

__all__ = ["Track1Options"]


@dataclass(frozen=True)
class Track1Options:
    """How the pipeline is run.

    Attributes:
        data: a data set that can be made (scenes, scenes-stamps), or any that `open_data` opens, with label maps.
        seeds: of the training runs; the table gives the mean over them.
        sizes: (train, val, test) of made data; None: the defaults of `lidcam data make`.
        source: folder of the objects of made data.
        backgrounds: folder of the photographs of made data.
        cam_recipe: of the CAM network.
        segment_recipe: of both segmentation networks.
        overrides: `cam.KEY=VALUE` or `segment.KEY=VALUE`, for the recipes.
        limit: pseudo labels, and networks trained on label maps, of the first training pictures only; None: of all.
            The CAM network has all of them.
        replicates: bootstrap copies of the intervals.
    """

    data: str = "scenes"
    seeds: tuple[int, ...] = (0,)
    sizes: tuple[int, int, int] | None = None
    source: Path | None = None
    backgrounds: Path | None = None
    cam_recipe: str = "scenes_lite0"
    segment_recipe: str = "scenes_segment"
    overrides: tuple[str, ...] = ()
    limit: int | None = None
    replicates: int = 200

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds: give different whole numbers, got {list(self.seeds)}")
        wrong = [entry for entry in self.overrides if entry.partition(".")[0] not in ("cam", "segment")]
        if wrong:
            raise InputError(f"{wrong[0]}: write cam.KEY=VALUE or segment.KEY=VALUE")

    def of(self, network: str) -> list[str]:
        """The overrides of the recipe `cam` or `segment`."""
        limit = [] if network == "cam" or self.limit is None else [f"data.limit={self.limit}"]
        return limit + [entry.partition(".")[2] for entry in self.overrides if entry.startswith(f"{network}.")]
