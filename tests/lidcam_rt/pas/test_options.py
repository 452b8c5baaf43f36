"""One class of options: what it refuses, and the two forms that kernels take."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple

import artifacts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lidcam_rt import _kernels
from lidcam_rt.artifact import DIGEST_KEY, MANIFEST_KEY, Manifest
from lidcam_rt.errors import ArtifactError, InputError
from lidcam_rt.pas import PasOptions
from lidcam_rt.pas.options import INTERPOLATIONS, MODES, PRECISIONS, WHERES

OPTIONS = st.builds(
    PasOptions, st.floats(0, 100), st.floats(0, 1), st.sampled_from(MODES), st.sampled_from(PRECISIONS),
    st.sampled_from(WHERES), st.sampled_from(INTERPOLATIONS),
)  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *(({"percentile": value}, "percentile must be between 0 and 100") for value in (-1, 101, float("nan"), "98")),
        *(({"theta": value}, "theta must be between 0 and 1") for value in (-0.1, 1.1, None, True, [0.3])),
        ({"mode": "other"}, "mode must be one of threshold, normalize, got 'other'"),
        ({"where": ["raw"]}, "where must be one of resized, raw"),
        ({"precision": "float32"}, "precision must be one of"),
        ({"interpolation": None}, "interpolation must be one of"),
    ],
)
def test_wrong_values(wrong, says):
    with pytest.raises(InputError, match=says):
        PasOptions(**wrong)


@given(OPTIONS)
def test_kernels_get_the_same_in_both_forms(options):
    assert options.kernel_arguments() == astuple(options)
    percentile, theta, *chosen = astuple(options)
    second = [values[1] for values in (MODES, PRECISIONS, WHERES, INTERPOLATIONS)]
    milli, micro, bits = options.kernel_integers()
    assert abs(milli - 1000 * percentile) <= 0.5 and abs(micro - 1e6 * theta) <= 0.5
    assert [bool(bits >> i & 1) for i in range(4)] == [a == b for a, b in zip(chosen, second, strict=True)]
    assert bits < 16


@pytest.mark.parametrize(
    ("place", "wrong", "says"),
    [
        (0, 100.1, "percentile must be 0 to 100, got 100.1"),
        (1, float("nan"), "theta must be 0 to 1, got nan"),
        (2, "max", "mode must be threshold or normalize, got max"),
        (5, "", "interpolation must be cubic or linear, got "),
    ],
)
def test_the_compiled_parser_refuses_what_python_does(place, wrong, says):
    given = list(PasOptions().kernel_arguments())
    given[place] = wrong
    with pytest.raises(ValueError, match=says):
        _kernels.pas.integer_attributes(*given)
    with pytest.raises(ValueError, match=says):
        _kernels.pas.pas(np.zeros((1, 1, 2, 2), np.float32), 4, 4, *given, 1)


@given(OPTIONS)
def test_a_manifest_keeps_them(options):
    manifest = artifacts.manifest().model_copy(update={"pas": options})
    assert Manifest.from_metadata(manifest.to_metadata(), "m.onnx").pas == options


@pytest.mark.parametrize("wrong", [{"percentile": 101.0}, {"mode": "other"}, {"unknown": 1}])
def test_a_manifest_with_others_is_refused(wrong):
    raw = json.loads(artifacts.manifest().to_metadata()[MANIFEST_KEY])
    raw["pas"] |= wrong
    text = json.dumps(raw)
    with pytest.raises(ArtifactError, match=f"pas.*{next(iter(wrong))}"):
        Manifest.from_metadata({MANIFEST_KEY: text, DIGEST_KEY: hashlib.sha256(text.encode()).hexdigest()}, "m.onnx")
