"""Cases for check.cpp with the results of the reference and of the CPU kernels, as one file."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
from lidcam_rt._kernels import crf as kernels

from lidcam_rt.boxes import largest_box
from lidcam_rt.crf import CrfOptions
from lidcam_rt.pas import PasOptions, pas_reference
from lidcam_rt.pas.options import INTERPOLATIONS, MODES, PRECISIONS, WHERES

FIXED_BYTES = 9984  # kFixedBytes of kernels/pas/pas_args.h
INTEGERS = 16


def write(path: Path, shared: int | None = None) -> Path:
    """Write the cases: 12 int32 (the fields of Case in check.cpp), inputs, expected results.

    `shared` stands for the shared memory of every launch.
    """
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for number, record in enumerate(itertools.chain(_pas(rng), _bytes(), _boxes(rng), _crf(rng))):
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
        settings = PasOptions(milli / 1000, micro / 1e6, mode, precision, where, interpolation)
        assert settings.kernel_integers()[:2] == (milli, micro)
        bits = settings.kernel_integers()[2] | INTEGERS * (k == 1)
        result = pas_reference(cam, high, settings)
        threads, cluster = 96 if number % 2 else 64, 1 << (flags + k) % 3
        shared = (32768, 10200, FIXED_BYTES)[(k + flags) % 3]
        yield (0, *low, *high, milli, micro, bits, threads, cluster, shared, 2), cam, result.map, result.mask, (
            result.threshold
        )


def _bytes():
    """PaS where the bytes stay in shared memory: the default options, a width of whole groups of columns."""
    rng = np.random.default_rng(1)
    lows = ((5, 6), (11, 4), (40, 48))
    for number, (cluster, threads, low) in enumerate(itertools.product((1, 2, 4), (64, 96), lows)):
        cam = rng.random((1, 3, *low), np.float32) - np.float32(0.3)
        cam[0, 2] *= np.float32(3e38)
        high = ((32, 40), (21, 24))[number % 2]
        settings = PasOptions(98 - 7 * number % 60, 0.2 + 0.04 * number)
        result = pas_reference(cam, high, settings)
        head = 0, *low, *high, *settings.kernel_integers(), threads, cluster, 49152, 3
        yield head, cam, result.map, result.mask, result.threshold


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


CRF_ARGS = np.dtype(
    [("words", np.int64), ("kept", np.int64)]
    + [(n, np.int32) for n in ("labels", "height", "width", "terms", "iterations", "capacity", "slots",
                               "channels", "numbers", "lists", "list")]
    + [("tolerance", np.float32),
       ("term", [("dimension", np.int32), ("deviation", np.float32, 5), ("scale", np.float32, 5), ("alpha", np.float32),
                 ("weight", np.float32), ("compat", np.int32), ("array", np.int32), ("before", np.int32),
                 ("after", np.int32)], 4)],
    align=True,
)  # fmt: skip


def crf_args(options: CrfOptions, labels: int, height: int, width: int, capacity: int, present: list[int] | None):
    """Args of kernels/crf/cuda_args.h, as launch_crf.cpp fills them, and the words behind them."""
    args = np.zeros((), CRF_ARGS)
    args["labels"], args["height"], args["width"], args["iterations"] = labels, height, width, options.iterations
    args["capacity"], args["slots"] = capacity, 1 << int(2 * capacity - 1).bit_length()
    args["tolerance"] = options.tolerance
    words = np.zeros(0, np.int32)
    terms = options.kernel_terms(labels)
    args["terms"], args["numbers"] = len(terms), all(len(compat) == 1 for _, compat, _ in terms)
    for t, (sigma, compat, kind) in enumerate(terms):
        term, d = args["term"][t], len(sigma)
        i = np.arange(d)
        unit = np.float32(np.sqrt(2 / 3) * (d + 1))
        term["dimension"], term["weight"], term["alpha"] = d, compat[0], 1 / (1 + 2.0**-d)
        term["deviation"][:d] = sigma
        term["scale"][:d] = (1 / np.sqrt((i + 2.0) * (i + 1.0)) * unit).astype(np.float32)
        term["compat"], term["array"] = {1: 0, labels: 1}.get(len(compat), 2), len(words)
        term["before"], term["after"] = kind in (1, 3), kind in (2, 3)
        if len(compat) > 1:
            words = np.concatenate([words, np.array(compat, np.float32).view(np.int32)])
    args["lists"] = -1 if present is None else len(words)
    if present is not None:
        words = np.concatenate([words, [len(present), *present]]).astype(np.int32)
    count = labels if present is None else len(present)
    args["channels"] = 1 if count == 2 and args["numbers"] else count
    return args, words


def crf_inputs(rng, count, labels, height, width):
    """Photos made of a few colours, and unary energies."""
    spots = rng.integers(0, 256, (count, 3, 3, 3)).astype(np.uint8)
    image = np.stack([cv2.resize(s, (width, height), interpolation=cv2.INTER_LINEAR) for s in spots])
    p = rng.dirichlet(np.ones(labels), (count, height, width)).astype(np.float32).transpose(0, 3, 1, 2)
    return image, np.ascontiguousarray(-np.log(p.clip(1e-5, 1)))


def _crf(rng):
    few = {"gaussian_sxy": 2.0, "bilateral_srgb": 20.0}
    vector = (-3.0, 1.0, -2.0)
    matrix = ((-4.0, 1.0, 2.0), (1.0, -3.0, 0.5), (2.0, 0.5, -5.0))
    cases = [
        (2, (9, 13), CrfOptions(iterations=3), 64, 1, 49152, None),
        (3, (8, 11), CrfOptions(iterations=2, bilateral_srgb=20.0), 96, 1, 1024, None),
        (2, (10, 9), CrfOptions(iterations=2, bilateral_sxy=20.0), 64, 2, 0, None),
        (4, (7, 7), CrfOptions(iterations=1), 32, 4, 0, None),
        (3, (7, 9), CrfOptions(2, gaussian_compat=matrix, bilateral_compat=vector, **few), 64, 1, 49152, None),
        (3, (9, 6), CrfOptions(2, bilateral_compat=matrix, normalization="before", **few), 64, 2, 0, None),
        (2, (6, 9), CrfOptions(2, normalization="after", tolerance=0.01, **few), 64, 1, 1024, None),
        (2, (9, 8), CrfOptions(20, gaussian_compat=1.0, bilateral_compat=0.5, tolerance=0.05, **few), 64, 2, 0, None),
        (5, (7, 8), CrfOptions(9, tolerance=0.05, **few), 64, 1, 49152, [1, 2, 4]),
    ]
    for labels, (height, width), options, threads, cluster, shared, present in cases:
        image, unary = crf_inputs(rng, 2, labels, height, width)
        args, words = crf_args(options, labels, height, width, 6 * (height * width + 1), present)
        q = np.zeros_like(unary)
        here = list(range(labels)) if present is None else present
        terms = options.kernel_terms(here)
        for i, (picture, energies) in enumerate(zip(image, unary, strict=True)):
            q[i, here] = kernels.infer(picture, np.ascontiguousarray(energies[here]), terms, options.iterations,
                                       options.tolerance, True)[0]  # fmt: skip
        yield (3, labels, 1, height, width, len(words), 0, 0, threads, cluster, shared, 2), args, words, image, unary, q
