"""The operator library in ONNX Runtime: against the reference, from several threads, and with wrong nodes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidcam_rt.pas import PasOptions, ops_library, pas_reference
from lidcam_rt.pas.options import INTERPOLATIONS, MODES, PRECISIONS, WHERES

sys.path.insert(0, str(Path(__file__).parent))
from node import node_model, session_of

COMBINATIONS = list(itertools.product(MODES, PRECISIONS, WHERES, INTERPOLATIONS))


def options_of(combination, percentile=98.0, theta=0.35):
    values = dict(zip(("mode", "precision", "where", "interpolation"), combination, strict=True))
    return {"percentile": percentile, "theta": theta} | values


def run(session, cam, size):
    result = session.run(None, {"cam": cam, "like": np.zeros((len(cam), 1, *size), np.float32)})
    return result[0], result[1].astype(bool), result[2]


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_the_kernel_runs_and_equals_the_reference(library, combination):
    options = options_of(combination)
    session = session_of(node_model(options), library, threads=2)
    rng = np.random.default_rng(1)
    shapes = [(2, 3, 12, 11, 96, 61), (1, 1, 5, 7, 3, 2), (1, 1, 1, 1, 4, 4), (0, 2, 3, 3, 4, 4)]
    for *shape, height, width in shapes:
        size = height, width
        cam = rng.gamma(0.7, size=shape).astype(np.float32)
        for got, want in zip(run(session, cam, size), pas_reference(cam, size, PasOptions(**options)), strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 100, width=32), st.floats(0, 1, width=32), st.sampled_from(COMBINATIONS), st.integers(0, 2**32))
def test_any_attribute(percentile, theta, combination, seed):
    library = ops_library()
    if library is None:
        pytest.skip("the operator library was not built")
    options = options_of(combination, percentile, theta)
    cam = np.random.default_rng(seed).standard_normal((1, 2, 6, 6)).astype(np.float32)
    got = run(session_of(node_model(options), library), cam, (20, 17))
    for a, b in zip(got, pas_reference(cam, (20, 17), PasOptions(**options)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_session_in_several_threads(library):
    session = session_of(node_model(), library, threads=2)
    cams = [np.random.default_rng(i).random((2, 2, 8, 8)).astype(np.float32) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda cam: run(session, cam, (64, 48)), cams))
    for cam, result in zip(cams, results, strict=True):
        np.testing.assert_array_equal(result[0], pas_reference(cam, (64, 48)).map)


def test_without_the_library_a_node_without_a_body_is_refused():
    with pytest.raises(Exception, match="lidcam"):
        session_of(node_model())


def test_wrong_nodes_are_errors_and_never_crashes(library):
    script = Path(__file__).with_name("node.py")
    result = subprocess.run(
        [sys.executable, str(script), str(library)], capture_output=True, text=True, errors="replace", timeout=300
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert " 0 wrong" in result.stdout.splitlines()[-1]


def test_the_switch(monkeypatch, library):
    monkeypatch.setenv("LIDCAM_OPS", "off")
    assert ops_library() is None
    monkeypatch.delenv("LIDCAM_OPS")
    assert ops_library() == library
