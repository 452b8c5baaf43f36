"""PaS and the box of one map against the released pipeline in OpenCV and numpy, interleaved, one thread.

Run: python -m benchmarks.bench_pas
"""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np

from lidcam_rt.boxes import largest_box
from lidcam_rt.pas import pas


def released(cam, side, percentile=90, theta=0.35):
    """The released code's steps for one map."""
    cam = cv2.resize(cam, (side, side), interpolation=cv2.INTER_CUBIC)
    cam = cam - cam.min()
    gray = (cam / cam.max() * 255).astype(np.uint8)
    mask = (gray > int(theta * np.percentile(gray, percentile))).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return x, y, x + w, y + h


def ours(cams, side):
    """The same by the kernels."""
    mask = pas(cams, (side, side), percentile=90, theta=0.35).mask
    return [largest_box(mask[i, 0]) for i in range(len(cams))]


def main(side=384, rounds=40):
    """Print the medians and their ratio at batch 1 and 32."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    for batch in (1, 32):
        cams = np.stack([cv2.GaussianBlur(rng.random((24, 24), np.float32), (5, 5), 2) for _ in range(batch)])[:, None]
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(max(rounds // batch, 7)):
            start = time.perf_counter()
            theirs = [released(cam[0], side) for cam in cams]
            middle = time.perf_counter()
            mine = ours(cams, side)
            times[0].append(middle - start)
            times[1].append(time.perf_counter() - middle)
        assert np.abs(np.subtract(theirs, mine)).max() <= 1
        old, new = (statistics.median(t) * 1e3 for t in times)
        spread = [f"{min(t) * 1e3:.3f} to {max(t) * 1e3:.3f}" for t in times]
        print(f"batch {batch}: released {old:.3f} ms ({spread[0]}), ours {new:.3f} ms ({spread[1]}), "
              f"ratio {old / new:.1f}")


if __name__ == "__main__":
    main()
