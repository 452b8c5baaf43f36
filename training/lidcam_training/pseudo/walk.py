"""A random walk of map values over a picture, along its colours: no training, and no dense matrix.

irn (Ahn et al., CVPR 2019) learns which pixels belong together; here the affinity of two pixels is that of their
colours, a = exp(-|c_i - c_j|^2 / (2 s^2)), for pixels within a radius. T = D^-1 A, and the walk applies T a few times.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["RADIUS", "SIGMA", "STEPS", "offsets", "random_walk"]

#: Pixels, deviation in grey levels, and steps.
RADIUS, SIGMA, STEPS = 4, 12.0, 8


def offsets(radius: int) -> list[tuple[int, int]]:
    """(dy, dx) of the neighbours within a radius; of two opposite ones the first."""
    span = range(-radius, radius + 1)
    near = [(y, x) for y in span for x in span if y * y + x * x <= radius * radius]
    return [(y, x) for y, x in near if y > 0 or (y == 0 and x > 0)]


def random_walk(
    picture: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.float32],
    *,
    radius: int = RADIUS,
    sigma: float = SIGMA,
    steps: int = STEPS,
) -> npt.NDArray[np.float32]:
    """Spread map values along the picture's colours.

    Each step replaces a value by the mean over itself and its neighbours, weighted by affinity (its own is 1).

    Args:
        picture: uint8 [H, W, 3] RGB.
        maps: float32 [K, H, W].
        radius: of the neighbours, in pixels.
        sigma: deviation of colours, in grey levels of 0 to 255.
        steps: how often.

    Returns:
        float32 [K, H, W].
    """
    colours = picture.astype(np.float32)
    height, width = picture.shape[:2]
    pairs = []
    degree = np.ones((height, width), np.float32)
    for dy, dx in offsets(radius):
        if dy >= height or abs(dx) >= width:
            continue
        here = np.s_[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = np.s_[dy:, max(0, dx) : width - max(0, -dx)]
        square = np.square(colours[here] - colours[there]).sum(-1)
        affinity = np.exp(square * np.float32(-0.5 / sigma**2))
        degree[here] += affinity
        degree[there] += affinity
        pairs.append((here, there, affinity))
    out = maps.astype(np.float32, copy=True)
    for _ in range(steps):
        spread = out.copy()
        for here, there, affinity in pairs:
            spread[:, *here] += affinity * out[:, *there]
            spread[:, *there] += affinity * out[:, *here]
        out = spread / degree
    return out
