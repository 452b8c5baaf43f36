"""The CUDA kernels of components, run by the CPU shim: the boxes of the CPU kernel, and of OpenCV's resize."""

from __future__ import annotations

import ctypes

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lidcam_rt.boxes import largest_box
from lidcam_rt.pas import PasOptions, pas


def address(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def boxes(kernels, masks, by="contour", shared=49152, threads=64, order=0, seed=0):
    masks = np.ascontiguousarray(masks).view(np.uint8)
    out = np.full((len(masks), 4), -7, np.int32)
    kernels.run_boxes(
        address(masks), *masks.shape, int(by == "pixels"), shared, threads, order, ctypes.c_uint64(seed), address(out)
    )
    return out.tolist()


def boxes_at_size(kernels, maps, levels, size, by="contour", shared=49152, threads=64, order=0, seed=0):
    maps, levels = np.ascontiguousarray(maps), np.asarray(levels, np.float32)
    out = np.full((len(maps), 4), -7, np.int32)
    kernels.run_boxes_at_size(
        address(maps), address(levels), *maps.shape, *size, int(by == "pixels"), shared, threads, order,
        ctypes.c_uint64(seed), address(out),
    )  # fmt: skip
    return out.tolist()


def expected(mask, by):
    box = largest_box(mask, by=by)
    return [-1] * 4 if box is None else list(box)


@st.composite
def values(draw, side=48):
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
    v = np.random.default_rng(draw(st.integers(0, 2**32))).random((height, width))
    for _ in range(draw(st.integers(0, 3))):  # smoother: larger components, holes
        v = cv2.blur(v, (3, 3)).reshape(height, width)
    return v


SCHEDULE = (
    st.sampled_from(["contour", "pixels"]), st.sampled_from([700, 1200, 3000, 49152]), st.sampled_from([32, 64, 128]),
    st.integers(0, 2), st.integers(0, 1000),
)  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values(), st.floats(0, 1), *SCHEDULE)
def test_boxes_of_the_cpu_kernel(kernels, v, share, by, shared, threads, order, seed):
    mask = v > np.quantile(v, share)
    masks = np.stack([mask, mask[::-1], ~mask])
    found = boxes(kernels, masks, by, shared, threads, order, seed)
    assert found == [expected(m, by) for m in masks]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values(), st.sampled_from([-1.0, 40.0, 254.5]), st.tuples(st.integers(1, 96), st.integers(1, 96)), *SCHEDULE)
def test_boxes_at_another_size_are_those_after_cv2_resize(kernels, v, level, size, by, shared, threads, order, seed):
    map8 = (v / v.max() * 255).astype(np.uint8)
    full = cv2.resize(map8, size[::-1], interpolation=cv2.INTER_LINEAR)
    found = boxes_at_size(kernels, map8[None], [level], size, by, shared, threads, order, seed)
    assert found == [expected(full > level, by)]


def test_sizes_that_opencv_treats_apart(kernels):
    rng = np.random.default_rng(2)
    for h, w, size in ((20, 30, (10, 15)), (20, 30, (20, 30)), (21, 30, (10, 15)), (1, 9, (40, 90)), (64, 1, (128, 7))):
        map8 = cv2.blur(rng.integers(0, 256, (h, w)).astype(np.uint8), (3, 3)).reshape(h, w)
        full = cv2.resize(map8, size[::-1], interpolation=cv2.INTER_LINEAR)
        assert boxes_at_size(kernels, map8[None], [127], size) == [expected(full > 127, "contour")]


def test_masks_of_pas_at_full_size(kernels):
    rng = np.random.default_rng(3)
    cam = np.stack([cv2.GaussianBlur(rng.standard_normal((24, 24)).astype(np.float32), (7, 7), 2) for _ in range(4)])
    result = pas(cam[:, None], (384, 384), PasOptions(90, 0.35))
    masks = result.mask[:, 0]
    for by in ("contour", "pixels"):
        assert boxes(kernels, masks, by, threads=512) == [expected(m, by) for m in masks]
    size = (375, 500)
    levels = result.threshold[:, 0]
    full = [cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in result.map[:, 0]]
    found = boxes_at_size(kernels, result.map[:, 0], levels, size, threads=512)
    assert found == [expected(m > level, "contour") for m, level in zip(full, levels, strict=True)]


def test_the_most_runs_a_mask_can_have(kernels):
    mask = np.zeros((70, 131), bool)
    mask[:, ::2] = True
    checker = np.indices((64, 96)).sum(0) % 2 == 0
    rings = np.zeros((65, 65), bool)
    for i in range(0, 32, 2):
        rings[i : 65 - i, i : 65 - i] = True
        rings[i + 1 : 64 - i, i + 1 : 64 - i] = False
    for m in (mask, checker, rings, ~rings, np.ones((3, 1000), bool), np.zeros((5, 5), bool)):
        for by in ("contour", "pixels"):
            assert boxes(kernels, m[None], by) == [expected(m, by)]
