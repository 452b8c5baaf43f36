"""The function body of PaS against the reference: in ONNX Runtime, oldest and newest, and in onnx.reference.

The newest supported version is the one that these tests run in; the oldest is installed into a folder of its own.
"""

import json
import math
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
from lidcam_export.graph.body import Body
from lidcam_export.graph.operator import OPSET, attach, pas_node, write_out
from lidcam_export.graph.percentile import (
    WHOLE,
    Percentile,
    levels_reached,
    quotient_of,
    radix_of,
    threshold_bounds,
)
from lidcam_export.graph.statistics import MAX_SIDE, byte_percentile, rank_of
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


class Part:
    """A part of the body as a model of its own: `build(body)` gives the tensors that are wanted of the inputs."""

    def __init__(self, build, **inputs: int):
        body = Body()
        self.wanted = build(body)
        values = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()]
        graph = helper.make_graph(body.nodes, "part", values, [])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        inferred = onnx.shape_inference.infer_shapes(model)
        model.graph.output.extend(v for v in inferred.graph.value_info if v.name not in inputs)
        self.session = ort.InferenceSession(model.SerializeToString())
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, **inputs):
        """The tensors wanted, and all tensors by name."""
        tensors = dict(zip(self.names, self.session.run(None, inputs), strict=True))
        return [tensors[name] for name in self.wanted], tensors


RANK_PERCENTILES = (0.0, 0.001, 5.0, 37.3, 50.0, 90.0, 97.123, 98.0, 99.999, 100.0)


@pytest.mark.parametrize("percentile", RANK_PERCENTILES)
def test_the_rank_is_exact_and_no_number_leaves_the_exact_range_of_float32(percentile):
    """For every allowed size; OpenVINO computes int64 in int32, so that larger products gave wrong masks in silence."""
    names = ("lower", "upper", "mirrored")

    def build(b):
        rank = rank_of(b, "size", percentile)
        return [digit for name in names for digit in getattr(rank, name)] + [rank.rest]

    part = Part(build, size=TensorProto.INT64)
    rng = np.random.default_rng(0)
    random = np.exp(rng.uniform(0, np.log(MAX_SIDE), (300, 2))).astype(np.int64)
    edges = [(1, 1), (1, 2), (384, 384), (MAX_SIDE, MAX_SIDE), (MAX_SIDE, 1), (1, MAX_SIDE), (MAX_SIDE - 1,) * 2]
    for height, width in [*edges, *random.tolist()]:
        digits, tensors = part(size=np.array([height, width]))
        lower, upper, mirrored = (64 * int(digits[i]) + int(digits[i + 1]) for i in (0, 2, 4))
        position, count = round(percentile * 1000) * (height * width - 1), height * width
        assert (lower, int(digits[6])) == (position // 100_000 + 1, position % 100_000)
        assert (upper, mirrored) == (lower + 1, count + 1 - lower)
        assert max(np.abs(value).max() for value in tensors.values()) <= 2**24


@pytest.mark.slow
@pytest.mark.parametrize("percentile", [98.0, 97.123, 37.3, 50.0, 99.999])
def test_the_percentile_of_bytes_is_rounded_once(percentile):
    """As np.float32(numerator / 100000) is, for all pairs of levels; numerators go up to 25,500,000 > 2^24."""
    parts = WHOLE // math.gcd(round(percentile * 1000), WHOLE)
    radix = radix_of(parts)
    rng = np.random.default_rng(0)
    lower = rng.integers(0, 256, 500_000)
    span = (rng.integers(0, 256, 500_000) * (rng.random(500_000) < 0.5)).clip(max=255 - lower)
    rest = rng.integers(0, parts, 500_000)
    high = lower * (parts // radix) + span * (rest // radix)
    low = span * (rest % radix)
    shape = (1, -1, 1, 1)
    inputs = {"high": high.astype(np.float32).reshape(shape), "low": low.astype(np.float32).reshape(shape)}
    numerator = lower * parts + span * rest
    assert np.array_equal(numerator, radix * high + low) and (parts < WHOLE or numerator.max() > 2**24)
    percentile_of = Percentile("high", "low", radix, parts)
    theta = 0.37
    part = Part(
        lambda b: [quotient_of(b, percentile_of), levels_reached(b, percentile_of, theta)],
        high=TensorProto.FLOAT, low=TensorProto.FLOAT,
    )  # fmt: skip
    (quotient, levels), _ = part(**inputs)
    np.testing.assert_array_equal(quotient.ravel(), (numerator / parts).astype(np.float32))
    np.testing.assert_array_equal(levels.ravel(), (theta * (numerator / parts)).astype(int))


@pytest.mark.slow
def test_more_pixels_than_float32_counts_are_counted_exactly():
    """20,001 x 1,001 > 2^24: the rank moves from one level to the next with one pixel."""
    height, width = 20_001, 1_001
    levels = np.zeros((1, 1, height, width), np.float32)

    def build(b):
        return [byte_percentile(b, "levels", rank_of(b, "size", 50.0), 50.0, b("ReduceMin", "levels", b.hw)).high]

    part = Part(build, levels=TensorProto.FLOAT, size=TensorProto.INT64)
    half = height * width // 2 + 1  # the middle one of an odd number
    for ones, expected in ((half, 7), (half - 1, 0)):
        levels[:] = 0
        levels.reshape(-1)[:ones] = 7
        (median,), _ = part(levels=levels, size=np.array([height, width]))
        assert median == expected == np.median(levels)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_openvino_gives_the_masks_of_the_reference(spec):
    """Written out. It fuses a product with the division before it, so that a byte in 100,000 may be off by one."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    network = core.read_model(write_out(model_of(spec)).SerializeToString())
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for height, width in ((320, 320), (384, 384), (33, 57), (1, 1), (1200, 900)):
        cam = np.random.default_rng(height).gamma(0.7, 1.0, (1, 2, height, width)).astype(np.float32)
        cam[0, 1] = np.round(4 * cam[0, 1])
        results = compiled({"cam": cam, "like": np.zeros((1, 3, height, width), np.float32)})
        expected = pas_reference(cam, (height, width), spec)
        assert np.abs(results[0].astype(int) - expected.map).max() <= 1
        assert (results[0] != expected.map).mean() < 1e-4
        assert (results[1].astype(bool) != expected.mask).mean() < 1e-5
        np.testing.assert_allclose(results[2], expected.threshold, rtol=1e-6)


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
        program = "from lidcam_cli.main import main; main()"
        command = [sys.executable, "-c", program, "inspect", str(model), "--json"]
        shown = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
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
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
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
