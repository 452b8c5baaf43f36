"""A dense CRF ends when it is asked to: by Ctrl-C on the main thread, by `Stop` on others."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import artifacts
import numpy as np
import pytest
from lattice_reference import scene
from lidcam_rt._kernels import crf
from PIL import Image

from lidcam_rt.crf import BilateralTerm, CrfOptions, DenseCRF, GaussianTerm
from lidcam_rt.crf.stop import Stop, Stopped, current_flag, stoppable

ENDLESS = 2**31 - 1  # steps: hours, if nothing stops them


class Interrupted(Exception):
    pass


@pytest.fixture
def alarm():
    """Calls a function in the handler of a signal, `seconds` from now, and then every `again` seconds."""

    def start(function, seconds=0.03, again=0.0):
        signal.signal(signal.SIGALRM, lambda *_: function())
        signal.setitimer(signal.ITIMER_REAL, seconds, again)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # drops one that is under way, which would end the process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def interrupt():
    raise Interrupted


MATRIX = tuple(map(tuple, np.eye(5) - 1))


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (2, CrfOptions(ENDLESS)),
        (2, CrfOptions(ENDLESS, rounding="fast")),
        (5, CrfOptions(ENDLESS, bilateral_compat=MATRIX)),
        (5, CrfOptions(ENDLESS, rounding="fast", terms=(BilateralTerm(9.0, 20.0, MATRIX),))),
        (2, CrfOptions(ENDLESS, rounding="fast", terms=(GaussianTerm(4.0, 1.0, "after"),))),
    ],
)
def test_a_signal_ends_every_model(alarm, labels, options):
    image, unary = scene(90, 70, labels)
    with pytest.raises(Interrupted):
        alarm(interrupt)
        DenseCRF(options).infer(image, unary)
    field = DenseCRF("psa")  # what was interrupted leaves nothing behind
    assert np.array_equal(field.infer(image, unary), field.infer(image, unary))


@pytest.mark.slow
@pytest.mark.parametrize("step", ["lattice", "folded lattice", "filter"])
def test_signals_are_seen_during_a_long_step(alarm, step):
    """Handlers run while the kernel does: more than once, where they would run once after it."""
    side = 1200
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    deviations = [80.0, 80.0, 5.0, 5.0, 5.0]
    lattice = crf.image_lattice(image, side, side, deviations) if step == "filter" else None
    energies = np.zeros((2, side, side), np.float32)
    calls = {
        "lattice": lambda: crf.image_lattice(image, side, side, deviations),
        "folded lattice": lambda: crf.infer(image, energies, [(deviations, [1.0], 3)], 0, 0.0, True),
        "filter": lambda: crf.filter(lattice, np.ones((24, side * side), np.float32)),
    }
    seen = []

    def handler():
        seen.append(bool((np.full(9, 1e-40, np.float32) * np.float32(0.5) > 0).all()))

    alarm(handler, seconds=0.005, again=0.005)
    calls[step]()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(seen) >= 2
    assert all(seen)  # a handler has its own floating point mode


def test_a_stop_ends_what_runs_under_it():
    image, unary = scene(40, 50, 2)
    stop, running = Stop(), threading.Event()

    def task():
        assert current_flag() is not None
        running.set()
        DenseCRF(CrfOptions(ENDLESS)).infer(image, unary)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(stoppable, stop, task)
        running.wait()
        stop.set()
        with pytest.raises(Stopped):
            future.result()
        assert pool.submit(current_flag).result() is None
    with pytest.raises(Stopped):
        stoppable(stop, DenseCRF(CrfOptions(ENDLESS)).infer, image, unary)
    assert np.isfinite(stoppable(Stop(), DenseCRF("psa").infer, image, unary)).all()


PRELUDE = """
import os, signal, sys, threading
import numpy as np
from lidcam_rt.crf import CrfOptions, DenseCRF
from lidcam_rt.crf import dense

begun = threading.Event()
image, p = np.zeros((60, 60, 3), np.uint8), np.random.default_rng(0).random((2, 60, 60), np.float32)
endless = DenseCRF(CrfOptions(2**31 - 1))
infer = DenseCRF._infer

def marked(self, *arguments):
    begun.set()
    return infer(self, *arguments)

def press():  # Ctrl-C, once a CRF has begun
    begun.wait()
    os.kill(os.getpid(), signal.SIGINT)

DenseCRF._infer = marked
threading.Thread(target=press, daemon=True).start()
"""


def interrupted(code, *arguments):
    """Whether Ctrl-C ended the code and its threads: otherwise it runs for hours."""
    lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
    code = f"{PRELUDE}\ntry:\n{lines}except KeyboardInterrupt:\n    print('interrupted')\n"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode == 0 and done.stdout == "interrupted\n"


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_batch(threads):
    assert interrupted(f"endless.refine_batch([image] * 3, [p] * 3, threads={threads})")


def test_ctrl_c_ends_the_wait_for_another_thread():
    """The caller's thread has nothing to do: the only CRF runs on the other."""
    assert interrupted(
        """
caller, taken = threading.current_thread(), threading.Event()
def refine(self, image, p, labels=None):
    if threading.current_thread() is caller:
        taken.wait()
        return p
    taken.set()
    return self.infer(image, p)
DenseCRF.refine = refine
endless.refine_batch([image] * 2, [p] * 2, threads=2)
"""
    )


@pytest.mark.slow
def test_ctrl_c_ends_a_stream(model, tmp_path):
    """Its CRFs run on threads that it made."""
    picture = tmp_path / "picture.png"
    Image.fromarray(artifacts.picture("red")).save(picture)
    assert interrupted(
        """
import lidcam_rt
with lidcam_rt.load(sys.argv[1]) as localizer:
    for result in localizer.stream([sys.argv[2]] * 20, refine=endless.options, batch_size=2):
        pass
""",
        model,
        picture,
    )
