"""From the activation maps of a picture's classes to its label map."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from lidcam_rt.crf import DenseCRF, Refine
from lidcam_training.pseudo.options import PseudoOptions
from lidcam_training.pseudo.walk import random_walk

__all__ = ["IGNORED", "class_maps", "label_map", "normalised", "scores"]

IGNORED = 255
_TINY = 1e-6

Maps = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


def normalised(cams: Maps, size: tuple[int, int], percentile: float) -> Maps:
    """Maps at a picture's size, negative values 0, divided by a percentile of their pixels and clipped at 1.

    A map whose percentile is 0 is divided by its maximum.

    Args:
        cams: float32 [K, h, w].
        size: (width, height) of the picture.
        percentile: 0 to 100; 100 is the maximum.

    Returns:
        float32 [K, height, width] in 0..1.
    """
    out = np.zeros((len(cams), size[1], size[0]), np.float32)
    for k, cam in enumerate(cams):
        plane = np.maximum(cv2.resize(cam, size, interpolation=cv2.INTER_LINEAR), 0)
        standard = float(np.percentile(plane, percentile)) or float(plane.max())
        out[k] = np.minimum(plane / max(standard, _TINY), 1)
    return out


def class_maps(picture: Labels, cams: Maps, options: PseudoOptions, features: Maps | None = None) -> Maps:
    """Maps as the background rule needs them: normalised and, if the options ask for it, after the random walk.

    Args:
        picture: uint8 [H, W, 3] RGB.
        cams: float32 [K, h, w].
        options: percentile and walk.
        features: for the walk, float32 [D, h, w]; None: it uses colours alone.

    Returns:
        float32 [K, H, W] in 0..1.
    """
    maps = normalised(cams, (picture.shape[1], picture.shape[0]), options.percentile)
    if options.walk == "none" or not len(maps):
        return maps
    maps = random_walk(picture, maps, features=features)
    walked: Maps = maps / np.maximum(maps.max((1, 2), keepdims=True), _TINY)
    return walked


def scores(maps: Maps, options: PseudoOptions, level: float | None = None) -> Maps:
    """Scores of background and classes, float32 [1 + K, H, W].

    Args:
        maps: from `class_maps`.
        options: for the background.
        level: in place of the options' level.
    """
    if options.background == "constant":
        background = np.full(maps.shape[1:], options.level if level is None else level, np.float32)
    else:
        background = (1 - maps.max(0)) ** np.float32(options.alpha)
    return np.concatenate([background[None], maps])


def label_map(picture: Labels, maps: Maps, classes: Sequence[int], options: PseudoOptions) -> Labels:
    """The label map of a picture; ties go to the background, then to the first class.

    Args:
        picture: uint8 [H, W, 3] RGB.
        maps: from `class_maps`, with the same options.
        classes: class index of each map; without any the picture is all background.
        options: how.

    Returns:
        uint8 [H, W]: 0 background, class index + 1, 255 ignored.
    """
    if not len(classes):
        return np.zeros(picture.shape[:2], np.uint8)
    values = np.array([0, *(index + 1 for index in classes)], np.uint8)
    how = Refine.of(options.crf)
    crf = None if how is None else DenseCRF(how.options)
    if options.confident is not None:
        foreground, background = (
            values[scores(maps, PseudoOptions(), level).argmax(0)] for level in options.confident
        )
        if crf is not None:
            foreground, background = crf.refine(picture, foreground), crf.refine(picture, background)
        out = np.full(foreground.shape, IGNORED, np.uint8)
        out[(foreground == 0) & (background == 0)] = 0
        out[foreground > 0] = foreground[foreground > 0]
        return out
    p = scores(maps, options)
    if crf is not None:
        p = crf.refine(picture, p / np.maximum(p.sum(0, keepdims=True), _TINY))
    labels: Labels = values[p.argmax(0)]
    return labels
