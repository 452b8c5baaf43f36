"""The function body of PaS against the reference, in ONNX Runtime and onnx.reference."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_export.operator import OPSET, attach, pas_node, threshold_bounds
from onnx import TensorProto, helper

from lidcam_rt.artifact import PasSpec
from lidcam_rt.errors import ExportError
from lidcam_rt.pas import pas_reference


def model_of(spec: PasSpec) -> onnx.ModelProto:
    graph = helper.make_graph(
        [pas_node(("cam", "like"), ("map", "mask", "threshold"), spec)],
        "pas",
        [
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["n", "k", "h", "w"]),
            helper.make_tensor_value_info("like", TensorProto.FLOAT, ["n", 3, "H", "W"]),
        ],
        [
            helper.make_tensor_value_info("map", TensorProto.UINT8, ["n", "k", "H", "W"]),
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", "k", "H", "W"]),
            helper.make_tensor_value_info("threshold", TensorProto.FLOAT, ["n", "k"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    attach(model, spec)
    onnx.checker.check_model(model)
    return model


def run(session: ort.InferenceSession, cam: np.ndarray, size: tuple[int, int]):
    return session.run(None, {"cam": cam, "like": np.zeros((len(cam), 3, *size), np.float32)})


SPECS = [
    PasSpec(percentile=p, theta=t, mode=m)
    for p, t, m in (
        (98.0, 0.35, "threshold"),
        (90.0, 0.35, "threshold"),
        (100.0, 0.2, "threshold"),
        (98.0, 0.3, "normalize"),
    )
]
SESSIONS = {spec: ort.InferenceSession(model_of(spec).SerializeToString()) for spec in SPECS}


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.mode}-{s.percentile}-{s.theta}")
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_equals_the_reference_on_a_grid_of_its_own_size(spec, seed, h, w, big_h, big_w):
    """Without a resize the same floats go in: everything is equal, to the bit."""
    rng = np.random.default_rng(seed)
    cam = rng.gamma(0.7, 1.0, (2, 2, big_h, big_w)).astype(np.float32)
    cam[0, 0] = np.round(cam[0, 0])  # ties
    want = pas_reference(cam, (big_h, big_w), percentile=spec.percentile, theta=spec.theta, mode=spec.mode)
    got = run(SESSIONS[spec], cam, (big_h, big_w))
    np.testing.assert_array_equal(got[0], want.map)
    np.testing.assert_array_equal(got[1].astype(bool), want.mask)
    np.testing.assert_array_equal(got[2], want.threshold)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.mode}-{s.percentile}-{s.theta}")
def test_resized_maps_differ_in_at_most_a_few_pixels(spec):
    """ONNX Runtime's resize rounds in another order than ours: a byte may fall to the other side of a step."""
    cam = np.random.default_rng(3).gamma(0.7, 1.0, (8, 1, 12, 12)).astype(np.float32)
    want = pas_reference(cam, (192, 160), percentile=spec.percentile, theta=spec.theta, mode=spec.mode)
    got = run(SESSIONS[spec], cam, (192, 160))
    np.testing.assert_array_equal(got[2], want.threshold)
    assert np.abs(got[0].astype(int) - want.map).max() <= 1
    assert (got[1].astype(bool) != want.mask).sum() <= 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "constant", "zero", "overflow"])
def test_maps_without_evidence_localize_nothing(bad):
    cam = np.random.default_rng(1).normal(size=(1, 2, 5, 5)).astype(np.float32)
    if bad == "overflow":
        cam[0, 0, 0, 0], cam[0, 0, 1, 1] = 3e38, -3e38
    elif isinstance(bad, str):
        cam[0, 0] = 0 if bad == "zero" else 7.5
    else:
        cam[0, 0, 2, 3] = bad
    got = run(SESSIONS[SPECS[0]], cam, (15, 15))
    want = pas_reference(cam, (15, 15))
    assert not got[0][0, 0].any() and not got[1][0, 0].any() and got[2][0, 0] == 0
    assert not want.map[0, 0].any() and want.map[0, 1].any() and got[0][0, 1].any()


def test_runs_in_the_onnx_reference():
    from onnx.reference import ReferenceEvaluator

    cam = np.random.default_rng(5).gamma(1.0, 1.0, (1, 1, 9, 9)).astype(np.float32)
    got = ReferenceEvaluator(model_of(SPECS[0])).run(
        None, {"cam": cam, "like": np.zeros((1, 3, 9, 9), np.float32)}
    )
    want = pas_reference(cam, (9, 9))
    np.testing.assert_array_equal(np.asarray(got[1]).astype(bool), want.mask)


@pytest.mark.parametrize("theta", [0.0, 0.2, 0.29, 0.35, 1.0])
def test_bounds_are_those_of_the_float64_product(theta):
    bounds = threshold_bounds(theta)
    for numerator in np.random.default_rng(0).integers(0, 25_500_001, 2000):
        assert (numerator >= bounds).sum() == int(theta * (int(numerator) / 100_000))


def test_a_combination_without_a_body_is_refused():
    with pytest.raises(ExportError, match="precision"):
        attach(onnx.ModelProto(), PasSpec(precision="float"))
