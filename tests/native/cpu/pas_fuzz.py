"""Throws right and wrong arguments at a given build of the compiled module: `python pas_fuzz.py MODULE`.

Run under AddressSanitizer by test_pas_sanitizers.py. Ends with status 0 if every wrong call was refused by a Python
error and every right one gave the reference's bits.
"""

from __future__ import annotations

import importlib.util
import sys

import numpy as np

import lidcam_rt


def load(path):
    """Put the module of this file in the place of the installed one."""
    spec = importlib.util.spec_from_file_location("lidcam_rt._kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["lidcam_rt._kernels"] = lidcam_rt._kernels = module
    return module


def right_calls(rng, count):
    import cv2

    from lidcam_rt import boxes
    from lidcam_rt.pas import PasOptions, pas, pas_reference
    from lidcam_rt.pas.options import INTERPOLATIONS, MODES, PRECISIONS, WHERES

    for i in range(count):
        side = 1 << int(rng.integers(0, 8))
        shape = tuple(rng.integers(0, 3, 2)) + tuple(rng.integers(1, 1 + min(side, 40), 2))
        size = tuple(int(n) for n in rng.integers(1, 2 + side, 2))
        cam = rng.standard_normal(shape).astype(np.float32)
        if i % 7 == 0 and cam.size:
            cam.flat[rng.integers(cam.size)] = rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-42])
        options = PasOptions(
            float(rng.choice([0, 100, rng.uniform(0, 100)])), float(rng.random()), rng.choice(MODES),
            rng.choice(PRECISIONS), rng.choice(WHERES), rng.choice(INTERPOLATIONS),
        )  # fmt: skip
        got = pas(cam, size, options, threads=int(rng.integers(1, 4)))
        for a, b in zip(got, pas_reference(cam, size, options), strict=True):
            np.testing.assert_array_equal(a, b)
        mask = rng.random((int(rng.integers(0, 140)), int(rng.integers(0, 140)))) < rng.random()
        if mask.size:
            found = boxes.component_boxes(mask)
            assert len(found) == cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1
            for by in boxes.MEASURES:
                assert (boxes.largest_box(mask, by=by) is None) == (not mask.any())
                assert boxes.largest_component(mask, by=by).sum() <= mask.sum()
            assert boxes.label(mask)[1] == len(found)


def wrong_calls(module, rng, count):
    from lidcam_rt import boxes
    from lidcam_rt.errors import InputError
    from lidcam_rt.pas import PasOptions, pas

    arrays = [
        None, 3, "cam", [[1.0]], np.zeros(()), np.zeros(4, np.float32), np.zeros((2, 3)), np.zeros((1, 1, 4, 4)),
        np.zeros((1, 1, 4, 4), np.float16), np.zeros((1, 1, 0, 4), np.float32), np.zeros((1, 1, 4, 0), np.float32),
        np.zeros((1, 1, 4, 4), np.complex64), np.zeros((1, 1, 4, 4), object), np.zeros((1,) * 9, np.float32),
        np.zeros((1, 1, 8, 8), np.float32)[..., ::2, ::2], np.zeros((1, 1, 4, 4), ">f4"), np.zeros((2, 2), np.uint8),
        np.zeros((4, 6), np.uint8)[::2, ::3], np.zeros((2, 2, 2), np.uint8), np.zeros((0, 0), np.uint8),
    ]  # fmt: skip
    numbers = [None, "x", -1, 0, 1, 5, 2**31, 2**63, 2**70, 1.5, float("nan"), float("inf"), True, [1]]
    refused = 0
    pick = lambda values: values[int(rng.integers(len(values)))]  # noqa: E731
    for _ in range(count):
        calls = [
            lambda: module.components.largest_box(pick(arrays), pick([True, False, 1, None])),
            lambda: module.components.boxes(pick(arrays)),
            lambda: module.components.label(pick(arrays)),
            lambda: module.components.largest_component(pick(arrays), pick([True, None, 3])),
            lambda: boxes.largest_box(pick(arrays), by=pick(["contour", "pixels", "area", None])),
            lambda: boxes.component_boxes(pick(arrays), inclusive=pick(numbers)),
            lambda: pas(pick(arrays), (pick(numbers), pick(numbers)), threads=pick([1, 2, 0, -1, None])),
            lambda: pas(pick(arrays), pick(numbers)),
            lambda: pas(np.zeros((1, 1, 4, 4), np.float32), (5, 5), PasOptions(pick(numbers), pick(numbers))),
            lambda: PasOptions(**{pick(["mode", "where", "more"]): pick(numbers)}),
            lambda: pas(np.zeros((1, 1, 4, 4), np.float32), (5, 5), pick(numbers)),
        ]
        sides = pick([(5, 5), (pick(numbers), 5), (5, pick(numbers))])
        shares = pick([(98.0, 0.35), (pick(numbers), 0.35), (98.0, pick(numbers))])
        words = ("threshold", pick(["uint8", "float", None]), pick(["raw", "resized", "rim"]), pick(["cubic", 1]))
        rest = (*words, pick([1, 2, -1, 2**31, None]))
        calls.append(lambda sides=sides, shares=shares, rest=rest: module.pas.pas(pick(arrays), *sides, *shares, *rest))
        try:
            pick(calls)()
        except (InputError, TypeError, ValueError, OverflowError):
            refused += 1
        except MemoryError:
            refused += 1
    return refused


def main(path):
    module = load(path)
    rng = np.random.default_rng(0)
    right_calls(rng, 250)
    refused = wrong_calls(module, rng, 1500)
    print(f"{module.isa()}: right calls equal, {refused} of 1500 wrong calls refused")
    return 0 if refused > 800 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
