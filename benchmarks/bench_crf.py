"""Dense CRF against pydensecrf2, interleaved, set-up and inference counted: python benchmarks/bench_crf.py."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pydensecrf.densecrf as peer
from lidcam_rt._kernels import crf as kernels
from skimage import data, transform

from lidcam_rt.crf import PRESETS, DenseCRF

SIZE = 384


def case(labels: int) -> tuple[np.ndarray, np.ndarray]:
    image = (transform.resize(data.astronaut(), (SIZE, SIZE), anti_aliasing=True) * 255).astype(np.uint8)
    coarse = np.random.default_rng(0).standard_normal((labels, 6, 6)) * 2
    logits = np.stack([transform.resize(c, (SIZE, SIZE), order=1) for c in coarse])
    p = np.exp(logits - logits.max(0))
    return image, np.ascontiguousarray(-np.log(np.clip(p / p.sum(0), 1e-5, 1)), np.float32)


def run_peer(image: np.ndarray, unary: np.ndarray, name: str) -> None:
    o = PRESETS[name]
    field = peer.DenseCRF2D(SIZE, SIZE, len(unary))
    field.setUnaryEnergy(unary.reshape(len(unary), -1))
    field.addPairwiseGaussian(sxy=o.gaussian_sxy, compat=o.gaussian_compat)
    field.addPairwiseBilateral(
        sxy=o.bilateral_sxy, srgb=o.bilateral_srgb, rgbim=image, compat=o.bilateral_compat
    )
    field.inference(o.iterations)


def clock(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return (time.perf_counter() - start) * 1000


def main() -> None:
    for name, labels, repeats in (("psa", 2, 9), ("deeplab", 2, 5), ("psa", 21, 3)):
        image, unary = case(labels)
        crf = DenseCRF(name)
        crf.infer(image, unary)
        rows = []
        for _ in range(repeats):
            theirs = clock(run_peer, image, unary, name)
            kernels.clear_cache()
            cold = clock(crf.infer, image, unary)
            rows.append((theirs, cold, clock(crf.infer, image, unary)))
        a, b, c = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name} {labels} labels: {a:.1f} ms, cold {b:.1f} ms ({a / b:.2f}x), warm {c:.1f} ms ({a / c:.2f}x)")


if __name__ == "__main__":
    main()
