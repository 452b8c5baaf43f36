"""What a thread keeps after a kernel: not the size of the largest array it ever saw."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

CODE = """
import threading
import numpy as np

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * {page} / 2**20

{setup}
small()
before = resident()
done, go = threading.Event(), threading.Event()
def work():
    large()
    done.set()
    go.wait()  # the thread lives on
thread = threading.Thread(target=work)
thread.start()
done.wait()
print(resident() - before)
go.set()
"""

CASES = {
    "a dotted mask": (
        """
from lidcam_rt.boxes import component_boxes, largest_box
dots = np.zeros((6000, 6000), bool)
dots[::2, ::2] = True
def small(): largest_box(dots[:50, :50])
def large():
    largest_box(dots)
    assert len(component_boxes(dots)) == 9_000_000
""",
        64,  # some of it is malloc's own, which keeps up to 32 MiB
    ),
    "a large map": (
        """
from lidcam_rt.pas import PasOptions, pas
cam = np.random.default_rng(0).random((1, 1, 20, 20), np.float32)
def small(): pas(cam, (40, 40), PasOptions(precision="float"))
def large():
    for where in ("raw", "resized"):
        pas(cam, (6000, 6000), PasOptions(precision="float", where=where))
""",
        288,  # the pool of all threads keeps 256 MiB
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")  # noqa: PTH110
@pytest.mark.parametrize("case", CASES)
def test_memory_after_a_large_array(case):
    setup, limit = CASES[case]
    code = CODE.format(setup=textwrap.dedent(setup), page=os.sysconf("SC_PAGE_SIZE"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < limit
