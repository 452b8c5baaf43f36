"""The function body of PaS against the reference: in ONNX Runtime, oldest and newest, and in onnx.reference.

The newest supported version is the one that these tests run in; the oldest is installed into a folder of its own.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidcam_export.graph.operator import OPSET, attach, pas_node, threshold_bounds
from onnx import TensorProto, helper

from lidcam_rt.pas import PasOptions, pas, pas_reference, resize_reference


def model_of(spec: PasOptions) -> onnx.ModelProto:
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
    PasOptions(percentile=p, theta=t, mode=m)
    for p, t, m in (
        (98.0, 0.35, "threshold"),
        (90.0, 0.35, "threshold"),
        (100.0, 0.2, "threshold"),
        (98.0, 0.3, "normalize"),
    )
]
SPECS += [
    PasOptions(percentile=p, theta=0.35, mode=m, precision=precision, where=where, interpolation=i)
    for p, m, precision, where, i in (
        (98.0, "threshold", "float", "resized", "cubic"),
        (90.5, "normalize", "float", "resized", "linear"),
        (98.0, "threshold", "float", "raw", "linear"),
        (37.3, "threshold", "uint8", "raw", "cubic"),
        (98.0, "normalize", "uint8", "raw", "cubic"),
        (5.0, "threshold", "float", "raw", "cubic"),
        (5.0, "normalize", "uint8", "resized", "linear"),
    )
]
IDS = ["-".join(str(value) for value in asdict(spec).values()) for spec in SPECS]
SESSIONS = {spec: ort.InferenceSession(model_of(spec).SerializeToString()) for spec in SPECS}


OLDEST = "1.18.1"


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
@given(
    st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60),
    st.sampled_from(["plain", "ties", "decades", "negative", "denormal", "huge", "sparse", "constant"]),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_equals_the_reference_on_a_grid_of_its_own_size(spec, seed, height, width, kind):
    """Without a resize the same floats go in: everything is equal, to the bit."""
    rng = np.random.default_rng(seed)
    cam = rng.standard_normal((2, 2, height, width)).astype(np.float32)
    with np.errstate(over="ignore"):
        if kind == "ties":
            cam = np.round(cam)
        elif kind == "decades":
            cam = np.exp(cam * 20)
        elif kind == "negative":
            cam = -np.exp(cam * 5)
        elif kind == "denormal":
            cam *= np.float32(1e-42)
        elif kind == "huge":
            cam *= np.float32(1e38)
        elif kind == "sparse":
            cam = np.where(cam > 1, cam, np.float32(3e-39))
        elif kind == "constant":
            cam[0, 0] = 0.1
    want = pas_reference(cam, (height, width), spec)
    got = run(SESSIONS[spec], cam, (height, width))
    np.testing.assert_array_equal(got[0], want.map)
    np.testing.assert_array_equal(got[1].astype(bool), want.mask)
    np.testing.assert_array_equal(got[2], want.threshold)


def test_resized_maps_differ_in_at_most_one_mask_pixel_of_a_million():
    """ONNX Runtime's resize rounds in another order than ours: a byte may fall to the other side of a step."""
    rng = np.random.default_rng(3)
    flipped = pixels = 0
    for spec, session in SESSIONS.items():
        for size in ((192, 160), (333, 250)):
            cam = rng.gamma(0.7, 1.0, (4, 1, 12, 13)).astype(np.float32)
            want = pas(cam, size, spec)
            got = run(session, cam, size)
            np.testing.assert_allclose(got[2], want.threshold, rtol=1e-4)
            # normalize and bytes: a step of the standard by one level moves the map by a few
            assert np.abs(got[0].astype(int) - want.map).max() <= 2
            flipped += int((got[1].astype(bool) != want.mask).sum())
            pixels += want.mask.size
    assert pixels > 4e6
    assert flipped <= pixels / 1e6


@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_the_resizes_of_torch_and_onnxruntime_are_within_their_ulps_of_ours(interpolation):
    """They keep source positions in float32: exact at whole factors, tens of ulps elsewhere (docs/operator.md)."""
    import torch

    node = helper.make_node(
        "Resize", ["x", "", "", "size"], ["y"], mode=interpolation, coordinate_transformation_mode="half_pixel",
        cubic_coeff_a=-0.75,
    )  # fmt: skip
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, [1, 1, "h", "w"]), info("size", TensorProto.INT64, [4])]
    graph = helper.make_graph([node], "resize", inputs, [info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString())
    for h, w, height, width, most in ((24, 24, 384, 384, 5), (7, 7, 224, 224, 5), (17, 13, 333, 250, 60)):
        x = np.random.default_rng(h).standard_normal((1, 1, h, w)).astype(np.float32)
        ours = resize_reference(x, (height, width), interpolation).astype(np.float64)
        mode = {"cubic": "bicubic", "linear": "bilinear"}[interpolation]
        theirs = torch.nn.functional.interpolate(torch.from_numpy(x), (height, width), mode=mode, align_corners=False)
        engine = session.run(None, {"x": x, "size": np.array([1, 1, height, width])})[0]
        for peer in (theirs.numpy(), engine):
            assert np.abs(peer - ours).max() <= most * np.spacing(np.abs(x).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "constant", "zero", "overflow"])
@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_maps_without_evidence_localize_nothing(spec, bad):
    cam = np.random.default_rng(1).normal(size=(1, 2, 5, 5)).astype(np.float32)
    if bad == "overflow":
        cam[0, 0, 0, 0], cam[0, 0, 1, 1] = 3e38, -3e38
    elif isinstance(bad, str):
        cam[0, 0] = 0 if bad == "zero" else 7.5
    else:
        cam[0, 0, 2, 3] = bad
    got = run(SESSIONS[spec], cam, (15, 15))
    want = pas_reference(cam, (15, 15), spec)
    assert not got[0][0, 0].any() and not got[1][0, 0].any() and got[2][0, 0] == 0
    assert not want.map[0, 0].any() and want.map[0, 1].any() and got[0][0, 1].any()


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_runs_in_the_onnx_reference(spec):
    from onnx.reference import ReferenceEvaluator

    cam = np.random.default_rng(5).gamma(1.0, 1.0, (1, 1, 9, 9)).astype(np.float32)
    got = ReferenceEvaluator(model_of(spec)).run(None, {"cam": cam, "like": np.zeros((1, 3, 9, 9), np.float32)})
    want = pas_reference(cam, (9, 9), spec)
    np.testing.assert_array_equal(np.asarray(got[0]), want.map)
    np.testing.assert_array_equal(np.asarray(got[1]).astype(bool), want.mask)
    np.testing.assert_array_equal(np.asarray(got[2]), want.threshold)


@pytest.mark.parametrize("theta", [0.0, 0.2, 0.29, 0.35, 1.0])
def test_bounds_are_those_of_the_float64_product(theta):
    bounds = threshold_bounds(theta)
    for numerator in np.random.default_rng(0).integers(0, 25_500_001, 2000):
        assert (numerator >= bounds).sum() == int(theta * (int(numerator) / 100_000))


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_with_the_library_the_kernel_runs_instead_of_the_body(library, spec):
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(library))
    session = ort.InferenceSession(model_of(spec).SerializeToString(), options)
    cam = np.random.default_rng(7).gamma(0.7, 1.0, (2, 1, 12, 13)).astype(np.float32)
    for got, want in zip(run(session, cam, (101, 67)), pas_reference(cam, (101, 67), spec), strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_runtime_registers_the_library_and_inspect_names_the_form(library, tmp_path):
    import lidcam_rt

    sys.path.insert(0, str(Path(__file__).parents[1]))
    import artifacts

    model = artifacts.build(tmp_path / "node.onnx", pas_node=True)
    forms, found = [], []
    for switch in ("", "off"):
        environment = os.environ | {"LIDCAM_OPS": switch}
        program = "from lidcam_rt.cli.main import main; main()"
        command = [sys.executable, "-c", program, "inspect", str(model), "--json"]
        shown = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert shown.returncode == 0, shown.stderr
        forms.append(json.loads(shown.stdout)["operator"])
    assert forms[0] == "kernel of the operator library"
    assert "standard operators" in forms[1]
    for switch in ("", "off"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIDCAM_OPS", switch)
            with lidcam_rt.load(model) as localizer:
                assert localizer.backend.ops_registered == (switch == "")
                found.append(localizer(artifacts.picture("green")))
    assert found[0].box == found[1].box
    np.testing.assert_array_equal(found[0].mask, found[1].mask)
    np.testing.assert_allclose(found[0].map, found[1].map, atol=1)  # the engine's own resize


OLD_SCRIPT = """
import sys
import numpy as np, onnxruntime as ort
library, folder, count = sys.argv[1:]
for i in range(int(count)):
    for registered in (True, False):
        options = ort.SessionOptions()
        if registered:
            options.register_custom_ops_library(library)
        session = ort.InferenceSession(f"{folder}/{i}.onnx", options, providers=["CPUExecutionProvider"])
        data = np.load(f"{folder}/{i}.npz")
        for name, got in zip(("map", "mask", "threshold"), session.run(None, {n: data[n] for n in ("cam", "like")})):
            assert np.array_equal(got, data[name]), (i, registered, name)
print(count, "equal in", ort.__version__)
"""


@pytest.mark.slow
def test_the_oldest_onnxruntime(library, tmp_path):
    """Both forms: the library is built with one version of the interface, and the body uses opset 18 only."""
    place = old_onnxruntime(tmp_path)
    for i, spec in enumerate(SPECS):
        cam = np.random.default_rng(i).gamma(0.7, 1.0, (2, 2, 20, 17)).astype(np.float32)
        want = pas_reference(cam, (20, 17), spec)
        (tmp_path / f"{i}.onnx").write_bytes(model_of(spec).SerializeToString())
        like = np.zeros((2, 3, 20, 17), np.float32)
        np.savez(tmp_path / f"{i}.npz", cam=cam, like=like, **want._asdict())
    command = [sys.executable, "-c", OLD_SCRIPT, str(library), str(tmp_path), str(len(SPECS))]
    environment = os.environ | {"PYTHONPATH": str(place)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0, result.stderr
    assert f"{len(SPECS)} equal in {OLDEST}" in result.stdout


def old_onnxruntime(folder):
    """A folder with the oldest ONNX Runtime and a numpy of its time; skips where they cannot be installed."""
    place, python = folder / "old", sys.executable
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        python = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--target", str(place), f"onnxruntime=={OLDEST}", "numpy==1.26.4"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"onnxruntime {OLDEST} cannot be installed here: {error}")
    if result.returncode:
        pytest.skip(f"onnxruntime {OLDEST} cannot be installed here: {result.stderr.strip()[-200:]}")
    return place
