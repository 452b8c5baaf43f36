"""Eight threads on one Localizer, on every engine: pictures of many sizes, failures among them, memory flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Seconds of the long form; `make fuzz` takes a minute.
LONG = float(os.environ.get("LIDCAM_THREADS_SECONDS", "15"))

#: In a process of its own: what earlier tests left with the allocator would blur the measurement.
_RUN = """
import gc, json, random, sys, threading, time
import numpy as np
import lidcam_rt

model, backend, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}

def picture(dice, name):
    pixels = np.full((dice.randint(20, 400), dice.randint(20, 400), 3), 128, np.uint8)
    pixels[: pixels.shape[0] * 3 // 4, : pixels.shape[1] * 3 // 4] = COLOURS[name]
    return pixels

def resident_mb():
    gc.collect()
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

wrong, done, refused = [], [0] * 8, [0] * 8

def work(number, localizer, end, least):
    dice = random.Random(number)
    while done[number] < least or time.monotonic() < end:
        name = dice.choice(list(COLOURS))
        source = picture(dice, name)
        kind = dice.randrange(6)
        try:
            if kind == 0:
                localizer(b"no picture")
            elif kind == 1:
                localizer(source, labels=99)
            elif kind == 2:
                results = localizer.batch([source, source])
            else:
                results = [localizer(source)]
            if kind < 2:
                wrong.append((name, "a failure was expected"))
        except lidcam_rt.errors.InputError:
            refused[number] += 1
            if kind >= 2:
                raise
            continue
        for result in results:
            height, width = source.shape[:2]
            if result.class_name != name or result.mask.shape != (height, width) or not result.mask[0, 0]:
                wrong.append((name, result.class_name, source.shape))
        done[number] += 1

def all_threads(localizer, seconds, least):
    threads = [threading.Thread(target=work, args=(i, localizer, time.monotonic() + seconds, least)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

with lidcam_rt.load(model, backend=backend, device="cpu") as localizer:
    all_threads(localizer, seconds / 4, 20)
    before = resident_mb()
    done[:] = [0] * 8
    all_threads(localizer, seconds, 60)
    print(json.dumps({"wrong": wrong[:5], "done": done, "refused": refused, "growth_mb": resident_mb() - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("seconds", [0, pytest.param(LONG, marks=pytest.mark.slow, id="long")])
def test_eight_threads_on_one_localizer(model, backend, seconds):
    pytest.importorskip(backend)
    command = [sys.executable, "-c", _RUN, str(model), backend, str(seconds)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    report = json.loads(ran.stdout)
    assert report["wrong"] == [] and min(report["done"]) >= 60 and min(report["refused"]) > 0
    # A result of 400x400 holds half a megabyte: one kept in a hundred would show in the long form.
    assert report["growth_mb"] < 20
