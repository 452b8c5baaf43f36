"""The CRF in the localizer: the mapping, both sizes, and what results say of it."""

import json

import artifacts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lidcam_rt
from lidcam_rt.boxes import largest_box
from lidcam_rt.crf import CrfOptions, DenseCRF, GaussianTerm, Refine, foreground_probability, preset
from lidcam_rt.errors import InputError
from lidcam_rt.image import network_pixels, read_image, to_original_size

DERANDOMIZED = settings(max_examples=80, deadline=None, derandomize=True)
NOTHING = CrfOptions(gaussian_compat=0.0, bilateral_compat=0.0)


@DERANDOMIZED
@given(st.integers(0, 254))
def test_the_threshold_is_the_tie(level):
    p = foreground_probability(level)
    assert p[0] == 0 and p[255] == 1 and (np.diff(p) >= 0).all()
    assert p[level] < 0.5 < p[level + 1]


def test_fixed_alphas_are_psas():
    """alpha 4 of psa ties at 0.28 of the maximum, 24 of SEAM at 0.09: there the mapping is theirs."""
    for alpha, tie in ((4, 0.2755), (24, 0.0940)):
        level = round(tie * 255 - 0.5)
        m = np.arange(256) / 255
        theirs = m / (m + (1 - m) ** alpha)
        assert np.abs(foreground_probability(level) - theirs).max() < 0.05
    with pytest.raises(InputError, match="level"):
        foreground_probability(255)


@DERANDOMIZED
@given(st.integers(-1, 255), st.integers(0, 2**32 - 1))
def test_without_pairwise_terms_the_mask_stays(level, seed):
    rng = np.random.default_rng(seed)
    map8 = rng.integers(0, 256, (9, 11)).astype(np.uint8)
    refined = Refine(NOTHING).apply(np.zeros((9, 11, 3), np.uint8), map8, level)
    assert np.array_equal(refined > 127, map8.astype(int) > level)


def test_empty_and_full_masks_stay():
    picture = artifacts.picture("red")
    refine = Refine("psa")
    for value, level, all_of in ((0, 0, 0), (7, 3, 255), (3, 3, 0), (0, -1, 255), (255, 255, 0)):
        map8 = np.full(picture.shape[:2], value, np.uint8)
        assert (refine.apply(picture, map8, level) == all_of).all()


def test_a_coarse_map_takes_the_edges_of_the_picture():
    from skimage.draw import disk

    rng = np.random.default_rng(0)
    truth = np.zeros((120, 160), bool)
    truth[disk((60, 80), 37)] = True
    picture = np.where(truth[..., None], (200, 80, 60), (70, 120, 160)) + rng.normal(0, 6, (120, 160, 3))
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    rows, columns = np.mgrid[:120, :160]
    coarse = np.exp(-((rows - 66) ** 2 + (columns - 88) ** 2) / (2 * 32**2))  # off the middle, too small
    map8 = np.rint(255 * coarse).astype(np.uint8)
    level = 127

    def iou(mask):
        return (mask & truth).sum() / (mask | truth).sum()

    refined = Refine("psa", "original").apply(picture, map8, level) > 127
    assert iou(map8 > level) < 0.75 and iou(refined) > 0.97


@pytest.fixture(scope="module")
def noisy():
    rng = np.random.default_rng(1)
    return np.clip(artifacts.picture("red").astype(int) + rng.integers(-5, 6, (96, 160, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", ["network", "original"])
def test_localizer(localizer, noisy, size):
    plain = localizer(noisy)
    found = localizer(noisy, refine=f"psa@{size}")
    assert np.array_equal(found.unrefined.map, plain.map) and found.unrefined.box == plain.box
    assert (found.class_id, found.score, found.topk) == (plain.class_id, plain.score, plain.topk)
    assert found.threshold == 127 and np.array_equal(found.mask, found.map > found.threshold)
    assert found.box == largest_box(found.mask)
    truth = np.zeros((96, 160), bool)
    truth[24:72, 40:104] = True
    iou = [(m & truth).sum() / (m | truth).sum() for m in (plain.mask, found.mask)]
    assert iou[1] > iou[0] and iou[1] > 0.95
    p = foreground_probability(int(plain.threshold))
    if size == "original":
        pixels, map8 = noisy, plain.map
    else:
        entry = localizer.pipeline.prepare(noisy)
        outputs = localizer.pipeline.run([entry])
        pixels, map8 = entry.array, outputs["map8"][0, 0]
    q = DenseCRF("psa").refine(pixels, np.stack([1 - p[map8], p[map8]]))[1]
    expected = to_original_size(np.rint(255 * q).astype(np.uint8), entry.size, localizer.manifest.input) if (
        size == "network") else 255 * q  # fmt: skip
    assert np.abs(found.map - expected.astype(float)).max() <= 1.01


def test_results_say_so(localizer, noisy, tmp_path):
    options = CrfOptions(iterations=3)
    plain, named, own = localizer(noisy), localizer(noisy, refine="irn"), localizer(noisy, refine=options)
    assert plain.crf is None and plain.unrefined is None and "crf" not in plain.to_dict()
    crf = named.to_dict()["crf"]
    assert crf["preset"] == "irn" and crf["size"] == "network" and crf["bilateral_srgb"] == 5
    assert own.crf == Refine(options).to_dict() and own.to_dict()["crf"]["preset"] is None
    assert json.loads(json.dumps(own.to_dict())) == own.to_dict()
    files = named.save(tmp_path)
    assert json.loads(files["json"].read_text())["crf"] == crf


def test_batch_stream_and_call_agree(localizer, noisy):
    small = noisy[10:80, 20:130]
    calls = [localizer(picture, refine="psa", top_k=2, keep_image=False) for picture in (noisy, small)]
    assert all(len(c.others) == 1 and c.others[0].crf and c.others[0].unrefined and c.image is None for c in calls)
    for size in ("network", "original"):
        calls = [localizer(picture, refine=Refine("psa", size), top_k=2) for picture in (noisy, small)]
        batch = localizer.batch([noisy, small], refine=f"psa@{size}", top_k=2, keep_image=False)
        stream = list(localizer.stream([noisy, small], refine=f"psa@{size}", top_k=2, keep_image=False))
        for a, b, c in zip(calls, batch, stream, strict=True):
            assert a.image is not None and b.image is None and c.image is None
            for x, y, z in zip((a, *a.others), (b, *b.others), (c, *c.others), strict=True):
                assert np.array_equal(x.map, y.map) and np.array_equal(x.map, z.map)
                assert x.crf == y.crf == z.crf == Refine("psa", size).to_dict()


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"resize": "letterbox"}])
def test_other_inputs(tmp_path, noisy, options):
    with lidcam_rt.load(artifacts.build(tmp_path / "m.onnx", **options)) as localizer:
        found = localizer(noisy, refine="psa")
        entry = localizer.pipeline.prepare(noisy)
        if "dtype" in options:
            with lidcam_rt.load(artifacts.build(tmp_path / "n.onnx")) as other:
                pixels = network_pixels(entry.array, localizer.manifest.input)
                assert np.array_equal(pixels, other.pipeline.prepare(noisy).array)
                assert np.array_equal(found.map, other(noisy, refine="psa").map)
        x0, y0, x1, y1 = found.box
        assert abs(x0 - 40) <= 3 and abs(y0 - 24) <= 3 and abs(x1 - 104) <= 3 and abs(y1 - 72) <= 3


def test_a_real_photo_of_any_size(localizer):
    from skimage import data

    picture = read_image(data.astronaut()[:301, :211])
    for size in ("network", "original"):
        found = localizer(picture, refine=f"deeplab@{size}")
        assert found.map.shape == (301, 211) and found.map.dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"refine": "nope"}, "psa"),
        ({"refine": ""}, "psa"),
        ({"refine": True}, "preset"),
        ({"refine": ["psa"]}, "preset"),
        ({"refine": "psa@half"}, "network, original"),
        ({"refine": "psa@"}, "network, original"),
        ({"refine": "@original"}, "psa"),
    ],
)
def test_mistakes(localizer, noisy, arguments, says):
    for call in (localizer, lambda p, **k: localizer.batch([p], **k), lambda p, **k: localizer.stream([p], **k)):
        with pytest.raises(InputError, match=says):
            call(noisy, **arguments)


def test_every_form_of_refine():
    options = CrfOptions(iterations=3, terms=(GaussianTerm((2, 3), 1.0),))
    assert Refine.of(None) is None
    assert Refine.of("psa") == Refine() == Refine.of("psa@network") == Refine("psa", "network")
    assert Refine.of("irn-fast@original") == Refine("irn-fast", "original")
    assert Refine.of(options) == Refine(options) and Refine.of(Refine(options, "original")).size == "original"
    assert (Refine.of("irn").preset, Refine(options).preset) == ("irn", None)
    assert Refine.of("irn").options == preset("irn") and Refine(options).options == options
    for refine in (Refine("psa"), Refine(options)):
        assert json.loads(json.dumps(refine.to_dict())) == refine.to_dict()
    for wrong in ({"crf": 3}, {"crf": "nope"}, {"size": "half"}, {"size": None}):
        with pytest.raises(InputError):
            Refine(**wrong)
