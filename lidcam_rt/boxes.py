"""Connected components and boxes of masks (8 neighbours), in pixels of the mask.

A box is (x0, y0, x1, y1) with x1 and y1 excluded, as the released code's [x, y, x + w, y + h]; with
`inclusive=True` x1 and y1 are the last pixels inside.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lidcam_rt.errors import InputError

__all__ = ["MEASURES", "component_boxes", "label", "largest_box", "largest_component"]

MEASURES = ("contour", "pixels")

Box = tuple[int, int, int, int]


def _checked(mask: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype not in (np.bool_, np.uint8):
        raise InputError(f"mask must be bool or uint8 [H, W], got {array.dtype} {array.shape}")
    if max(array.shape) > 2**30:
        raise InputError(f"mask of shape {array.shape} is too large: a side may have at most 2**30 pixels")
    return np.ascontiguousarray(array).view(np.uint8)


def _by_pixels(by: str) -> bool:
    if by not in MEASURES:
        raise InputError(f"by must be one of {', '.join(MEASURES)}, got {by!r}")
    return by == "pixels"


def largest_box(mask: npt.ArrayLike, *, by: str = "contour", inclusive: bool = False) -> Box | None:
    """Box of the largest connected component.

    Args:
        mask: bool or uint8 [H, W], nonzero is foreground.
        by: `contour`: largest area inside the outer contour through pixel centres, holes filled (cv2.contourArea,
            as the released code; equal areas: the component whose first pixel comes last, which
            cv2.findContours lists first). `pixels`: most pixels (equal: the first).
        inclusive: return the last pixel inside instead of the first outside.

    Returns:
        (x0, y0, x1, y1), or None for an empty mask.

    Raises:
        InputError: wrong dtype, shape or option.
    """
    from lidcam_rt._kernels import components

    box: Box | None = components.largest_box(_checked(mask), _by_pixels(by))
    if box is None or not inclusive:
        return box
    return box[0], box[1], box[2] - 1, box[3] - 1


def component_boxes(mask: npt.ArrayLike, *, inclusive: bool = False) -> npt.NDArray[np.int64]:
    """Boxes and sizes of all components, in scan order of their first pixels.

    Args:
        mask: bool or uint8 [H, W].
        inclusive: return the last pixel inside instead of the first outside.

    Returns:
        int64 [n, 5]: x0, y0, x1, y1 and the number of pixels.

    Raises:
        InputError: wrong dtype or shape.
    """
    from lidcam_rt._kernels import components

    boxes: npt.NDArray[np.int64] = components.boxes(_checked(mask))
    if inclusive:
        boxes[:, 2:4] -= 1
    return boxes


def label(mask: npt.ArrayLike) -> tuple[npt.NDArray[np.int32], int]:
    """Number the components from 1, in scan order; 0 is the background.

    Args:
        mask: bool or uint8 [H, W].

    Returns:
        Labels int32 [H, W], and the number of components.

    Raises:
        InputError: wrong dtype or shape.
    """
    from lidcam_rt._kernels import components

    labels, count = components.label(_checked(mask))
    return labels, int(count)


def largest_component(mask: npt.ArrayLike, *, by: str = "contour") -> npt.NDArray[np.bool_]:
    """Keep only the largest component of a mask.

    Args:
        mask: bool or uint8 [H, W].
        by: see `largest_box`.

    Returns:
        bool [H, W].

    Raises:
        InputError: wrong dtype, shape or option.
    """
    from lidcam_rt._kernels import components

    kept: npt.NDArray[np.uint8] = components.largest_component(_checked(mask), _by_pixels(by))
    return kept.view(np.bool_)
