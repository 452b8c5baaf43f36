"""Cases for check.cpp with the results of the reference and of the CPU kernels, as one file."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np

from lidcam_rt.boxes import largest_box
from lidcam_rt.pas import pas_reference
from lidcam_rt.pas.reference import INTERPOLATIONS, MODES, PRECISIONS, WHERES

FIXED_BYTES = 8960  # kFixedBytes of kernels/pas/pas_args.h
INTEGERS = 16


def write(path: Path, shared: int | None = None) -> Path:
    """Write the cases: 12 int32 (the fields of Case in check.cpp), inputs, expected results.

    `shared` stands for the shared memory of every launch.
    """
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for number, record in enumerate(itertools.chain(_pas(rng), _boxes(rng))):
            head, *arrays = record
            assert len(head) == 12, number
            if shared is not None:
                head = (*head[:10], shared, head[11])
            file.write(np.array(head, np.int32).tobytes() + b"".join(a.tobytes() for a in arrays))
    return path


def _pas(rng):
    sizes = [((5, 6), (21, 24)), ((7, 3), (13, 50)), ((12, 9), (9, 7))]
    options = list(itertools.product(INTERPOLATIONS, WHERES, PRECISIONS, MODES))
    for (flags, option), (k, (low, high)) in itertools.product(enumerate(options), enumerate(sizes)):
        number = 3 * flags + k
        cam = rng.random((1, 2, *low), np.float32) - np.float32(0.3)
        if number % 7 == 3:
            cam = (cam > 0).astype(np.float32)
        if k == 2 and flags % 4 == 0:
            cam *= np.float32(3e38)
        milli, micro = 100000 - (3301 * number if number % 5 else 0) % 100000, 350000 + 13000 * number % 650000
        interpolation, where, precision, mode = option
        bits = 1 * (mode == MODES[1]) | 2 * (precision == PRECISIONS[1]) | 4 * (where == WHERES[1])
        bits |= 8 * (interpolation == INTERPOLATIONS[1]) | INTEGERS * (k == 1)
        result = pas_reference(
            cam, high, percentile=milli / 1000, theta=micro / 1e6, mode=mode, precision=precision, where=where,
            interpolation=interpolation,
        )  # fmt: skip
        threads, cluster = 96 if number % 2 else 64, 1 << (flags + k) % 3
        shared = (32768, 9200, FIXED_BYTES)[(k + flags) % 3]
        yield (0, *low, *high, milli, micro, bits, threads, cluster, shared, 2), cam, result.map, result.mask, (
            result.threshold
        )


def _box(mask, by):
    box = largest_box(mask, by=by)
    return (-1, -1, -1, -1) if box is None else box


def _boxes(rng):
    for k in range(24):
        height, width = [(30, 40), (17, 64), (90, 6), (1, 50)][k % 4]
        masks = rng.random((2, height, width)) < 0.1 + 0.12 * (k % 8)
        by = ("contour", "pixels")[k % 2]
        boxes = np.array([_box(m, by) for m in masks], np.int32)
        head = height, width, height, width, 0, 0, k % 2, 32 if k % 3 == 0 else 96, 1, 32768 if k % 5 else 640, 2
        yield (1, *head), masks, np.zeros(2, np.float32), boxes
    for k, size in enumerate([(40, 55), (9, 7), (17, 90), (4, 3)]):
        maps = rng.integers(0, 256, (2, 8, 6) if size == (4, 3) else (2, 9, 7)).astype(np.uint8)
        levels = np.array([128, 60], np.float32)
        full = [cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in maps]
        boxes = np.array([_box(m > v, "contour") for m, v in zip(full, levels, strict=True)], np.int32)
        yield (2, *maps.shape[1:], *size, 0, 0, 0, 96 if k % 2 else 64, 1, 8192, 2), maps, levels, boxes
