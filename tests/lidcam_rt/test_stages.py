"""The hook around the steps of a localization: which steps are entered, in which order."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace

import artifacts
import pytest

import lidcam_rt
from lidcam_rt.pipeline import Pipeline
from lidcam_rt.segmenter import CamSegmenter, SegmentOptions

STEPS = ["decode", "preprocess", "network", "maps", "boxes"]
NETWORK = ["maps", "boxes", "crf", "maps", "maps", "boxes"]


class Log:
    """A hook that keeps the names, and that every step was left again."""

    def __init__(self):
        self.names, self.open, self.lock = [], 0, threading.Lock()

    @contextlib.contextmanager
    def __call__(self, name, stream=None):
        with self.lock:
            self.names.append(name)
            self.open += 1
        yield
        with self.lock:
            self.open -= 1


@pytest.fixture
def watched(model):
    log = Log()
    with lidcam_rt.load(model) as localizer:
        localizer.pipeline.observe(log)
        yield localizer, log
    assert log.open == 0


def test_a_call(watched):
    localizer, log = watched
    localizer(artifacts.picture())
    assert log.names == STEPS
    log.names.clear()
    localizer(artifacts.picture(), top_k=2)
    assert log.names == [*STEPS, "maps", "boxes"]


@pytest.mark.parametrize(
    ("refine", "steps"), [("psa", NETWORK), ("psa@original", ["maps", "boxes", "crf", "maps", "boxes"])]
)
def test_with_a_crf(watched, refine, steps):
    localizer, log = watched
    localizer(artifacts.picture(), refine=refine)
    assert log.names == [*STEPS[:3], *steps]


def test_a_stream(watched):
    localizer, log = watched
    assert len(list(localizer.stream([artifacts.picture()] * 3))) == 3
    assert sorted(log.names) == sorted(STEPS * 3)


def test_a_label_map(watched):
    localizer, log = watched
    CamSegmenter(localizer, SegmentOptions(refine="psa"))(artifacts.picture())
    assert log.names[-3:] == ["compose", "crf", "compose"]


def test_the_backend_s_own_steps():
    log, seen = Log(), []
    backend = SimpleNamespace(observe=seen.append, name="x", device="cpu", precision="fp32", inputs=[], outputs=[])
    Pipeline(artifacts.manifest(), backend).observe(log)
    assert seen == [log]
