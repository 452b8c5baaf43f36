"""Submission files of LID Track 3 and Track 1: written, and checked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import DataError, InputError, OutputError
from lidcam_rt.predictor import Localizer
from lidcam_rt.results import Failure, Localization

__all__ = ["check_submission", "label_map", "write_submission"]

#: Pictures have this date in the zip, so that the same maps give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
_MOST_CLASSES = 255


def label_map(result: Localization, classes: Sequence[int] | None = None) -> npt.NDArray[np.uint8]:
    """Track 1 label map of a localization: index + 1 over its mask, 0 background.

    Where masks of several classes (`others`) meet, the class with the higher map value has the pixel.

    Args:
        result: of a Localizer.
        classes: index in the model of each class of the track; None: the model's own classes.

    Returns:
        uint8 [height, width].

    Raises:
        InputError: the class index does not fit into 8 bits.
    """
    out = np.zeros(result.map.shape, np.uint8)
    best = np.zeros(result.map.shape, np.uint8)
    for entry in (result, *result.others):
        if classes is not None and entry.class_id not in classes:
            continue
        index = (entry.class_id if classes is None else classes.index(entry.class_id)) + 1
        if index >= _MOST_CLASSES:
            raise InputError(
                f"class {entry.class_name} has index {index}: a Track 1 file is 8 bits, 254 classes at most"
            )
        here = entry.mask & ((entry.map > best) | (out == 0))
        out[here], best[here] = index, entry.map[here]
    return out


def write_submission(
    localizer: Localizer,
    images: Sequence[Path],
    out: Path,
    *,
    track: int,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Localize pictures and zip one 8-bit grey PNG per picture, named by its stem, at original size.

    Track 3: the localization map. Track 1: `label_map`. The zip appears when it is complete.

    Args:
        localizer: the artifact, loaded.
        images: the pictures; their stems must differ.
        out: the .zip.
        track: 1 or 3.
        batch_size: pictures per network call.
        progress: called with (done, all).

    Raises:
        InputError: another track, no picture, two pictures of one name.
        DataError: a picture cannot be read (a submission with gaps is no submission).
        OutputError: the zip cannot be written.
    """
    from PIL import Image

    _check_track(track)
    _by_stem(images)
    top = localizer.manifest.top_k if track == 1 else 1
    temporary = out.with_name(f".{out.name}.part")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for start in range(0, len(images), batch_size):
                chunk = images[start : start + batch_size]
                for path, result in zip(
                    chunk,
                    localizer.batch(list(chunk), top_k=top, keep_image=False, on_error="yield"),
                    strict=True,
                ):
                    if isinstance(result, Failure):
                        raise DataError(f"{path}: {result.error}. A submission needs every picture")
                    pixels = label_map(result) if track == 1 else result.map
                    buffer = io.BytesIO()
                    Image.fromarray(pixels).save(buffer, "PNG")
                    archive.writestr(zipfile.ZipInfo(f"{path.stem}.png", _DATE), buffer.getvalue())
                if progress:
                    progress(min(start + batch_size, len(images)), len(images))
        temporary.replace(out)
    except OSError as error:
        if isinstance(error, (InputError, OutputError)):
            raise
        raise OutputError(f"{out} cannot be written: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return out


def check_submission(path: Path, images: Sequence[Path], *, track: int, classes: int = 201) -> list[str]:
    """What is wrong with a submission; an empty list: nothing.

    Every picture has exactly one file, 8-bit grey (or palette, Track 1) PNG of its upright size; no more in
    the zip. Track 1: indices below `classes`. Track 3: a map that is constant localizes nothing and is named.

    Args:
        path: the .zip.
        images: the pictures it is for.
        track: 1 or 3.
        classes: number of Track 1 classes with the background.

    Raises:
        InputError: another track, no picture, or not a zip file.
    """
    from PIL import Image, ImageOps

    _check_track(track)
    wanted = _by_stem(images)
    faults: list[str] = []
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a zip file: {error}") from None
    with archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        faults += [f"{name}: there twice" for name in sorted({n for n in names if names.count(n) > 1})]
        faults += [f"{stem}.png: missing" for stem in wanted if f"{stem}.png" not in names]
        for name in dict.fromkeys(names):
            source = wanted.get(name.removesuffix(".png")) if name.endswith(".png") else None
            if source is None:
                faults.append(f"{name}: no picture of that name")
                continue
            try:
                with Image.open(io.BytesIO(archive.read(name))) as file:
                    kind, mode, pixels = file.format, file.mode, np.asarray(file)
                with Image.open(source) as file:
                    size = ImageOps.exif_transpose(file).size
            except (OSError, zipfile.BadZipFile) as error:
                faults.append(f"{name}: cannot be read ({error})")
                continue
            faults += [f"{name}: {fault}" for fault in _faults(kind, mode, pixels, size, track, classes)]
    return faults


def _faults(
    kind: str | None, mode: str, pixels: npt.NDArray[Any], size: tuple[int, int], track: int, classes: int
) -> list[str]:
    if kind != "PNG" or mode not in (("L", "P") if track == 1 else ("L",)):
        return [f"{kind} of mode {mode}, expected an 8-bit grey PNG"]
    if (pixels.shape[1], pixels.shape[0]) != size:
        return [f"{pixels.shape[1]}x{pixels.shape[0]} pixels, its picture has {size[0]}x{size[1]}"]
    if track == 1 and int(pixels.max()) >= classes:
        return [f"class index {int(pixels.max())}, the highest allowed is {classes - 1}"]
    if track == 3 and pixels.min() == pixels.max():
        return ["constant map: it localizes nothing"]
    return []


def _check_track(track: int) -> None:
    if track not in (1, 3):
        raise InputError(f"track must be 1 or 3, got {track}")


def _by_stem(images: Sequence[Path]) -> dict[str, Path]:
    out: dict[str, Path] = {}
    for path in images:
        if path.stem in out:
            raise InputError(f"{path} and {out[path.stem]} would both be {path.stem}.png: names must differ")
        out[path.stem] = path
    if not out:
        raise InputError("no picture: give a folder with pictures")
    return out
