"""Arrays that another thread writes to while a kernel reads them: results mean nothing then, but every call ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow  # not in make quick

PRELUDE = """
import threading, time
import numpy as np

def change(call, write, rounds, longest):
    '''Writes once during each call, at another moment each time.'''
    for i in range(rounds):
        wait = longest * i / rounds
        def late():
            time.sleep(wait)
            write(i)
        writer = threading.Thread(target=late)
        writer.start()
        call()
        writer.join()
"""

CASES = {
    # Two combs with long borders; once all is 0 there is no border left to follow.
    "border": """
        from lidcam_rt.boxes import largest_box
        comb = np.zeros((1500, 1500), bool)
        comb[::2] = comb[:, 0] = comb[:, 2] = True
        comb[:, 1] = False
        mask = comb.copy()
        def call():
            largest_box(mask)
            mask[...] = comb
        start = time.perf_counter(); call(); took = time.perf_counter() - start
        change(call, lambda i: mask.fill(0), 60, took)
    """,
    "levels": """
        from lidcam_rt._kernels import metrics
        rng = np.random.default_rng(0)
        map8 = rng.integers(0, 256, (200, 300), np.uint8)
        levels, truth = np.arange(256, dtype=np.int32), np.array([[3, 4, 50, 60]], np.int64)
        def write(i):
            map8[...] = rng.integers(0, 256, map8.shape, np.uint8)
            levels[...] = rng.integers(-2**31, 2**31, 256)
            truth[...] = rng.integers(-2**62, 2**62, (1, 4))
        def call():
            levels[...] = np.arange(256)
            for method in (1, 2):
                try:
                    metrics.level_boxes(map8, levels, truth, method)
                except ValueError:  # the levels changed before they were read
                    pass
        change(call, write, 60, 0.03)
    """,
    # Order statistics of NaN would run out of their array.
    "pas": """
        from lidcam_rt.pas import PasOptions, pas
        rng = np.random.default_rng(0)
        cam = rng.random((1, 1, 700, 700), np.float32)
        def write(i):
            cam[0, 0, ::2] = np.nan
            cam[0, 0, :, ::3] = -np.inf
        def call():
            cam[...] = rng.random(cam.shape, np.float32)
            for where in ("raw", "resized"):
                result = pas(cam, (64, 64), PasOptions(where=where, precision="float"))
                assert np.isfinite(result.threshold).all()
        change(call, write, 60, 0.06)
    """,
    "crf": """
        from lidcam_rt.crf import CrfOptions, DenseCRF
        from lidcam_rt.errors import InputError
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (90, 110, 3), np.uint8)
        unary = rng.random((3, 90, 110), np.float32)
        def write(i):
            image[...] = rng.integers(0, 256, image.shape, np.uint8)
            unary[:, ::2] = np.nan
            unary[:, :, ::3] = np.inf
        def call():
            for labels, rounding in ((2, "pydensecrf"), (3, "pydensecrf"), (2, "fast"), (3, "fast")):
                unary[...] = rng.random(unary.shape, np.float32)
                try:
                    DenseCRF(CrfOptions(rounding=rounding)).infer(image, unary[:labels])
                except InputError:  # changed before it was checked
                    pass
        change(call, write, 40, 0.3)
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_calls_end(case):
    code = PRELUDE + textwrap.dedent(CASES[case]) + "\nprint('ended')\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr[-2000:]
