"""Pseudo labels of a whole split, written to a folder: a run can be killed at any moment and resumes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lidcam_bench.data import ImageSet, MaskForm, Record
from lidcam_bench.data.mask_forms import decode_mask
from lidcam_bench.metrics import SegmentationScores

from lidcam_cli.runs import RunFolder
from lidcam_rt.backends.base import usable_cores
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.files import safe_name, write_atomically
from lidcam_rt.version import __version__
from lidcam_training.data.label_png import label_png
from lidcam_training.pseudo.labels import class_maps, label_map
from lidcam_training.pseudo.maps import PictureMaps, SplitMaps, read_batches
from lidcam_training.pseudo.network import NO_FEATURES, CamNetwork
from lidcam_training.pseudo.options import PseudoOptions

__all__ = ["label_file", "pseudo_labels"]

#: Called with (done, all).
Progress = Callable[[int, int], None]


def label_file(record: Record) -> str:
    """Name of a picture's pseudo label: its stem, and a digest of its folder where pictures lie in several."""
    return f"{safe_name(record.image.stem)}.png"


def _names(images: ImageSet) -> list[str]:
    names = [label_file(record) for record in images]
    counts: dict[str, int] = {}
    for name in names:
        counts[name.lower()] = counts.get(name.lower(), 0) + 1
    if max(counts.values(), default=0) > 1:
        double = next(name for name in names if counts[name.lower()] > 1)
        raise DataError(f"{images.name}: two pictures would have the label map {double}: rename one")
    return names


def pseudo_labels(
    network: CamNetwork,
    images: ImageSet,
    out: Path,
    options: PseudoOptions,
    *,
    limit: int | None = None,
    keep_maps: bool = False,
    batch_size: int = 16,
    maps: SplitMaps | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the pseudo label of every picture, with the classes that its image labels name.

    `OUT/NAME.png` is a label map (8-bit palette PNG: 0 background, class index + 1, 255 ignored); with `keep_maps`
    `OUT/maps/NAME.npz` holds the averaged activation maps by class, float16. Each file is written whole or not at all,
    and the journal (results.jsonl) names those that are complete: the same call resumes where it stopped, and ends
    with the same bytes.

    Args:
        network: of `open_network`.
        images: the split, with image labels.
        out: folder, made if it is not there.
        options: how labels are made.
        limit: the first pictures only.
        keep_maps: write the activation maps too.
        batch_size: pictures per call of the network.
        maps: of this network over these pictures, with the options' views and NWC, if they exist already.
        progress: called with (done, all).

    Returns:
        What OUT/results.json holds: options, pictures, share of pixels that are ignored, and the mean IoU where there
        are true label maps.

    Raises:
        DataError: a picture cannot be read, or the classes are not the network's.
        InputError: a walk along features that the network does not have.
        OutputError: the folder cannot be written, or holds pseudo labels of other options, data or network.
    """
    if tuple(images.class_names) != tuple(network.class_names):
        raise DataError(f"{images.name} has other classes than the network: give the data that it was trained on")
    network.signed(options.nwc)
    if options.walk == "features" and not network.gives_features:
        raise InputError(NO_FEATURES)  # before the folder holds a run that cannot succeed
    records, names = images.records[:limit], _names(images)
    identity = {
        "run": "pseudo",
        "version": __version__,
        **network.identity,
        "data": images.fingerprint(),
        "options": {**options.to_dict(), "limit": limit, "maps": keep_maps, "batch_size": batch_size},
    }
    with RunFolder(out, identity) as folder, ThreadPoolExecutor(usable_cores()) as pool:
        if keep_maps:
            (out / "maps").mkdir(exist_ok=True)
        rows = {row["file"]: row for row in folder.records() if (out / str(row.get("file"))).is_file()}
        if progress:
            progress(len(rows), len(records))

        def write(index: int, entry: PictureMaps) -> dict[str, Any]:
            ready = class_maps(entry.picture, entry.cams, options, entry.features)
            labels = label_map(entry.picture, ready, entry.classes, options)
            if keep_maps:
                file = io.BytesIO()
                pairs = zip(entry.classes, entry.cams, strict=True)
                arrays: dict[str, Any] = {str(k): cam.astype(np.float16) for k, cam in pairs}
                np.savez(file, **arrays)
                write_atomically(out / "maps" / f"{Path(names[index]).stem}.npz", file.getbuffer())
            data = label_png(labels)
            write_atomically(out / names[index], data)
            ignored = int(np.count_nonzero(labels == 255))
            digest = hashlib.sha256(data).hexdigest()
            return {"file": names[index], "pixels": labels.size, "ignored": ignored, "sha256": digest}

        def missing(batch: range) -> bool:
            return any(names[index] not in rows for index in batch)

        made = (
            read_batches(network, records, options, size=batch_size, wanted=missing)
            if maps is None
            else maps.batches(batch_size)
        )
        for batch, entries in made:
            if not missing(batch):
                continue
            for row in pool.map(write, batch, entries):
                if row["file"] not in rows:
                    folder.add(row)
                rows[row["file"]] = row
            if progress:
                progress(len(rows), len(records))
        kept = [rows[name] for name in names[: len(records)]]
        results: dict[str, Any] = {
            "identity": identity,
            "pictures": len(records),
            "ignored_percent": 100 * sum(r["ignored"] for r in kept) / max(1, sum(r["pixels"] for r in kept)),
            "labels_sha256": hashlib.sha256("".join(r["sha256"] for r in kept).encode()).hexdigest(),
            **_truth(images, records, [out / name for name in names], options.confident is not None),
        }
        folder.write("results.json", json.dumps(results, indent=1, sort_keys=True).encode() + b"\n")
    return results


def _truth(images: ImageSet, records: Sequence[Record], files: Sequence[Path], partial: bool) -> dict[str, Any]:
    """Scores against the true label maps, over the pixels that have a pseudo label; empty without true label maps."""
    metric = SegmentationScores(len(images.class_names) + 1)
    pictures: dict[str, float] = {}
    for record, file in zip(records, files, strict=False):
        if record.mask is None or (true := record.truth().label_map()) is None:
            continue
        labels = read_labels(file)
        if partial:
            true = np.where(labels == 255, np.uint8(255), true)
            labels = np.where(labels == 255, np.uint8(0), labels)
        score = metric.update(labels, true)
        if score is not None:
            pictures[file.name] = round(score, 3)
    return {"truth": metric.to_dict()["scores"], "picture_iou": pictures} if pictures else {}


def read_labels(file: Path) -> npt.NDArray[np.uint8]:
    """A label map as written, uint8 [H, W].

    Raises:
        DataError: it cannot be read.
    """
    return decode_mask(file, MaskForm.LABELS)
