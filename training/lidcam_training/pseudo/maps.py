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
from lidcam_training.pseudo.walk import principal_features

__all__ = ["MapBatch", "PictureMaps", "SplitMaps", "read_batches"]


@dataclass(frozen=True, eq=False)
class PictureMaps:
    """A picture with its averaged activation maps.

    Attributes:
        picture: uint8 [H, W, 3] RGB.
        classes: class indices of the maps.
        cams: float32 [K, h, w].
        features: float32 [D, h, w] for a walk along them, or None.
    """

    picture: npt.NDArray[np.uint8]
    classes: Sequence[int]
    cams: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32] | None = None


#: Indices, and what belongs to each.
MapBatch = tuple[range, list[PictureMaps]]


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
        options: views, NWC, and whether the walk needs features.
        size: pictures per batch.
        wanted: whether a batch (of indices) is needed.
        classes: of a picture; by default those of its record.

    Yields:
        See `MapBatch`.

    Raises:
        DataError: a picture cannot be read.
        InputError: features are needed, and the network is an artifact.
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
        features: list[npt.NDArray[np.float32] | None] = [None] * len(batch)
        if options.walk == "features":
            features = [principal_features(entry) for entry in network.descriptors(pictures)]
        yield batch, [PictureMaps(*entry) for entry in zip(pictures, ids, cams, features, strict=True)]


@dataclass(frozen=True, eq=False)
class SplitMaps:
    """A split with the averaged activation maps of its pictures, in memory.

    Attributes:
        name: of the split.
        labels: number of labels, background included.
        keys: names of the pictures, for the bootstrap.
        pictures: uint8 [H, W, 3] each.
        classes: class indices of each.
        cams: float16 [K, h, w] each.
        truth: uint8 [H, W] each.
        features: float32 [D, h, w] each, or None.
    """

    name: str
    labels: int
    keys: list[str]
    pictures: list[npt.NDArray[np.uint8]]
    classes: list[Sequence[int]]
    cams: list[npt.NDArray[np.float16]]
    truth: list[npt.NDArray[np.uint8]]
    features: list[npt.NDArray[np.float32] | None]

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
        out = cls(images.name, len(images.class_names) + 1, [], [], [], [], [], [])
        records = images.records[:limit]
        chosen_of = classes or (lambda record, _: record.labels)
        for batch, made in read_batches(network, records, options, classes=chosen_of):
            for index, entry in zip(batch, made, strict=True):
                record = records[index]
                true = None if record.mask is None else record.truth().label_map()
                if true is None:
                    raise DataError(f"{record.image} has no true label map: choose settings on a split that has them")
                out.keys.append(f"{record.image.parent.name}/{record.image.name}")
                out.pictures.append(entry.picture)
                out.classes.append(entry.classes)
                out.cams.append(entry.cams.astype(np.float16))
                out.truth.append(true)
                out.features.append(entry.features)
        return out

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> PictureMaps:
        cam = self.cams[index].astype(np.float32)
        return PictureMaps(self.pictures[index], self.classes[index], cam, self.features[index])

    def batches(self, size: int = 16) -> Iterator[MapBatch]:
        """As `read_batches`, from memory.

        Args:
            size: pictures per batch.
        """
        for batch in in_batches(len(self), size):
            yield batch, [self[index] for index in batch]
