"""A short form of `make fuzz`: a few hundred mutated files per reader, and a kill per verb."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz
import kills
from targets import TARGETS

pytestmark = pytest.mark.hostile


#: A whole run per input, whose exit status says what was refused.
SLOW = {"journal", "identity of a run", "evaluation's records", "evaluation's sums"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_reads_or_refuses(target):
    inputs = 40 if target.name in SLOW else 400
    counts, findings = fuzz.fuzz(target, inputs, seed=1, seconds=3600)
    assert not findings
    assert sum(counts.values()) == inputs
    assert counts["refused"] or target.name in SLOW  # a damaged journal costs work, never the run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    kills.prepare(folder)
    return folder


#: A run of the pipeline takes minutes: kills.py kills it, and tests/lidcam_export/test_track1.py does twice.
SHORT = [verb for verb in kills.VERBS if verb.name != "pipeline track1"]


@pytest.mark.parametrize("verb", SHORT, ids=lambda verb: verb.name)
def test_killed_and_run_again(verb, inputs, tmp_path):
    """One kill each; `make fuzz` takes 20, some of them twice in a row."""
    if missing := [name for name in verb.needs if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    moment = random.Random(verb.name).uniform(0.4, 0.9)  # imports and loading take the time before
    assert not kills.check(verb, inputs, tmp_path, [[moment]])
