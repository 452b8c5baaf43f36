"""The forms of mask files, recognised by their values.

A mask is accepted if its values leave no doubt, and refused otherwise: a mask whose object is not recognised would be
scored as one without an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lidcam_rt.errors import DataError
from lidcam_rt.image import MAX_PIXELS

__all__ = ["IGNORED", "MaskForm", "common_form", "decode_mask", "listed", "require_object", "stored_size"]

#: Value of pixels that are left out of every count.
IGNORED = 255
#: Grey levels from here to 255 - _NEARLY are neither background nor object but something between.
_NEARLY = 32
_EXPECTED = (
    "A mask is an 8-bit picture with 0 for the background and 255 (or in all masks 1) for the object, an object cut "
    "out by its alpha channel, or a label map with a palette; 8-bit label maps (class index + 1, 0 background, 255 "
    "left out) belong into labelmaps/"
)


class MaskForm(Enum):
    """How the pixels of a mask file say where the object is; the value says it in words.

    Attributes:
        GREY: grey levels above 127 are the object; its edges may be smoothed.
        ONES: 1 is the object.
        ALPHA: opaque pixels (alpha above 127) are the object.
        PALETTE: a label map with a coloured palette, as Pascal VOC's: class index + 1, 255 ignored.
        LABELS: a label map of 8 bits: class index + 1, 255 ignored.
        VOTES: grey levels above 127 are the object, whatever the other levels are (CUB: how many annotators agree).
    """

    GREY = "0 and 255"
    ONES = "0 and 1"
    ALPHA = "an alpha channel"
    PALETTE = "a palette of classes"
    LABELS = "a label map"
    VOTES = "grey levels of any kind"


@dataclass(frozen=True, eq=False)
class _Pixels:
    """A decoded mask file; None for what it does not have.

    Attributes:
        path: the file.
        mode: of Pillow.
        grey: uint8 [height, width], where all channels are equal.
        index: uint8 [height, width], palette indices or 8-bit values.
        coloured: whether its palette holds colours.
        channels: uint8 [height, width, 4], of a picture in colours or with transparency.
        alpha: uint8 [height, width], where it is not the same everywhere.
    """

    path: Path
    mode: str
    grey: npt.NDArray[np.uint8] | None = None
    index: npt.NDArray[np.uint8] | None = None
    coloured: bool = False
    channels: npt.NDArray[np.uint8] | None = None
    alpha: npt.NDArray[np.uint8] | None = None

    def seen(self) -> str:
        """The values in words, for messages."""
        if self.coloured and self.index is not None:
            return f"palette indices {listed(np.unique(self.index).tolist())}"
        if self.grey is not None:
            text = f"the values {listed(np.unique(self.grey).tolist())}"
        else:
            assert self.channels is not None
            colours = np.unique(self.channels[..., :3].reshape(-1, 3), axis=0).tolist()
            text = f"the colours {listed([tuple(c) for c in colours])}"
        return text if self.alpha is None else f"{text}, alpha {listed(np.unique(self.alpha).tolist())}"


def listed(values: Sequence[Any]) -> str:
    """Values for a message: all, or the first and the last."""
    if len(values) > 10:
        return f"{', '.join(map(str, values[:6]))} ... {values[-1]} ({len(values)} values)"
    return ", ".join(map(str, values)) or "none"


def stored_size(path: Path) -> tuple[int, int]:
    """(width, height) that the header of a mask states.

    Raises:
        DataError: it cannot be read, or is over the limit on pixels.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise DataError(f"mask {path} cannot be read: {error}") from None
    if width * height > MAX_PIXELS:
        raise DataError(f"mask {path}: {width}x{height} is over the limit of {MAX_PIXELS:,} pixels")
    return width, height


def require_object(label_maps: Sequence[Path]) -> None:
    """Raise DataError where no label map has an object: the first that has one ends the search."""
    for path in label_maps:
        labels = decode_mask(path, MaskForm.LABELS)
        if ((labels > 0) & (labels < IGNORED)).any():
            return
    first = label_maps[0]
    raise DataError(
        f"none of the {len(label_maps)} label maps has an object: {first} holds {_decode(first).seen()}, and the "
        "others are like it. A label map has class index + 1, 0 for the background, 255 for pixels that are left out; "
        "masks of one object, of 0 and 255, belong into masks/"
    )


def common_form(paths: Sequence[Path], sample: int = 16) -> MaskForm:
    """The form that the masks of a data set have in common.

    A sample of them, spread over the set, is decoded; all of them only where no mask of the sample has an object.

    Args:
        paths: the mask files, at least one.
        sample: how many.

    Raises:
        DataError: two masks are of different forms, one is not understood, or none has an object; the message names
            the files and the values seen.
    """
    chosen = list(paths[:: -(-len(paths) // sample)])
    first: tuple[MaskForm, Path] | None = None
    for path in chosen:
        first = _same(first, path)
    for path in paths:
        if first is not None:
            return first[0]
        first = _same(first, path)
    if first is not None:
        return first[0]
    raise DataError(
        f"none of the {len(paths)} masks has an object: {paths[0]} holds {_decode(paths[0]).seen()}, and the others "
        f"are like it. {_EXPECTED}"
    )


def _same(first: tuple[MaskForm, Path] | None, path: Path) -> tuple[MaskForm, Path] | None:
    """The first form seen and its file, after another file.

    Raises:
        DataError: that one is of another form.
    """
    form = _form(_decode(path))
    if form is None or (first is not None and form is first[0]):
        return first
    if first is None:
        return form, path
    raise DataError(
        f"masks of two forms: {first[1]} is {first[0].value}, {path} is {form.value}. Save all of them alike. "
        f"{_EXPECTED}"
    )


def decode_mask(path: Path, form: MaskForm | None) -> npt.NDArray[np.uint8]:
    """A mask file as uint8 [height, width]: 1 the object, or class index + 1 and 255 for label maps; 0 background.

    Args:
        path: the file; its size should be known to be sensible (`stored_size`).
        form: of the data set; None: as its own values say.

    Raises:
        DataError: it cannot be read, is not of that form, or its values leave a doubt.
    """
    pixels = _decode(path)
    if form is MaskForm.LABELS:
        if pixels.index is None:
            raise DataError(
                f"label map {path} holds {pixels.seen()}; a label map is 8-bit grey or palette: class index + 1, 0 for "
                "the background, 255 for pixels that are left out"
            )
        return pixels.index
    if form is MaskForm.VOTES and pixels.grey is not None:
        return (pixels.grey > 127).astype(np.uint8)
    own = _form(pixels)
    if form is not None and own is not None and own is not form:
        raise DataError(
            f"mask {path} is {own.value} ({pixels.seen()}), but the masks of this data set are {form.value}: save all "
            f"of them alike. {_EXPECTED}"
        )
    if pixels.coloured and pixels.index is not None:
        return pixels.index
    shown = pixels.grey if pixels.alpha is None else pixels.alpha
    assert shown is not None  # else its form would be in doubt
    return (shown > (0 if own is MaskForm.ONES else 127)).astype(np.uint8)


def _form(pixels: _Pixels) -> MaskForm | None:
    """The form of one mask by its own values; None: it shows no object, in any form.

    Raises:
        DataError: its values leave a doubt.
    """
    if pixels.coloured and pixels.index is not None:
        return MaskForm.PALETTE if ((pixels.index > 0) & (pixels.index < IGNORED)).any() else None
    if pixels.alpha is not None:
        return _form_with_alpha(pixels, pixels.alpha)
    if pixels.grey is None:
        raise _doubt(pixels, "it is a colour picture")
    return _form_of_grey(pixels, pixels.grey)


def _form_of_grey(pixels: _Pixels, grey: npt.NDArray[np.uint8]) -> MaskForm | None:
    counts = np.bincount(grey.ravel(), minlength=256)
    values = (np.flatnonzero(counts[1:]) + 1).tolist()
    if not values:
        return None
    if values == [1]:
        return MaskForm.ONES
    # Smoothed edges lie between; a picture that is mostly between is something else, such as a map of classes.
    between = int(counts[_NEARLY : 256 - _NEARLY].sum())
    mixed = len(values) > 1 and 2 * between > int(counts[_NEARLY:].sum())
    if values[-1] <= 127 or values == [1, 255] or mixed:
        raise _doubt(pixels, "it is unclear which of them are the object")
    return MaskForm.GREY


def _form_with_alpha(pixels: _Pixels, alpha: npt.NDArray[np.uint8]) -> MaskForm | None:
    """The object is what is opaque, unless the colours are themselves a mask that says otherwise."""
    if pixels.grey is not None:
        values = np.unique(pixels.grey).tolist()
        if values in ([0, 1], [0, 255]) and not np.array_equal(pixels.grey > 0, alpha > 127):
            raise _doubt(pixels, "its colours and its alpha channel differ")
    return MaskForm.ALPHA if (alpha > 127).any() else None


def _doubt(pixels: _Pixels, reason: str) -> DataError:
    return DataError(f"mask {pixels.path} holds {pixels.seen()}: {reason}. {_EXPECTED}")


def _decode(path: Path) -> _Pixels:
    """Decode a mask file.

    Raises:
        DataError: it cannot be read, or has more than 8 bits.
    """
    stored_size(path)
    try:
        with Image.open(path) as file:
            mode = file.mode
            if mode == "P":
                index = np.array(file, np.uint8)
                palette = np.zeros((256, 3), np.uint8)
                colours = np.array(file.getpalette("RGB"), np.uint8).reshape(-1, 3)
                palette[: len(colours)] = colours
                used = palette[np.flatnonzero(np.bincount(index.ravel(), minlength=256))]
                coloured = bool((used != used[:, :1]).any())
                return _Pixels(path, mode, None if coloured else palette[index, 0], index, coloured)
            if mode in ("I", "F") or mode.startswith("I;"):
                values = np.unique(np.asarray(file)).tolist()
                raise DataError(f"mask {path}: {mode} pixels with the values {listed(values)}, a mask has 8 bits")
            if mode in ("1", "L"):
                grey = np.array(file.convert("L"), np.uint8)
                return _Pixels(path, mode, grey, grey)
            channels = np.array(file.convert("RGBA"), np.uint8)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"mask {path} cannot be read: {error}") from None
    alpha = np.ascontiguousarray(channels[..., 3])
    has_alpha = int(alpha.min()) != int(alpha.max())
    grey = np.ascontiguousarray(channels[..., 0])
    if not (channels[..., 1:3] == channels[..., :1]).all():
        return _Pixels(path, mode, channels=channels, alpha=alpha if has_alpha else None)
    return _Pixels(path, mode, grey, None if has_alpha else grey, channels=channels, alpha=alpha if has_alpha else None)
