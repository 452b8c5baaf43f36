"""Pictures of results: overlays, and their encoding. Arrays in, arrays or bytes out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError, OutputError
from lidcam_rt.image.resize import tiles
from lidcam_rt.text import plain

__all__ = ["encode", "label_overlay", "overlay", "palette"]

_OUTLINE, _BOX = (255, 255, 255), (40, 230, 120)


def overlay(
    image: npt.NDArray[np.uint8],
    map8: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_],
    *,
    box: tuple[int, int, int, int] | None = None,
    text: str = "",
    alpha: float = 0.5,
) -> npt.NDArray[np.uint8]:
    """A picture with a map, the outline of a mask, a box and a label drawn on it.

    Args:
        image: uint8 [height, width, 3] RGB.
        map8: uint8 [height, width], shown in colours.
        mask: bool [height, width], shown by its outline.
        box: (x0, y0, x1, y1), x1 and y1 one past the last pixel.
        text: the label, written at the box; empty: no label.
        alpha: weight of the map's colours, 0 to 1.

    Returns:
        uint8 [height, width, 3] RGB.

    Raises:
        InputError: alpha is not between 0 and 1.
    """
    import cv2

    if not 0.0 <= alpha <= 1.0:
        raise InputError(f"alpha must be between 0 and 1, got {alpha!r}")
    canvas = np.empty_like(image)
    for part in tiles(*mask.shape[::-1]):  # one at a time: the blend is in float32
        colours = cv2.applyColorMap(np.ascontiguousarray(map8[part]), cv2.COLORMAP_TURBO)[..., ::-1]
        # The map's value is its opacity, so that the rest of the picture stays as it is.
        weight = (map8[part].astype(np.float32) * np.float32(alpha / 255.0))[..., None]
        blended = image[part].astype(np.float32)
        blended += (colours.astype(np.float32) - blended) * weight
        canvas[part] = np.rint(blended).astype(np.uint8)

    height, width = mask.shape
    line = max(1, round(min(width, height) / 240))
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, (0, 0, 0), line + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, _OUTLINE, line, cv2.LINE_AA)
    if box is not None:
        x0, y0, x1, y1 = box
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), _BOX, line + 1)
    if text:
        _label(canvas, text, box, line)
    return canvas


def _label(
    canvas: npt.NDArray[np.uint8], text: str, box: tuple[int, int, int, int] | None, line: int
) -> None:
    """Write the label at the box's upper left corner, inside the picture, on a dark plate."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = canvas.shape[:2]
    size = round(min(width, height) / 18)
    if size < 8:
        return  # no room for legible text
    size = min(size, 64)
    font = ImageFont.load_default(size=size)
    text = plain(text).replace("\n", " ").encode("latin-1", "replace").decode("latin-1")
    while font.getlength(text) > width - size and len(text) > 4:
        text = text[:-2].rstrip("… ") + "…"
    pad = max(2, size // 4)
    plate_w, plate_h = int(font.getlength(text)) + 2 * pad, size + 2 * pad
    x, y = (box[0], box[1] - plate_h) if box else (0, 0)
    if y < 0:
        y = box[1] + line + 1 if box else 0
    x, y = max(0, min(x, width - plate_w)), max(0, min(y, height - plate_h))
    inside = np.s_[y : y + plate_h, x : x + plate_w]
    plate = Image.fromarray(canvas[inside])
    draw = ImageDraw.Draw(plate, "RGBA")
    draw.rectangle((0, 0, plate_w - 1, plate_h - 1), fill=(16, 20, 24, 215))
    draw.text((pad, pad + size // 2), text, font=font, fill=(255, 255, 255, 255), anchor="lm")
    canvas[inside] = np.asarray(plate)


def encode(pixels: npt.NDArray[np.uint8], suffix: str) -> bytes:
    """Encode a picture (RGB or grey) as PNG or JPEG."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    ok, data = cv2.imencode(suffix, pixels if pixels.ndim == 2 else pixels[..., ::-1], options)
    if not ok:
        raise OutputError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} cannot be encoded as {suffix}")
    return bytes(data)


def label_overlay(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    *,
    alpha: float = 0.55,
    legend: Mapping[int, str] | None = None,
) -> npt.NDArray[np.uint8]:
    """A picture with the colour of each label laid over it.

    Args:
        image: uint8 [height, width, 3] RGB.
        labels: uint8 [height, width]; pixels of label 0 are left as they are.
        alpha: weight of the colours, 0 to 1.
        legend: names of labels, written in their colours below the picture; None: no legend.

    Returns:
        uint8 [height, width, 3] RGB, taller by the height of the legend.

    Raises:
        InputError: alpha is not between 0 and 1.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be between 0 and 1, got {alpha!r}")
    out, here = image.copy(), labels > 0
    colours = palette()[labels[here]].astype(np.float32)
    out[here] = np.rint(out[here] + alpha * (colours - out[here])).astype(np.uint8)
    return out if not legend else np.concatenate([out, _legend(legend, image.shape[1])])


def _legend(names: Mapping[int, str], width: int) -> npt.NDArray[np.uint8]:
    """One line per label, with a square of its colour and its name; uint8 [lines, width, 3]."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(9, min(28, width // 24))
    font, line = ImageFont.load_default(size=size), size + size // 2
    plate = Image.new("RGB", (width, line * len(names)), (16, 20, 24))
    draw = ImageDraw.Draw(plate)
    for row, (label, name) in enumerate(names.items()):
        top = row * line + size // 4
        draw.rectangle((size // 4, top, size // 4 + size, top + size), fill=tuple(map(int, palette()[label])))
        text = plain(name).replace("\n", " ").encode("latin-1", "replace").decode("latin-1")
        draw.text((2 * size, top + size // 2), text, font=font, fill=(255, 255, 255), anchor="lm")
    return np.asarray(plate)


def palette() -> npt.NDArray[np.uint8]:
    """The colours of PASCAL VOC, uint8 [256, 3]: the bits of the index, spread over the channels."""
    index = np.arange(256)
    out = np.zeros((256, 3), np.uint8)
    for step in range(8):
        for channel in range(3):
            out[:, channel] |= (((index >> (3 * step + channel)) & 1) << (7 - step)).astype(np.uint8)
    return out
