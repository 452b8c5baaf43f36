"""Averaged activation maps of many pictures: batch by batch, or of a whole split in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import ImageSet, Record

from lidcam_rt.errors import DataError, InputError
from lidcam_rt.image import read_image
from lidcam_training.pseudo.network import CamNetwork, averaged_cams, in_batches
from lidcam_training.pseudo.options import PseudoOptions

__all__ = ["MapBatch", "SplitMaps", "read_batches"]

#: Indices, pictures uint8 [H, W, 3], classes and float32 [K, h, w] of each.
MapBatch = tuple[range, list[npt.NDArray[np.uint8]], list[Sequence[int]], list[npt.NDArray[np.float32]]]


def read_batches(
    network: CamNetwork,
    records: Sequence[Record],
    options: PseudoOptions,
    *,
    size: int = 16,
    wanted: Callable[[range], bool] = lambda _: True,
    classes: Callable[[Record, npt.NDArray[np.uint8]], Sequence[int]] = lambda record, _: record.labels,
) -> Iterator[MapBatch]:
    """Pictures, classes and averaged activation maps, batch by batch.

    Args:
        network: of `open_network`.
        records: the pictures.
        options: views and NWC.
        size: pictures per batch.
        wanted: whether a batch (of indices) is needed.
        classes: of a picture; by default those of its record.

    Yields:
        See `MapBatch`.

    Raises:
        DataError: a picture cannot be read.
    """
    for batch in in_batches(len(records), size):
        if not wanted(batch):
            continue
        pictures = []
        for index in batch:
            try:
                pictures.append(read_image(records[index].image))
            except InputError as error:
                raise DataError(f"{error}. Pseudo labels need every picture") from error
        ids = [classes(records[index], picture) for index, picture in zip(batch, pictures, strict=True)]
        cams = averaged_cams(network, pictures, ids, options.views, nwc=options.nwc)
        yield batch, pictures, ids, cams


@dataclass(frozen=True, eq=False)
class SplitMaps:
    """A split with the averaged activation maps of its pictures.

    Attributes:
        name: of the split.
        labels: number of labels, background included.
        keys: names of the pictures, for the bootstrap.
        pictures: uint8 [H, W, 3] each.
        classes: class indices of each.
        cams: float16 [K, h, w] each.
        truth: uint8 [H, W] each.
    """

    name: str
    labels: int
    keys: list[str]
    pictures: list[npt.NDArray[np.uint8]]
    classes: list[Sequence[int]]
    cams: list[npt.NDArray[np.float16]]
    truth: list[npt.NDArray[np.uint8]]

    @classmethod
    def run(
        cls,
        network: CamNetwork,
        images: ImageSet,
        options: PseudoOptions,
        *,
        classes: Callable[..., Sequence[int]] | None = None,
        limit: int | None = None,
    ) -> SplitMaps:
        """Run a network over a split, once.

        Args:
            network: of `open_network`.
            images: with true label maps.
            options: views and NWC.
            classes: of a picture, called with its record and pixels; None: its image labels.
            limit: the first pictures only.

        Raises:
            DataError: a picture has no true label map, or cannot be read.
        """
        out = cls(images.name, len(images.class_names) + 1, [], [], [], [], [])
        records = images.records[:limit]
        chosen_of = classes or (lambda record, _: record.labels)
        for batch, pictures, ids, cams in read_batches(network, records, options, classes=chosen_of):
            for index, picture, chosen, cam in zip(batch, pictures, ids, cams, strict=True):
                record = records[index]
                true = None if record.mask is None else record.truth().label_map()
                if true is None:
                    raise DataError(f"{record.image} has no true label map: choose settings on a split that has them")
                out.keys.append(f"{record.image.parent.name}/{record.image.name}")
                out.pictures.append(picture)
                out.classes.append(chosen)
                out.cams.append(cam.astype(np.float16))
                out.truth.append(true)
        return out

    def __len__(self) -> int:
        return len(self.pictures)

    def batches(self, size: int = 16) -> Iterator[MapBatch]:
        """As `read_batches`, of what is in memory.

        Args:
            size: pictures per batch.
        """
        for batch in in_batches(len(self), size):
            part = slice(batch.start, batch.stop)
            cams = [cam.astype(np.float32) for cam in self.cams[part]]
            yield batch, self.pictures[part], self.classes[part], cams
