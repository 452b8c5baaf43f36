"""The CUDA dense CRF: against the CPU's mean field, against itself, and timed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.gpu.device import TorchCuda
from benchmarks.gpu.report import Cannot, Wrong
from benchmarks.gpu.speed import interleave
from lidcam_rt.crf import CrfOptions, DenseCRF, preset

__all__ = ["check_crf"]

MATRIX = tuple(tuple(-6.0 if i == j else 0.5 * abs(i - j) for j in range(5)) for i in range(5))
CASES = [  # images, labels, height, width, preset or options
    (1, 2, 384, 384, "psa"), (32, 2, 384, 384, "psa"), (4, 2, 383, 385, "irn"), (2, 2, 384, 384, "deeplab"),
    (3, 5, 150, 201, "example"), (1, 21, 384, 384, "psa"), (40, 2, 96, 96, "psa"),
    (2, 5, 96, 96, CrfOptions(bilateral_compat=MATRIX, gaussian_compat=(-2.0, -3.0, -4.0, -3.0, -2.0))),
    (2, 2, 96, 96, CrfOptions(normalization="before")), (2, 3, 96, 96, CrfOptions(normalization="after")),
    (2, 2, 96, 96, CrfOptions(normalization="none", gaussian_compat=0.05, bilateral_compat=0.002)),
    (8, 4, 96, 96, CrfOptions(iterations=50, tolerance=0.01)),
]  # fmt: skip
#: Of the difference from the CPU's fast rounding. Mean field multiplies what float32 rounds off, near ties by
#: thousands: where the CPU's own two roundings are further apart than this, their distance is the limit.
LIMIT = 1e-4


def photos(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Images uint8 [count, height, width, 3] with edges, slopes and a little noise, as photos have."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    found = []
    for _ in range(count):
        image = 120 + 60 * rng.normal(size=3) * x[..., None] + 60 * rng.normal(size=3) * y[..., None]
        for _ in range(6):
            inside = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)) < rng.uniform(0.1, 0.7)
            image = np.where(inside[..., None], rng.uniform(0, 255, 3) + 30 * x[..., None], image)
        found.append((image + rng.normal(scale=3, size=image.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(found)


def check_crf(device: TorchCuda, data: dict[str, Any], *, seed: int, cases: Any = None, rounds: int = 20) -> None:
    """Probabilities against the CPU's (rounding "fast"), the same bits in two runs, microseconds per batch on both.

    Raises:
        Wrong: a probability is further off than 1e-4 and than the CPU's two roundings are apart, or two runs differ.
        Cannot: the kernels cannot be used.
    """
    from lidcam_gpu import kernels

    if not kernels.available():
        raise Cannot(kernels.reason())
    rng = np.random.default_rng(seed)
    rows, wrong = [], []
    for count, labels, height, width, asked in cases or CASES:
        options = replace(preset(asked), rounding="fast")
        image = photos(rng, count, height, width)
        chance = rng.dirichlet(np.ones(labels), (count, height, width)).astype(np.float32)
        unary = np.ascontiguousarray(-np.log(chance.transpose(0, 3, 1, 2).clip(1e-5, 1)))
        given = device.put(image), device.put(unary)
        out = device.poisoned(unary.shape, "float32"), device.poisoned((count,), "int32")
        memory = device.poisoned((kernels.mean_field_workspace(unary.shape, options, vertices_per_pixel=6),), "uint8")

        def run(_: int = 0, given: Any = given, out: Any = out, options: CrfOptions = options, room: float = 6,
                memory: Any = memory) -> None:  # fmt: skip
            kernels.mean_field(
                *map(device.view, given), tuple(map(device.view, out)), options=options, vertices_per_pixel=room,
                workspace=device.view(memory), stream=device.stream(),
            )  # fmt: skip

        def timed(i: int = 0, run: Any = run) -> None:
            run(i, room=2)  # the default, which serves photos

        run()
        device.sync()
        first, status = device.get(out[0]).copy(), device.get(out[1])
        run()
        device.sync()
        begin = time.perf_counter()
        expected = np.stack([DenseCRF(options).infer(i, u) for i, u in zip(image, unary, strict=True)])
        cpu = (time.perf_counter() - begin) * 1e6
        other = np.stack([DenseCRF(preset(asked)).infer(i, u) for i, u in zip(image, unary, strict=True)])
        row = {
            "images": count, "labels": labels, "size": [height, width],
            "options": asked if isinstance(asked, str) else repr(asked),
            "largest difference": float(np.abs(first - expected).max()),
            "difference of the CPU's two roundings": float(np.abs(other - expected).max()),
            "labels that differ": int((first.argmax(1) != expected.argmax(1)).sum()),
            "same bits again": bool(np.array_equal(first, device.get(out[0]))),
            "microseconds": interleave(
                {f"ours, {how}": device.sampler(timed, 2, graph=how == "graph") for how in ("graph", "launched")},
                rounds,
            ),
            "microseconds on the CPU, once": round(cpu),
        }  # fmt: skip
        rows.append(row)
        print(f"   {count} x {labels} labels {height}x{width}: "
              + ", ".join(f"{name} {took['median']:.0f} us" for name, took in row["microseconds"].items())
              + f", difference {row['largest difference']:.1e}", flush=True)  # fmt: skip
        limit = max(LIMIT, row["difference of the CPU's two roundings"])
        if status.any() or not row["largest difference"] <= limit or not row["same bits again"]:
            wrong.append(row | {"status": status.tolist()})
    data |= {"cases": rows, "wrong": len(wrong)}
    if wrong:
        raise Wrong(f"{len(wrong)} of {len(rows)} cases of the dense CRF are wrong: {wrong[0]}")
