"""Submission files of LID Track 3 and Track 1: written, and checked."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.crf import CrfOptions, Refine
from lidcam_rt.drawing import encode
from lidcam_rt.errors import DataError, InputError
from lidcam_rt.files import open_file, replacing
from lidcam_rt.image import upright_size
from lidcam_rt.localizer import Localizer
from lidcam_rt.results import Failure
from lidcam_rt.segmentation import Segmenter
from lidcam_rt.segmenter import CamSegmenter, Segmentation, SegmentOptions
from lidcam_rt.text import plain

__all__ = ["check_submission", "write_submission"]

#: Pictures have this date in the zip, so that the same maps give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_submission(
    localizer: Localizer | Segmenter,
    images: Sequence[Path],
    out: Path,
    *,
    track: int,
    segment: SegmentOptions | None = None,
    refine: Refine | CrfOptions | str | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Localize pictures and zip one 8-bit grey PNG per picture, named by its stem, at original size.

    Track 3: the localization map. Track 1: the label map of a segmentation network, or of
    a `CamSegmenter` (label 1 + class id). The zip appears when
    it is complete; the same maps give the same bytes.

    Args:
        localizer: the artifact, loaded.
        images: the pictures; their stems must differ.
        out: the .zip.
        track: 1 or 3.
        segment: how label maps are made, for Track 1 (with a CRF of their own).
        refine: how maps are refined, for Track 3; as in a call of the Localizer.
        batch_size: pictures per network call; None: 1 on the CPU, 8 on a GPU.
        progress: called with (done, all).

    Raises:
        InputError: another track, no picture, two pictures of one name, or a class that does not fit into 8 bits.
        DataError: a picture cannot be read (a submission needs every picture).
        OutputError: the zip cannot be written, or another process is writing it.
    """
    _check_track(track)
    _by_stem(images)
    segmenter = None
    stream: Any
    if isinstance(localizer, Segmenter):
        if track != 1:
            raise InputError("a segmentation network gives label maps: Track 1, not 3")
        how = segment.refine if segment is not None else None
        stream = localizer.stream(images, keep_image=False, batch_size=batch_size, refine=how)
    else:
        segmenter = CamSegmenter(localizer, segment) if track == 1 else None
        stream = localizer.stream(
            images,
            top_k=localizer.manifest.top_k if segmenter else 1,
            keep_image=segmenter is not None and segmenter.options.refine is not None,
            batch_size=batch_size,
            refine=refine if track == 3 else "none",
        )
    with closing(stream), replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for done, (path, result) in enumerate(zip(images, stream, strict=True), start=1):
            if isinstance(result, Failure):
                raise DataError(f"{result.error}. A submission needs every picture")
            if isinstance(result, Segmentation):
                pixels = result.labels
            else:
                pixels = segmenter.complete(path, result).labels if segmenter else result.map
            archive.writestr(zipfile.ZipInfo(f"{path.stem}.png", _DATE), encode(pixels, ".png"))
            if progress:
                progress(done, len(images))
    return out


def check_submission(path: Path, images: Sequence[Path], *, track: int, classes: int = 201) -> list[str]:
    """What is wrong with a submission; an empty list: nothing.

    Every picture has exactly one file, 8-bit grey (or palette, Track 1) PNG of its upright size; no more in
    the zip. Track 1: indices below `classes`. Track 3: a map that is constant localizes nothing and is named.

    Args:
        path: the .zip.
        images: the pictures it is for.
        track: 1 or 3.
        classes: number of Track 1 classes with the background, 2 to 256.

    Raises:
        InputError: another track or number of classes, no picture, or not a zip file.
    """
    _check_track(track)
    if not 2 <= classes <= 256:
        raise InputError(f"classes must be 2 to 256, the background among them, got {classes}")
    wanted = _by_stem(images)
    faults: list[str] = []
    try:
        open_file(path).close()  # a pipe or a device is not a zip
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Write it with --model, or check the path") from None
    except Exception as error:  # an unknown version, a name or a comment that cannot be decoded
        raise InputError(f"{path} is not a zip file that can be read: {error}") from None
    with archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if names and all("/" in name for name in names):
            return [f"all files are in the folder {names[0].split('/')[0]}/: they belong at the top of the zip"]
        count = Counter(names)
        faults += [f"{name}: occurs twice" for name in sorted({n for n in names if count[n] > 1})]
        faults += [f"{stem}.png: missing" for stem in wanted if f"{stem}.png" not in count]
        for name in dict.fromkeys(names):
            source = wanted.get(name.removesuffix(".png")) if name.endswith(".png") else None
            if source is None:
                faults.append(f"{name}: no picture of that name")
                continue
            size = upright_size(source)
            try:
                fault = _fault(archive, name, size, track, classes)
            except Exception as error:  # damaged PNGs and zips raise nearly anything
                fault = f"cannot be read ({error})"
            faults += [f"{name}: {fault}"] if fault else []
    return faults


def _fault(archive: zipfile.ZipFile, name: str, size: tuple[int, int], track: int, classes: int) -> str | None:
    """What is wrong with one file; it is unpacked and decoded only as far as its picture's size can require.

    Raises:
        Exception: of nearly any kind, where the file is damaged.
    """
    # Noise does not compress: a little more than a byte per pixel, and the chunks around it.
    stated, limit = archive.getinfo(name).file_size, 2 * size[0] * size[1] + (1 << 16)
    if stated > limit:
        return f"unpacks to {stated:,} bytes, more than a PNG of its picture's {size[0]}x{size[1]} pixels has"
    with Image.open(io.BytesIO(archive.read(name))) as file:
        if file.format != "PNG" or file.mode not in (("L", "P") if track == 1 else ("L",)):
            return f"{file.format} of mode {file.mode}, expected an 8-bit grey PNG"
        if file.size != size:
            return f"{file.width}x{file.height} pixels, its picture has {size[0]}x{size[1]}"
        pixels: npt.NDArray[np.uint8] = np.asarray(file)
    if track == 1 and int(pixels.max()) >= classes:
        return f"class index {int(pixels.max())}, the highest allowed is {classes - 1}"
    if track == 3 and pixels.min() == pixels.max():
        return "constant map: it localizes nothing"
    return None


def _check_track(track: int) -> None:
    if track not in (1, 3):
        raise InputError(f"track must be 1 or 3, got {track}")


def _by_stem(images: Sequence[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in images:
        if plain(path.stem) != path.stem or "\n" in path.stem:
            raise InputError(f"{path}: its name cannot be stored in a zip, which holds plain UTF-8. Rename it")
        if path.stem in by_stem:
            raise InputError(f"{path} and {by_stem[path.stem]} would both be {path.stem}.png: names must differ")
        by_stem[path.stem] = path
    if not by_stem:
        raise InputError("no picture: give a folder with pictures")
    return by_stem
