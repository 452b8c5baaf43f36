"""The compiled lattice and mean field against numpy in float64, and against themselves."""

import threading

import numpy as np
import pytest
from lattice_reference import Kernel, image_features, mean_field, scene, softmax
from lidcam_rt._kernels import crf, use_isa

from lidcam_rt import _kernels
from lidcam_rt.crf import BilateralTerm, CrfOptions, DenseCRF, GaussianTerm
from lidcam_rt.crf.options import NORMALIZATIONS
from lidcam_rt.errors import InputError


@pytest.fixture(autouse=True)
def fastest():
    yield
    use_isa("auto")


def features(count, dimension, seed=0, scale=3.0):
    return (np.random.default_rng(seed).random((count, dimension)) * scale).astype(np.float32)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 5, 6, 7])
def test_filter_against_float64(dimension, normalization):
    f = features(403, dimension)
    lattice = crf.lattice(f, NORMALIZATIONS.index(normalization))
    reference = Kernel(f, normalization)
    assert lattice.vertices == reference.vertices
    values = np.random.default_rng(1).random((11, 403)).astype(np.float32)
    expected = reference(values)
    np.testing.assert_allclose(crf.filter(lattice, values), expected, rtol=5e-6, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("labels", [2, 3, 9, 40])
def test_mean_field_against_float64(labels):
    """Several terms, deviations per axis and channel, a number, a vector and a matrix as compatibility."""
    image, unary = scene(21, 34, labels)
    rng = np.random.default_rng(2)
    vector, matrix = rng.normal(size=labels), rng.normal(size=(labels, labels))
    options = CrfOptions(
        iterations=3,
        gaussian_sxy=(2.0, 4.0),
        bilateral_sxy=(20.0, 11.0),
        bilateral_srgb=(9.0, 14.0, 31.0),
        terms=(
            GaussianTerm(6.0, vector, "after"),
            BilateralTerm(9.0, 40.0, matrix, "before"),
            BilateralTerm((30.0, 20.0), 25.0, 1.5),
        ),
    )
    eye = np.eye(labels)
    terms = [
        (Kernel(image_features(image, (2, 4), None)), -3 * eye),
        (Kernel(image_features(image, (20, 11), (9, 14, 31))), -10 * eye),
        (Kernel(image_features(image, (6, 6), None), "after"), np.diag(vector)),
        (Kernel(image_features(image, (9, 9), (40, 40, 40)), "before"), (matrix + matrix.T) / 2),
        (Kernel(image_features(image, (30, 20), (25, 25, 25))), -1.5 * eye),
    ]
    expected = mean_field(unary.reshape(labels, -1), terms, 3).reshape(unary.shape)
    found = DenseCRF(options).infer(image, unary)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("labels", [2, 3, 4, 7, 8, 21, 32, 45])
@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_instruction_sets_give_the_same_bits(isa, labels):
    image, unary = scene(37, 41, labels)
    options = CrfOptions(iterations=4, terms=(GaussianTerm(5.0, 1.0, "before"),))
    expected = DenseCRF(options).infer(image, unary)
    try:
        use_isa(isa)
    except ValueError:
        pytest.skip(f"no {isa} here")
    assert _kernels.isa() == isa
    assert np.array_equal(DenseCRF(options).infer(image, unary), expected)


@pytest.mark.parametrize("dimension", [1, 3, 5, 7])
def test_wide_keys_change_nothing(dimension):
    f, values = features(500, dimension, scale=20), features(3, 500, 1)
    narrow, wide = crf.lattice(f), crf.lattice(f, wide=True)
    assert wide.wide and not narrow.wide
    assert (narrow.vertices, narrow.simplices) == (wide.vertices, wide.simplices)
    assert np.array_equal(crf.filter(narrow, values), crf.filter(wide, values))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "scale"), [(1, 1), (64, 3), (30000, 4), (30000, 60)])
def test_hash_tables_that_grow(count, scale):
    """Packed keys are looked up a block at a time and wide ones singly; the vertices are counted by numpy."""
    f, values = features(count, 5, scale=scale), features(2, count, 1)
    narrow, wide = crf.lattice(f), crf.lattice(f, wide=True)
    assert (narrow.vertices, narrow.simplices) == (wide.vertices, wide.simplices)
    assert narrow.vertices == Kernel(f).vertices
    assert np.array_equal(crf.filter(narrow, values), crf.filter(wide, values))


@pytest.mark.parametrize("sxy", [(0.02, 0.02), (1, 1), (3, 3), (0.5, 40), (200, 2)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (700, 1), (61, 83), (130, 127)])
def test_spatial_lattices_by_place(height, width, sxy):
    """A picture's x and y find their vertices by place (where that takes little memory), the same as rows by hash."""
    placed = crf.image_lattice(None, height, width, sxy)
    hashed = crf.lattice(image_features(np.zeros((height, width, 3)), sxy, None))
    assert (placed.vertices, placed.simplices) == (hashed.vertices, hashed.simplices)
    values = features(3, height * width)
    assert np.array_equal(crf.filter(placed, values), crf.filter(hashed, values))


def test_small_srgb_takes_the_wide_keys():
    """Packed keys end near srgb 0.7; every colour is then alone and the message is a pixel's own belief."""
    image, unary = scene(20, 30, 2)
    image = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    lattice = crf.image_lattice(image, 20, 30, [80, 80, 0.01, 0.01, 0.01])
    assert lattice.wide
    found = DenseCRF(CrfOptions(bilateral_srgb=0.01, gaussian_compat=0)).infer(image, unary)
    np.testing.assert_allclose(found.sum(0), 1, rtol=0, atol=1e-6)
    kernel = Kernel(image_features(image, (80, 80), (0.01, 0.01, 0.01)))
    expected = mean_field(unary.reshape(2, -1), [(kernel, -10 * np.eye(2))], 10).reshape(unary.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("labels", [2, 6])
def test_threads_give_the_same_bits(labels):
    sizes = [(30, 40), (25, 61), (30, 40), (48, 20), (33, 33)]
    images, unaries = zip(*(scene(*size, labels, seed) for seed, size in enumerate(sizes)), strict=True)
    probabilities = [softmax(u) for u in unaries]
    field = DenseCRF("irn")
    expected = [field.refine(i, p) for i, p in zip(images, probabilities, strict=True)]
    for threads in (1, 2, 4, None):
        crf.clear_cache()
        found = field.refine_batch(images, probabilities, threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_batch_refuses_other_lengths():
    image, unary = scene(8, 9, 2)
    with pytest.raises(InputError, match="one of each"):
        DenseCRF().refine_batch([image], [softmax(unary)] * 2)
    with pytest.raises(InputError, match="threads"):
        DenseCRF().refine_batch([image], [softmax(unary)], threads=0)
    assert DenseCRF().refine_batch([], []) == []


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_batch_ends_with_its_first_mistake(threads):
    """And leaves no thread behind."""
    image, unary = scene(8, 9, 2)
    good = softmax(unary)
    given = [good, good, good[:, :4], good, good.astype(int), *[good] * 20]
    before = threading.active_count()
    with pytest.raises(InputError, match=r"\[labels, 8, 9\], got float32 \(2, 4, 9\)"):
        DenseCRF("irn").refine_batch([image] * len(given), given, threads=threads)
    assert threading.active_count() == before


def test_an_interrupt_stops_a_batch(monkeypatch):
    image, unary = scene(8, 9, 2)
    calls = []

    def refine(self, *_, **__):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(DenseCRF, "refine", refine)
    count = 5_000  # far more than another thread gets through before the interrupt reaches it
    with pytest.raises(KeyboardInterrupt):
        DenseCRF().refine_batch([image] * count, [softmax(unary)] * count, threads=2)
    assert 3 <= len(calls) < count


def test_label_map_and_present_labels():
    image, _ = scene(24, 32, 3)
    labels = np.zeros((24, 32), np.uint8)
    labels[4:15, 6:20] = 9
    labels[20:] = 4
    found = DenseCRF("irn").refine(image, labels)
    assert found.dtype == np.uint8 and found.shape == labels.shape and set(np.unique(found)) <= {0, 4, 9}
    p = np.full((11, 24, 32), 1e-6, np.float32)
    for k in (0, 4, 9):
        p[k] = np.where(labels == k, 0.7, 0.15)
    q = DenseCRF("irn").refine(image, p, labels="present")
    assert np.array_equal(q, DenseCRF("irn").refine(image, p, labels=[0, 4, 9]))
    assert (q.argmax(0) == found).mean() > 0.999
    only = np.full((24, 32), 5, np.int64)
    assert np.array_equal(DenseCRF().refine(image, only), only)
    with pytest.raises(InputError, match="label map"):
        DenseCRF().refine(image, labels, labels=[0, 4])
    with pytest.raises(InputError, match="at least 2"):
        DenseCRF().refine(image, p, labels=[3])


def test_spatial_lattices_are_kept_and_bounded():
    crf.clear_cache()
    image, unary = scene(16, 18, 2)
    before = crf.cache_info()
    DenseCRF().infer(image, unary)
    DenseCRF().infer(image, unary)
    after = crf.cache_info()
    assert (after["lattices"], after["hits"] - before["hits"], after["misses"] - before["misses"]) == (1, 1, 1)
    for k in range(20):
        DenseCRF(CrfOptions(gaussian_sxy=1.0 + k)).infer(image, unary)
    assert crf.cache_info()["lattices"] == 8


@pytest.mark.parametrize("labels", [2, 5])
def test_tolerance(labels):
    """A result that stopped early is that of as many iterations."""
    image, unary = scene(30, 30, labels)
    terms = [([3.0, 3.0], [3.0], 3), ([80.0, 80.0, 13.0, 13.0, 13.0], [10.0], 3)]
    found, done = crf.infer(image, unary, terms, 50, 0.01)
    assert 1 < done < 50
    assert np.array_equal(found, crf.infer(image, unary, terms, done)[0])
    moved = np.abs(found - crf.infer(image, unary, terms, done - 1)[0]).max()
    assert moved <= 0.01 < np.abs(crf.infer(image, unary, terms, 1)[0] - crf.infer(image, unary, terms, 0)[0]).max()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: crf.filter(crf.lattice(features(40, 2)), np.zeros((2, 41), np.float32)), "pixels"),
        (lambda: crf.lattice(features(40, 8)), "1 to 7"),
        (lambda: crf.lattice(features(40, 0)), "1 to 7"),
        (lambda: crf.lattice(features(0, 2)), "pixels"),
        (lambda: crf.lattice(features(40, 2), 4), "normalization"),
        (lambda: crf.lattice(features(40, 2) * np.float32("nan")), "not finite"),
        (lambda: crf.lattice(features(40, 2) * np.float32(1e9)), "500000"),
        (lambda: crf.image_lattice(None, 4, 5, [1, 1, 1, 1, 1]), "needs an image"),
        (lambda: crf.image_lattice(None, 4, 5, [1, 1, 1]), "2 or 5"),
        (lambda: crf.image_lattice(None, 4, 5, [1, 0]), "> 0"),
        (lambda: crf.image_lattice(None, 0, 5, [1, 1]), "pixels"),
        (lambda: crf.image_lattice(np.zeros((3, 5, 3), np.uint8), 4, 5, [1] * 5), "size"),
        (lambda: crf.mean_field(features(1, 9), [], 1), "labels"),
        (lambda: crf.mean_field(features(2, 9), [(crf.lattice(features(9, 2)), [1, 2, 3])], 1), "compat"),
        (lambda: crf.mean_field(features(2, 9), [(crf.lattice(features(9, 2)), [np.nan])], 1), "compat"),
        (lambda: crf.mean_field(features(2, 9), [(crf.lattice(features(8, 2)), [1])], 1), "pixels"),
        (lambda: crf.mean_field(features(2, 9), [], -1), "iterations"),
        (lambda: crf.mean_field(features(2, 9), [], 1, float("nan")), "tolerance"),
        (lambda: crf.infer(None, np.full((2, 3, 4), np.inf, np.float32), [], 1), "unary"),
        (lambda: use_isa("mmx"), "mmx"),
    ],
)
def test_bindings_refuse(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gaussian_sxy": 0}, "gaussian_sxy"),
        ({"gaussian_sxy": (1, 2, 3)}, "gaussian_sxy"),
        ({"bilateral_sxy": -1.0}, "bilateral_sxy"),
        ({"bilateral_srgb": (1, 2)}, "bilateral_srgb"),
        ({"bilateral_srgb": float("nan")}, "bilateral_srgb"),
        ({"gaussian_compat": -1}, "gaussian_compat"),
        ({"gaussian_compat": [[1, 2]]}, "gaussian_compat"),
        ({"bilateral_compat": "x"}, "bilateral_compat"),
        ({"normalization": "both"}, "normalization"),
        ({"terms": (3,)}, "terms"),
        ({"iterations": 1.5}, "iterations"),
        ({"tolerance": -1}, "tolerance"),
        ({"gt_prob": 1}, "gt_prob"),
    ],
)
def test_options_refuse(options, says):
    with pytest.raises(InputError, match=says):
        CrfOptions(**options)


def test_arrays_must_fit_the_labels():
    image, unary = scene(8, 9, 3)
    with pytest.raises(InputError, match="2 labels"):
        DenseCRF(CrfOptions(gaussian_compat=(1.0, 2.0))).infer(image, unary)
