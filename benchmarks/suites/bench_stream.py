"""`Localizer.stream` against a plain PyTorch + OpenCV loop on the same pictures (see benchmarks/README.md).

python -m pytest benchmarks/suites/bench_stream.py -s
"""

from __future__ import annotations

import statistics
import time

import lite0
import numpy as np

import lidcam_rt

ROUNDS, PICTURES = 7, 48


def test_stream_against_a_plain_loop(benchmark, tmp_path):
    """Interleaved rounds; the ratio is that of the medians, against the better of two plain loops."""
    paths = lite0.photos(tmp_path, PICTURES)
    model = lite0.network()
    artifact = lite0.artifact(tmp_path / "lite0.onnx")
    plain = {size: lite0.PlainLoop(model, size) for size in (1, 8)}
    with (
        lidcam_rt.load(artifact, device="cpu") as localizer,
        lidcam_rt.load(artifact, device="cpu", threads=2) as fixed,
    ):
        peers = {f"plain loop, batch {n}": lambda loop=loop: loop(paths) for n, loop in plain.items()}
        peers |= {
            "call by call": lambda: [localizer(path) for path in paths],
            "stream": lambda: list(localizer.stream(paths)),
            "stream, threads=2": lambda: list(fixed.stream(paths)),
            "stream, batch 8": lambda: list(localizer.stream(paths, batch_size=8)),
        }
        _same_masks(plain[1](paths), list(localizer.stream(paths)))
        times: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(ROUNDS):
            for name, peer in peers.items():
                start = time.perf_counter()
                peer()
                times[name].append((time.perf_counter() - start) / PICTURES * 1e3)
        benchmark.pedantic(peers["stream"], rounds=3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = min(medians[name] for name in medians if name.startswith("plain")) / medians["stream"]
    for name, values in times.items():
        print(f"{name:22} {medians[name]:7.1f} ms/picture   {min(values):.1f} to {max(values):.1f}")
    print(f"stream is {ratio:.2f} times as fast as the better plain loop")
    benchmark.extra_info |= {"ms_per_picture": times, "medians": medians, "ratio": ratio}
    assert ratio >= 1.5


def _same_masks(plain, ours):
    """Both peers do the same work: same classes, masks that differ by the two resize filters alone."""
    overlaps = [
        (mask & result.mask).sum() / max(1, (mask | result.mask).sum())
        for (_, mask, _), result in zip(plain, ours, strict=True)
    ]
    same = np.mean([k == result.class_id for (k, _, _), result in zip(plain, ours, strict=True)])
    print(f"\nsame class on {same:.0%}, mean mask IoU {np.mean(overlaps):.3f}")
    assert np.mean(overlaps) > 0.95
