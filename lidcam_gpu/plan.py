"""What a call of the dense CRF on the device will need, derived from its options and checked on the host."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lidcam_rt.errors import InputError

if TYPE_CHECKING:
    from lidcam_rt.crf.options import CrfOptions

__all__ = ["check_sides", "plan_mean_field"]

_MAX_SIDE = 32768
_MAX_TERMS = 4


def check_sides(*sides: int) -> None:
    """Raise InputError for sides that the kernels do not take."""
    if min(sides) < 1 or max(sides) > _MAX_SIDE:
        raise InputError(f"height and width must be 1 to {_MAX_SIDE} pixels, got {sides}")


def plan_mean_field(
    shape: tuple[int, ...], options: CrfOptions | str, labels: Any, vertices_per_pixel: float
) -> tuple[list[Any], int, list[list[int]], CrfOptions]:
    """Terms, vertices per lattice, labels present and options of a call."""
    from lidcam_rt.crf.options import preset

    o = preset(options)
    if not 0 < vertices_per_pixel <= 6:
        raise InputError(f"vertices_per_pixel must be above 0 and at most 6, got {vertices_per_pixel!r}")
    count, total, height, width = shape
    if total < 2:
        raise InputError("a CRF needs at least 2 labels; give the background one of its own")
    check_sides(height, width)
    terms = o.kernel_terms(total)
    if not terms:
        raise InputError("the options leave out both pairwise terms: there is nothing to infer")
    if len(terms) > _MAX_TERMS:
        raise InputError(
            f"the dense CRF on CUDA takes at most {_MAX_TERMS} pairwise terms, but the options have {len(terms)}: "
            "leave some out, or use lidcam_rt.crf.DenseCRF on the CPU"
        )
    capacity = min(math.ceil(vertices_per_pixel * height * width) + 64, 2**30)
    return terms, capacity, _present(labels, count, total), o


def _present(labels: Any, count: int, total: int) -> list[list[int]]:
    """The labels present, ascending: none (all), one list for all images, or one for each."""
    if labels is None:
        return []
    try:
        given = list(labels)
        one = all(isinstance(k, int | np.integer) for k in given)
        lists = [[operator.index(k) for k in entry] for entry in ([given] if one else given)]
    except TypeError as error:
        raise InputError(f"labels must be the labels present, or one such list per image, got {labels!r}") from error
    if not one and len(lists) != count:
        raise InputError(f"labels has {len(lists)} lists for {count} images: give one list each, or one for all")
    for entry in lists:
        if len(set(entry)) != len(entry) or not all(0 <= k < total for k in entry):
            raise InputError(f"labels must be distinct and lie in 0..{total - 1}, got {entry}")
        if len(entry) < 2:
            raise InputError(f"a CRF needs at least 2 labels present in each image, got {entry}")
    return [sorted(entry) for entry in lists]
