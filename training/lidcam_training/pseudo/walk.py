"""A random walk of map values over a picture, along its colours and features: no training, and no dense matrix.

irn (Ahn et al., CVPR 2019) learns which pixels belong together; here the affinity of two pixels comes from their
colours and, if given, a network's features, a = exp(-|c_i - c_j|^2 / (2 s^2) - |f_i - f_j|^2 / (2 t^2)), for pixels
within a radius. T = D^-1 A, and the walk applies T a few times.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["FEATURE_SIGMA", "RADIUS", "SIGMA", "STEPS", "offsets", "principal_features", "random_walk"]

#: Pixels, deviation in grey levels, and steps.
RADIUS, SIGMA, STEPS = 4, 12.0, 8
#: Deviation of features, vectors of length 1; and how many of their principal components are kept.
FEATURE_SIGMA, COMPONENTS = 0.5, 8


def offsets(radius: int) -> list[tuple[int, int]]:
    """(dy, dx) of the neighbours within a radius; of each opposite pair only the first."""
    span = range(-radius, radius + 1)
    near = [(y, x) for y in span for x in span if y * y + x * x <= radius * radius]
    return [(y, x) for y, x in near if y > 0 or (y == 0 and x > 0)]


def principal_features(features: npt.NDArray[np.float32], count: int = COMPONENTS) -> npt.NDArray[np.float32]:
    """A picture's features in few numbers per cell that keep the distances between cells.

    Args:
        features: float32 [C, h, w]; the vector of each cell is brought to length 1.
        count: principal components that are kept; the distances are exact from min(C, h * w) on.

    Returns:
        float32 [at most count, h, w].
    """
    channels, height, width = features.shape
    cells = features.reshape(channels, -1).T.astype(np.float64)
    cells /= np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-12)
    cells -= cells.mean(0)
    # from the eigenvectors of the smaller of the two matrices of products
    if channels <= len(cells):
        axes = np.linalg.eigh(cells.T @ cells)[1][:, ::-1][:, :count]
        projected = cells @ axes
    else:
        values, axes = np.linalg.eigh(cells @ cells.T)
        projected = (axes * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :count]
    return np.ascontiguousarray(projected.T.reshape(-1, height, width), np.float32)


def random_walk(
    picture: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.float32],
    *,
    features: npt.NDArray[np.float32] | None = None,
    radius: int = RADIUS,
    sigma: float = SIGMA,
    feature_sigma: float = FEATURE_SIGMA,
    steps: int = STEPS,
) -> npt.NDArray[np.float32]:
    """Spread map values along the picture's colours, and along features.

    Each step replaces a value by the mean over itself and its neighbours, weighted by affinity (its own is 1).

    Args:
        picture: uint8 [H, W, 3] RGB.
        maps: float32 [K, H, W].
        features: float32 [D, h, w], resized bilinearly to the picture; None: colours alone.
        radius: of the neighbours, in pixels.
        sigma: deviation of colours, in grey levels of 0 to 255.
        feature_sigma: deviation of features.
        steps: how often.

    Returns:
        float32 [K, H, W].
    """
    height, width = picture.shape[:2]
    channels = picture.transpose(2, 0, 1).astype(np.float32) / np.float32(sigma)
    if features is not None:
        size = (width, height)
        planes = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in features]
        channels = np.concatenate([channels, np.stack(planes) / np.float32(feature_sigma)])
    pairs = []
    degree = np.ones((height, width), np.float32)
    for dy, dx in offsets(radius):
        if dy >= height or abs(dx) >= width:
            continue
        here = np.s_[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = np.s_[dy:, max(0, dx) : width - max(0, -dx)]
        affinity = np.zeros((height - dy, width - abs(dx)), np.float32)
        for plane in channels:
            difference = plane[here] - plane[there]
            difference *= difference
            affinity += difference
        affinity *= np.float32(-0.5)
        np.exp(affinity, out=affinity)
        degree[here] += affinity
        degree[there] += affinity
        pairs.append((here, there, affinity, np.empty_like(affinity)))
    out = maps.astype(np.float32, copy=True)
    for plane in out:
        for _ in range(steps):
            spread = plane.copy()
            for here, there, affinity, product in pairs:
                spread[here] += np.multiply(affinity, plane[there], out=product)
                spread[there] += np.multiply(affinity, plane[here], out=product)
            np.divide(spread, degree, out=plane)
    return out
