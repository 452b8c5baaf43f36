"""The drop-in against pydensecrf where it is installed, and its refusals everywhere."""

import contextlib
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lidcam_crf import densecrf, utils
from lidcam_rt.crf import CrfOptions, DenseCRF
from lidcam_rt.errors import InputError

DERANDOMIZED = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def fields(draw):
    """A random problem: sizes, unary, image, terms, iterations."""
    width, height, labels = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    unary = (rng.normal(size=(labels, width * height)) * draw(st.sampled_from([0.1, 1.0, 3.0]))).astype(np.float32)
    # blocks of colour with a little noise, so that pixels share simplices as in a photo
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    image = np.clip(blocks + rng.integers(-9, 10, (height, width, 3)), 0, 255).astype(np.uint8)
    per_axis = draw(st.booleans())
    sxy = tuple(rng.uniform(0.5, 60, 2)) if per_axis else float(rng.uniform(0.5, 60))
    srgb = tuple(rng.uniform(3, 50, 3)) if per_axis else float(rng.uniform(3, 50))
    compat = draw(st.sampled_from(["potts", "negative", "diagonal", "matrix"]))
    value = {
        "potts": float(rng.uniform(0, 10)),
        "negative": -float(rng.uniform(0, 3)),
        "diagonal": rng.normal(size=labels).astype(np.float32),
        "matrix": rng.normal(size=(labels, labels)).astype(np.float32),
    }[compat]
    return width, height, labels, unary, image, sxy, srgb, value, draw(st.sampled_from([1, 2, 3])), draw(
        st.integers(0, 6)
    )


def build(module, problem):
    width, height, labels, unary, image, sxy, srgb, compat, kind, _ = problem
    field = module.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(unary)
    kind = module.NormalizationType(kind)
    field.addPairwiseGaussian(sxy=sxy, compat=3, kernel=module.CONST_KERNEL, normalization=kind)
    field.addPairwiseBilateral(
        sxy=sxy, srgb=srgb, rgbim=image, compat=compat, kernel=module.FULL_KERNEL, normalization=kind
    )
    return field


def assert_same(found, expected):
    assert np.abs(found - expected).max() <= 1e-5
    sure = np.sort(expected, 0)[-1] - np.sort(expected, 0)[-2] > 2e-5
    assert (found.argmax(0) == expected.argmax(0))[sure].all()


@DERANDOMIZED
@given(fields())
def test_inference_is_pydensecrfs(problem):
    oracle = pytest.importorskip("pydensecrf.densecrf")
    q = build(densecrf, problem).inference(problem[-1])
    assert isinstance(q, np.ndarray) and q.dtype == np.float32 and q.flags.c_contiguous
    assert_same(q, np.array(build(oracle, problem).inference(problem[-1])))


@DERANDOMIZED
@given(fields())
def test_steps_and_divergence_are_pydensecrfs(problem):
    oracle = pytest.importorskip("pydensecrf.densecrf")
    ours, theirs = build(densecrf, problem), build(oracle, problem)
    q, a, b = ours.startInference()
    expected, c, d = theirs.startInference()
    for _ in range(problem[-1]):
        ours.stepInference(q, a, b)
        theirs.stepInference(expected, c, d)
    assert_same(q, np.array(expected))
    assert ours.klDivergence(q) == pytest.approx(theirs.klDivergence(expected), rel=2e-4, abs=1e-4 * q[0].size)


@DERANDOMIZED
@given(fields())
def test_steps_are_inference(problem):
    field = build(densecrf, problem)
    q, a, b = field.startInference()
    for _ in range(problem[-1]):
        field.stepInference(q, a, b)
    assert_same(q, field.inference(problem[-1]))


def test_no_normalization_leaves_the_kernel_alone():
    """Its messages grow with the number of alike pixels: energies are compared, Q is a step function of them."""
    oracle = pytest.importorskip("pydensecrf.densecrf")
    rng = np.random.default_rng(1)
    unary, flat = rng.normal(size=(2, 60 * 50)).astype(np.float32), np.full((50, 60, 3), 90, np.uint8)
    logits = []
    for module in (oracle, densecrf):
        field = module.DenseCRF2D(60, 50, 2)
        field.setUnaryEnergy(unary)
        field.addPairwiseBilateral(9, 13, flat, 0.2, module.DIAG_KERNEL, module.NO_NORMALIZATION)
        q = np.array(field.inference(1)).astype(np.float64)
        logits.append(np.log(q[1]) - np.log(q[0]))
    assert np.abs(logits[0] - logits[1]).max() <= 1e-4
    assert np.abs(logits[1] - (unary[0] - unary[1])).max() > 0.5  # it did something


@DERANDOMIZED
@given(st.integers(1, 7), st.integers(1, 300), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_any_features_are_pydensecrfs(dimension, points, labels, seed):
    oracle = pytest.importorskip("pydensecrf.densecrf")
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(dimension, points)) * 2).astype(np.float32)
    unary = rng.normal(size=(labels, points)).astype(np.float32)
    found = []
    for module in (oracle, densecrf):
        field = module.DenseCRF(points, labels)
        field.setUnaryEnergy(unary)
        field.addPairwiseEnergy(features, 2.5)
        found.append(np.array(field.inference(4)))
    assert_same(found[1], found[0])


def test_no_unary_starts_as_there():
    oracle = pytest.importorskip("pydensecrf.densecrf")
    compat = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]], np.float32)
    found = []
    for module in (oracle, densecrf):
        field = module.DenseCRF2D(7, 5, 3)
        assert not np.array(field.startInference()[0]).any()
        assert np.allclose(field.inference(0), 1 / 3)
        field.addPairwiseGaussian((2, 3), compat)
        q, a, b = field.startInference()
        field.stepInference(q, a, b)
        found.append((np.array(field.inference(3)), np.array(q)))
    assert_same(found[1][0], found[0][0])
    assert_same(found[1][1], found[0][1])


def test_unary_objects_and_forbidden_labels():
    oracle = pytest.importorskip("pydensecrf.densecrf")
    rng = np.random.default_rng(5)
    weights, inputs = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(4, 35)).astype(np.float32)
    p = rng.dirichlet(np.ones(3), 35).T
    p[0, :10] = 0
    forbidding = utils.unary_from_softmax(p, clip=None)
    for make in (
        lambda m: m.LogisticUnary(weights, inputs),
        lambda m: m.ConstUnary(weights @ inputs),
        lambda m: m.ConstUnary(forbidding),
    ):
        found = []
        for module in (oracle, densecrf):
            field = module.DenseCRF2D(7, 5, 3)
            field.setUnary(make(module))
            field.addPairwiseGaussian(2, 3)
            found.append(np.array(field.inference(5)))
        assert_same(found[1], found[0])
    assert not found[1][0, :10].any()


def test_inputs_are_copied():
    unary, image = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32), np.zeros((3, 4, 3), np.uint8)
    field = densecrf.DenseCRF2D(4, 3, 2)
    field.setUnaryEnergy(unary)
    field.addPairwiseBilateral(3, 3, image, 4)
    before = field.inference(2)
    unary[:], image[:, :2] = 0, 255
    assert np.array_equal(field.inference(2), before)


def test_scalar_and_array_have_opposite_signs():
    rng = np.random.default_rng(0)
    unary = rng.normal(size=(3, 30)).astype(np.float32)
    found = []
    for compat in (2.0, -2 * np.eye(3, dtype=np.float32), np.full(3, -2, np.float32)):
        field = densecrf.DenseCRF2D(6, 5, 3)
        field.setUnaryEnergy(unary)
        field.addPairwiseGaussian(3, compat)
        found.append(field.inference(4))
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


def test_constants_and_names():
    assert (densecrf.CONST_KERNEL, densecrf.DIAG_KERNEL, densecrf.FULL_KERNEL) == (0, 1, 2)
    assert list(densecrf.NormalizationType) == [0, 1, 2, 3] and densecrf.NORMALIZE_SYMMETRIC.value == 3
    oracle = pytest.importorskip("pydensecrf.densecrf")
    names = {n for n in dir(oracle) if not n.startswith("_")} - {"Number", "eigen"}
    assert names <= set(densecrf.__all__)
    methods = {n for n in dir(oracle.DenseCRF2D) if not n.startswith("_")}
    assert methods <= set(dir(densecrf.DenseCRF2D))
    for name in ("KernelType", "NormalizationType"):
        assert {m.name: m.value for m in getattr(oracle, name)} == {
            m.name: m.value for m in getattr(densecrf, name)
        }


UNARY = np.zeros((3, 20), np.float32)
IMAGE = np.zeros((4, 5, 3), np.uint8)
NAN = np.full((3, 20), np.nan, np.float32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda d: d.setUnaryEnergy(UNARY.astype(np.float64)), "astype"),
        (lambda d: d.setUnaryEnergy(UNARY.T.copy().T), "ascontiguousarray"),
        (lambda d: d.setUnaryEnergy(UNARY.reshape(3, 4, 5)), "reshape"),
        (lambda d: d.setUnaryEnergy(UNARY[:2]), r"\[3, 20\]"),
        (lambda d: d.setUnaryEnergy(UNARY.tolist()), "numpy array"),
        (lambda d: d.setUnaryEnergy(None), "numpy array"),
        (lambda d: d.setUnaryEnergy(NAN), "NaN"),
        (lambda d: d.setUnaryEnergy(UNARY - np.inf), "-infinity"),
        (lambda d: d.setUnaryEnergy(UNARY + np.inf), "every label"),
        (lambda d: d.setUnaryEnergy(UNARY, UNARY), "20"),
        (lambda d: d.setUnary(UNARY), "setUnaryEnergy"),
        (lambda d: d.setUnary(densecrf.ConstUnary(UNARY[:2])), r"\[3, 20\]"),
        (lambda d: d.addPairwiseGaussian(0, 3), "> 0"),
        (lambda d: d.addPairwiseGaussian(-1, 3), "> 0"),
        (lambda d: d.addPairwiseGaussian(float("nan"), 3), "> 0"),
        (lambda d: d.addPairwiseGaussian((3,), 3), "2 of them"),
        (lambda d: d.addPairwiseGaussian("ab", 3), "2 of them"),
        (lambda d: d.addPairwiseGaussian(1e-6, 3), "lattice|sxy"),
        (lambda d: d.addPairwiseGaussian(3, [1, 2, 3]), "float32"),
        (lambda d: d.addPairwiseGaussian(3, np.ones(3)), "astype"),
        (lambda d: d.addPairwiseGaussian(3, np.ones(2, np.float32)), r"\[3\]"),
        (lambda d: d.addPairwiseGaussian(3, np.ones((3, 2), np.float32)), r"\[3, 3\]"),
        (lambda d: d.addPairwiseGaussian(3, np.ones((3, 3, 3), np.float32)), r"\[3, 3\]"),
        (lambda d: d.addPairwiseGaussian(3, float("inf")), "from -1e20 to 1e20"),
        (lambda d: d.addPairwiseGaussian(3, 1j), "from -1e20 to 1e20"),
        (lambda d: d.addPairwiseGaussian(3, None), "compat"),
        (lambda d: d.addPairwiseGaussian(3, 3, kernel=9), "DIAG_KERNEL"),
        (lambda d: d.addPairwiseGaussian(3, 3, normalization=9), "NORMALIZE_SYMMETRIC"),
        (lambda d: d.addPairwiseBilateral(3, 0, IMAGE, 3), "srgb"),
        (lambda d: d.addPairwiseBilateral(3, (1, 2), IMAGE, 3), "srgb"),
        (lambda d: d.addPairwiseBilateral(3, 3, IMAGE.astype(np.float32), 3), "uint8"),
        (lambda d: d.addPairwiseBilateral(3, 3, None, 3), "uint8"),
        (lambda d: d.addPairwiseBilateral(3, 3, IMAGE[..., 0], 3), "uint8"),
        (lambda d: d.addPairwiseBilateral(3, 3, IMAGE[..., [0, 1, 2, 0]], 3), "create_pairwise_bilateral"),
        (lambda d: d.addPairwiseBilateral(3, 3, IMAGE.transpose(1, 0, 2), 3), "width first"),
        (lambda d: d.addPairwiseBilateral(3, 3, IMAGE[:, ::-1], 3), "ascontiguousarray"),
        (lambda d: d.addPairwiseEnergy(UNARY[:2, :19].copy(), 3), "20"),
        (lambda d: d.addPairwiseEnergy(UNARY.astype(np.float64), 3), "astype"),
        (lambda d: d.addPairwiseEnergy(NAN, 3), "not finite"),
        (lambda d: d.addPairwiseEnergy(np.zeros((0, 20), np.float32), 3), "1 to 7 features"),
        (lambda d: d.addPairwiseEnergy(np.zeros((8, 20), np.float32), 3), "1 to 7 features"),
        (lambda d: d.inference(-1), "niter"),
        (lambda d: d.inference(2.5), "niter"),
        (lambda d: d.inference("2"), "niter"),
        (lambda d: d.klDivergence(UNARY.tolist()), "float32"),
        (lambda d: d.klDivergence(UNARY[:2]), r"\(3, 20\)"),
        (lambda d: d.stepInference(np.broadcast_to(np.float32(0), (3, 20))), "read-only"),
        (lambda d: d.setUnaryEnergy(UNARY + np.float32(3.3e38)), "3e38"),
        (lambda d: d.setUnary(type("Empty", (densecrf.Unary,), {})()), "numpy array"),
        (lambda d: d.addPairwiseGaussian(3, 1e38), "1e20"),
        (lambda d: d.addPairwiseGaussian(3, 10**400), "1e20"),
        (lambda d: d.addPairwiseGaussian(3, np.full(3, -1e38, np.float32)), "1e20"),
        (lambda d: d.addPairwiseGaussian(3, np.full((3, 3), 1e21, np.float32)), "1e20"),
        (lambda d: d.addPairwiseGaussian(10**400, 3), "> 0"),
        (lambda d: d.addPairwiseGaussian({1, 2}, 3, kernel="DIAG_KERNEL"), "kernel"),
        (lambda d: d.addPairwiseGaussian(3, 3, normalization=[1]), "NORMALIZE_SYMMETRIC"),
        (lambda d: d.inference(10**20), "niter"),
        (lambda d: d.inference(float("inf")), "niter"),
        (lambda d: d.stepInference(NAN), "probabilities"),
        (lambda d: densecrf.DenseCRF2D(5, 4, 2**17), "nlabels"),
        (lambda d: densecrf.LogisticUnary(*[np.full((20, 20), 1e30, np.float32)] * 2), "every label"),
        (lambda d: densecrf.DenseCRF2D(0, 4, 2), "from 1 to"),
        (lambda d: densecrf.DenseCRF2D(5, 4, 1), "nlabels"),
        (lambda d: densecrf.DenseCRF(5.5, 2), "whole number"),
        (lambda d: densecrf.DenseCRF(2**31, 2), "from 1 to 1073741824"),
    ],
)
def test_mistakes_are_value_errors(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call(densecrf.DenseCRF2D(5, 4, 3))
    assert isinstance(caught.value, ValueError)


def test_takes_what_need_not_be_refused():
    frozen = UNARY.copy()
    frozen.flags.writeable = False
    field = densecrf.DenseCRF2D(w=5.0, h=np.int64(4), nlabels=3)
    field.setUnaryEnergy(frozen)
    field.addPairwiseGaussian(3, np.float32(3))
    assert np.allclose(field.inference(np.int64(1)), 1 / 3)


ODD = [
    None, True, 0, -1, 2, 2.5, 3, 10**400, 1e38, 1e300, float("inf"), float("nan"), 1j, "3", b"3", (), (3,), (3, 4),
    [3.0, 5.0, 8.0], {3: 4}, {3, 4}, range(3), object(), Fraction(1, 3), Decimal("NaN"), Decimal("1e999"),
    np.float16(3), np.str_("3"), np.bool_(True), np.array(3.0, np.float32), np.array([1.0, None, "x"], object),
    np.zeros(0, np.float32),
    np.full(3, 1e38, np.float32), np.full((3, 3), -1e38, np.float32), np.eye(3, dtype=np.float32), UNARY, NAN, UNARY.T,
    np.full((3, 20), 1e38, np.float32), np.full((3, 20), 0.3, np.float32), IMAGE, IMAGE[::2],
]  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.data())
def test_any_argument_is_taken_or_an_input_error(data):
    """And what was taken gives probabilities."""
    odd = st.sampled_from(ODD)
    field = densecrf.DenseCRF2D(5, 4, 3)
    calls = [
        lambda: field.setUnaryEnergy(data.draw(odd)),
        lambda: field.setUnaryEnergy(UNARY, data.draw(odd)),
        lambda: field.setUnary(data.draw(odd)),
        lambda: field.addPairwiseGaussian(data.draw(odd), data.draw(odd)),
        lambda: field.addPairwiseGaussian(3, data.draw(odd), data.draw(odd), data.draw(odd)),
        lambda: field.addPairwiseBilateral(data.draw(odd), data.draw(odd), IMAGE, 3),
        lambda: field.addPairwiseBilateral(3, 3, data.draw(odd), data.draw(odd)),
        lambda: field.addPairwiseEnergy(data.draw(odd), data.draw(odd)),
        lambda: field.stepInference(data.draw(odd)),
        lambda: field.klDivergence(data.draw(odd)),
        lambda: densecrf.DenseCRF2D(data.draw(odd), 4, data.draw(odd)),
        lambda: densecrf.ConstUnary(data.draw(odd)),
        lambda: densecrf.LogisticUnary(data.draw(odd), data.draw(odd)),
        lambda: field.inference(data.draw(odd.filter(lambda n: not isinstance(n, np.ndarray)))),
    ]
    field.setUnaryEnergy(UNARY)
    for _ in range(4):
        with contextlib.suppress(InputError):
            data.draw(st.sampled_from(calls))()
    q = field.inference(2)
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("rounding", ["pydensecrf", "fast"])
@pytest.mark.parametrize("compat", [1e20, 3e15, "vector", "matrix"])
@pytest.mark.parametrize("normalization", ["symmetric", "none", "before", "after"])
def test_the_largest_numbers_do_not_overflow(labels, rounding, compat, normalization):
    rng = np.random.default_rng(0)
    value = {"vector": rng.choice([-1e20, 1e20], labels), "matrix": rng.choice([-1e20, 1e20], (labels, labels))}
    image = np.zeros((30, 40, 3), np.uint8)  # all pixels alike: the largest sums
    unary = rng.choice(np.float32([-3e38, 3e38, 0, 1]), (labels, 30, 40))
    options = CrfOptions(
        4, gaussian_compat=value.get(compat, compat), bilateral_compat=value.get(compat, compat),
        normalization=normalization, rounding=rounding,
    )  # fmt: skip
    q = DenseCRF(options).infer(image, unary)
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)
    for beyond in (np.float32(3.3e38), np.float32("inf")):
        with pytest.raises(InputError, match="3e38"):
            DenseCRF(options).infer(image, np.full_like(unary, beyond))


@pytest.mark.parametrize("wrong", [1e38, 10**400, float("nan"), (1e38, 0.0), ((0.0, 1e21), (0.0, 0.0))])
def test_options_refuse_what_would_overflow(wrong):
    with pytest.raises(InputError, match="bilateral_compat"):
        CrfOptions(bilateral_compat=wrong)
