"""Every CUDA kernel against the reference, bit for bit, on fresh random and on awkward input."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.gpu.device import TorchCuda
from benchmarks.gpu.report import Cannot, Wrong

__all__ = ["check_boxes", "check_boxes_at_size", "check_pas", "maps_of", "masks_of"]

SIZES = [
    ((1, 1), (1, 1)), ((1, 1), (5, 3)), ((7, 5), (31, 64)), ((24, 24), (384, 384)), ((12, 12), (224, 224)),
    ((16, 16), (512, 512)), ((11, 19), (33, 1021)), ((96, 96), (1024, 1024)), ((40, 30), (17, 9)), ((3, 200), (5, 700)),
]  # fmt: skip
OPTIONS = [
    dict(zip(("mode", "precision", "where", "interpolation"), values, strict=True))
    for values in itertools.product(("threshold", "normalize"), ("uint8", "float"), ("resized", "raw"),
                                    ("cubic", "linear"))
]  # fmt: skip


def maps_of(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """Activation maps float32 [n, 1, h, w] of every kind that has a rule of its own, with their names."""
    h, w = size
    plain = rng.gamma(0.7, 1.0, size)
    found = {
        "random": plain,
        "signed": rng.normal(size=size),
        "ties": np.round(rng.gamma(1.0, 2.0, size)),
        "blob": np.exp(-((np.linspace(-2, 2, h)[:, None] + 0.3) ** 2) - (np.linspace(-2, 2, w)[None] - 0.2) ** 2),
        "sparse": plain * (rng.random(size) > 0.97),
        "constant": np.full(size, 3.25),
        "zero": np.zeros(size),
        "denormal": plain * 1e-41,
        "huge": rng.normal(size=size) * 1e37,
        "beyond": rng.normal(size=size) * 3e38,
    }
    for name, value in (("NaN", np.nan), ("infinity", np.inf)):
        one = plain.copy()
        one[rng.integers(h), rng.integers(w)] = value
        found[name] = one
    with np.errstate(over="ignore"):
        maps = np.stack([value.astype(np.float32) for value in found.values()])[:, None]
    return maps, list(found)


def _expected(maps: np.ndarray, size: tuple[int, int], options: Any) -> Any:
    """The numpy definition where that is quick, else the C++ kernel, which equals it bit for bit (tests/)."""
    from lidcam_rt.pas import pas, pas_reference

    work = len(maps) * size[0] * size[1]
    return (pas_reference if work <= 200_000 else pas)(maps, size, options)


def check_pas(device: TorchCuda, data: dict[str, Any], *, seed: int, sizes: Any = None) -> None:
    """PaS on the device for all options, sizes and kinds of maps.

    Raises:
        Wrong: a map, mask or threshold differs in a bit.
        Cannot: the kernels cannot be used.
    """
    from lidcam_gpu import kernels
    from lidcam_rt.pas import PasOptions

    if not kernels.available():
        raise Cannot(kernels.reason())
    rng = np.random.default_rng(seed)
    compared, wrong = 0, []
    for (small, large), options in itertools.product(sizes or SIZES, OPTIONS):
        maps, names = maps_of(rng, small)
        percentile = float(rng.choice([0, 50, 90, 97.125, 98, 100]))
        settings = PasOptions(percentile, float(rng.choice([0, 0.2, 0.35, 1])), **options)
        n = len(maps)
        out = [device.poisoned((n, 1, *large), "uint8"), device.poisoned((n, 1, *large), "uint8"),
               device.poisoned((n, 1), "float32")]  # fmt: skip
        cam = device.put(maps)
        views = tuple(device.view(array) for array in out)
        kernels.pas(device.view(cam), views, settings, stream=device.stream())
        device.sync()
        got = [device.get(array) for array in out]
        want = _expected(maps, large, settings)
        for i, name in enumerate(names):
            compared += 1
            different = [
                int((got[0][i] != want.map[i]).sum()), int((got[1][i] != want.mask[i].view(np.uint8)).sum()),
                int(got[2][i].view(np.uint32)[0] != want.threshold[i].view(np.uint32)[0]),
            ]  # fmt: skip
            if any(different):
                wrong.append({"map": name, "from": small, "to": large, "different": different, **asdict(settings)})
    data |= {"maps compared": compared, "different": len(wrong), "first": wrong[:10]}
    if wrong:
        raise Wrong(f"{len(wrong)} of {compared} maps differ from the reference (map, mask, threshold): {wrong[0]}")


def masks_of(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Masks uint8 [n, H, W]: noise of several densities, blobs, stripes, a spiral, one pixel, none, all."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    found = [rng.random(size) < share for share in (0.02, 0.3, 0.5, 0.59, 0.9)]
    found += [x % 2 == 0, y % 2 == 0, (x + y) % 2 == 0, np.zeros(size, bool), np.ones(size, bool)]
    one = np.zeros(size, bool)
    one[rng.integers(height), rng.integers(width)] = True
    ring = np.maximum(np.abs(y - height // 2), np.abs(x - width // 2))
    spiral = (ring % 4 < 2) | ((y == height // 2) & (x > width // 2))
    found += [one, spiral]
    for _ in range(4):
        blobs = np.zeros(size)
        for _ in range(int(rng.integers(1, 6))):
            cy, cx, r = rng.random() * height, rng.random() * width, (0.03 + rng.random() * 0.25) * min(size)
            blobs += np.hypot(y - cy, x - cx) < max(r, 1)
        found.append(blobs > 0)
    return np.stack(found).astype(np.uint8)


def check_boxes(device: TorchCuda, data: dict[str, Any], *, seed: int, sizes: Any = None) -> None:
    """The box of the largest component on the device, by contour and by pixels.

    Raises:
        Wrong: a box differs.
        Cannot: the kernels cannot be used.
    """
    from lidcam_gpu import kernels
    from lidcam_rt.boxes import largest_box

    if not kernels.available():
        raise Cannot(kernels.reason())
    rng = np.random.default_rng(seed)
    compared, wrong = 0, []
    for size in sizes or [(1, 1), (1, 33), (33, 1), (7, 9), (64, 64), (97, 130), (224, 224), (384, 384), (600, 801)]:
        masks = masks_of(rng, size)
        for by in ("contour", "pixels"):
            out = device.poisoned((len(masks), 4), "int32")
            mask = device.put(masks)
            kernels.largest_boxes(device.view(mask), device.view(out), by=by, stream=device.stream())
            device.sync()
            got = device.get(out)
            for i, one in enumerate(masks):
                compared += 1
                want = largest_box(one, by=by) or (-1,) * 4
                if tuple(got[i]) != want:
                    wrong.append({"mask": i, "size": size, "by": by, "got": got[i].tolist(), "want": list(want)})
    data |= {"masks compared": compared, "different": len(wrong), "first": wrong[:10]}
    if wrong:
        raise Wrong(f"{len(wrong)} of {compared} boxes differ: {wrong[0]}")


def check_boxes_at_size(device: TorchCuda, data: dict[str, Any], *, seed: int, sizes: Any = None) -> None:
    """The box at the picture's size, against cv2.resize and the CPU's box. At most a pixel may differ, and is counted.

    Raises:
        Wrong: a box is further off than a pixel.
        Cannot: the kernels cannot be used, or OpenCV is missing.
    """
    from lidcam_gpu import kernels
    from lidcam_rt.boxes import largest_box

    if not kernels.available():
        raise Cannot(kernels.reason())
    try:
        import cv2
    except ImportError as error:
        raise Cannot(f"OpenCV, the reference of the resize, cannot be imported ({error})") from None
    rng = np.random.default_rng(seed)
    compared, off, wrong = 0, 0, []
    for small, large in sizes or [((384, 384), (375, 500)), ((224, 224), (768, 1024)), ((64, 48), (33, 21))]:
        maps = np.stack([
            cv2.resize((rng.random((7, 7)) * 255).astype(np.uint8), small[::-1], interpolation=cv2.INTER_CUBIC)
            for _ in range(24)
        ])  # fmt: skip
        levels = rng.integers(20, 235, len(maps)).astype(np.float32)
        out = device.poisoned((len(maps), 4), "int32")
        arrays = device.put(maps), device.put(levels)
        kernels.boxes_at_size(*(device.view(a) for a in arrays), large, device.view(out), stream=device.stream())
        device.sync()
        got = device.get(out)
        for i, (one, level) in enumerate(zip(maps, levels, strict=True)):
            compared += 1
            resized = cv2.resize(one, large[::-1], interpolation=cv2.INTER_LINEAR)
            want = largest_box(resized > level) or (-1,) * 4
            distance = int(np.abs(got[i] - np.array(want)).max())
            off += distance > 0
            if distance > 1:
                wrong.append({"from": small, "to": large, "got": got[i].tolist(), "want": list(want)})
    data |= {"boxes compared": compared, "off by a pixel": off, "different": len(wrong), "first": wrong[:10]}
    if wrong:
        raise Wrong(f"{len(wrong)} of {compared} boxes are more than a pixel off: {wrong[0]}")
