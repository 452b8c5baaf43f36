"""The CUDA kernels of PaS, run by the CPU shim, against the reference: bit for bit."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lidcam_rt.pas import PasOptions, pas, pas_reference
from lidcam_rt.pas.options import INTERPOLATIONS, MODES, PRECISIONS, WHERES

pytestmark = pytest.mark.slow  # not in make quick

COMBINATIONS = list(itertools.product(MODES, PRECISIONS, WHERES, INTERPOLATIONS))
FIXED_BYTES = 9984
KINDS = ["plain", "huge", "largest", "denormal", "nan", "inf", "constant", "ties", "step", "zeros"]


class Args(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int)
        for name in ("h", "w", "height", "width", "percentile_milli", "theta_micro", "flags", "shared_bytes")
    ]


def address(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def run(kernels, cam, size, combination, percentile=98.0, theta=0.35, threads=64, cluster=1, shared=49152, order=0,
        seed=0, words=None):  # fmt: skip
    cam = np.ascontiguousarray(cam, np.float32)
    n, k, h, w = cam.shape
    milli, micro, flags = PasOptions(percentile, theta, *combination).kernel_integers()
    args = Args(h, w, *size, milli, micro, flags | (words == np.int32) << 4, shared)
    map8 = np.full((n, k, *size), 7, words or np.uint8)
    mask, threshold = map8.copy(), np.full((n, k), -9, np.float32)
    results = address(map8), address(mask), address(threshold)
    how = order, ctypes.c_uint64(seed)
    if words:
        kernels.run_pas_aot(address(cam), n * k, ctypes.byref(args), threads, *how, *results)
    else:
        kernels.run_pas(address(cam), n * k, ctypes.byref(args), threads, cluster, *how, *results)
    return map8, mask, threshold


def options(combination, percentile=98.0, theta=0.35):
    return PasOptions(percentile, theta, *combination)


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def cams(draw, side=40):
    shape = (1, draw(st.integers(1, 2)), draw(st.integers(1, side)), draw(st.integers(1, side)))
    cam = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal(shape).astype(np.float32)
    kind = draw(st.sampled_from(KINDS))
    with np.errstate(over="ignore"):
        if kind == "huge":
            cam *= np.float32(1e38)
        elif kind == "largest":
            cam = np.where(cam > 0, np.float32(3.4e38), np.float32(-3.4e38))
        elif kind == "denormal":
            cam *= np.float32(1e-42)
        elif kind in ("nan", "inf"):
            cam.flat[cam.size // 2] = float(kind)
        elif kind == "constant":
            cam[...] = draw(st.floats(-(2.0**100), 2.0**100, width=32))
        elif kind == "ties":
            cam = np.round(cam)
        elif kind == "step":
            cam = np.where(cam > 1.5, np.float32(1), np.float32(0))
        elif kind == "zeros":
            cam = np.where(cam > 1, np.float32(1), np.copysign(np.float32(0), cam))
    return cam


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cams(), st.tuples(st.integers(1, 110), st.integers(1, 110)), st.floats(0, 100), st.floats(0, 1),
    st.sampled_from(COMBINATIONS), st.sampled_from([32, 64, 96]), st.sampled_from([1, 1, 2, 4]),
    st.sampled_from([FIXED_BYTES, 11000, 49152]), st.integers(0, 2), st.integers(0, 1000),
)  # fmt: skip
def test_kernel_equals_reference(
    kernels, cam, size, percentile, theta, combination, threads, cluster, shared, order, seed
):
    found = run(kernels, cam, size, combination, percentile, theta, threads, cluster, shared, order, seed)
    same(found, pas_reference(cam, size, options(combination, percentile, theta)))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cams(96), st.tuples(st.integers(1, 1024), st.integers(1, 1024)), st.floats(0, 100), st.floats(0, 1),
    st.sampled_from(COMBINATIONS), st.sampled_from([1, 8]), st.sampled_from([FIXED_BYTES, 49152, 101376]),
)  # fmt: skip
def test_kernel_equals_reference_at_large_sizes(kernels, cam, size, percentile, theta, combination, cluster, shared):
    found = run(kernels, cam, size, combination, percentile, theta, 128, cluster, shared)
    same(found, pas_reference(cam, size, options(combination, percentile, theta)))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cams(), st.tuples(st.integers(1, 80), st.integers(1, 80)), st.sampled_from(COMBINATIONS),
    st.sampled_from([np.float32, np.int32]), st.sampled_from([FIXED_BYTES, 49152]), st.integers(0, 2),
)  # fmt: skip
def test_ahead_of_time_kernel_equals_reference(kernels, cam, size, combination, words, shared, order):
    found = run(kernels, cam, size, combination, 90.0, 0.35, shared=shared, order=order, words=words)
    same(found, pas_reference(cam, size, options(combination, 90.0)))


# int(theta P) where theta P is a whole number in exact arithmetic: the rounding of float64 decides.
@pytest.mark.parametrize("theta", [0.1, 0.2, 0.29, 0.35, 0.55, 0.57, 0.58, 0.7, 1.0])
def test_whole_thresholds(kernels, theta):
    cam = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)
    for percentile in range(0, 101, 4):
        for combination in (COMBINATIONS[0], ("normalize", "uint8", "resized", "cubic")):
            found = run(kernels, cam, (16, 16), combination, float(percentile), theta, threads=32)
            same(found, pas_reference(cam, (16, 16), options(combination, percentile, theta)))


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_kernel_equals_cpu_kernel_at_full_size(kernels, combination):
    number = COMBINATIONS.index(combination)
    cam = np.random.default_rng(number).gamma(1.0, size=(1, 1, 24, 23)).astype(np.float32)
    size = [(384, 352), (353, 384), (231, 1024)][number % 3]
    found = run(kernels, cam, size, combination, threads=256 + 256 * (number % 2), cluster=[1, 8][number // 2 % 2])
    same(found, pas(cam, size, options(combination)))


# In 8 blocks of 512 threads, a thread has 4 values of 96x96: with all the shared memory they stay in registers; with
# room for the weights and the map alone each is made from the map; with no room, weights too. In 2 blocks of 64 threads
# it has 72, made from the resized rows.
@pytest.mark.parametrize(("cluster", "threads", "shared"), [
    (8, 512, 49152), (8, 512, FIXED_BYTES + 640 + 2304), (8, 512, FIXED_BYTES), (2, 64, 49152),
])  # fmt: skip
def test_every_way_to_the_values(kernels, cluster, threads, shared):
    cam = np.random.default_rng(5).gamma(1.0, size=(1, 1, 24, 24)).astype(np.float32)
    for combination in COMBINATIONS:
        found = run(kernels, cam, (96, 96), combination, threads=threads, cluster=cluster, shared=shared)
        same(found, pas(cam, (96, 96), options(combination)))


# Bytes at both sides of every step: the division decides where the two factors differ.
def test_bytes_next_to_a_step(kernels):
    steps = np.arange(256, dtype=np.float32) / np.float32(255)
    for scale in (1.0, 3.7, 1e-3, 7e29, 2e-31, 1e-40):
        values = np.concatenate([np.nextafter(steps, np.float32(-1)), steps, np.nextafter(steps, np.float32(2))])
        cam = (values.clip(0, 1) * np.float32(scale)).reshape(1, 1, 16, 48)
        for precision in PRECISIONS:
            combination = ("threshold", precision, "resized", "linear")
            same(run(kernels, cam, (16, 48), combination), pas(cam, (16, 48), options(combination)))


@pytest.mark.parametrize(
    ("shape", "size"), [((96, 96), (60, 70)), ((130, 90), (5, 9)), ((1, 1), (9, 9)), ((2, 1), (300, 1))]
)
def test_shapes_that_leave_shared_memory_or_have_one_pixel(kernels, shape, size):
    cam = np.random.default_rng(1).random((1, 2, *shape), np.float32)
    for combination in COMBINATIONS[::3]:
        same(run(kernels, cam, size, combination, shared=20000), pas(cam, size, options(combination)))
