"""P1 to P3 and the advice, on networks built so that a phenomenon is there, or is not."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from lidcam_training.advice import ALIKE, PEAKED, Mean, advise, summarize
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.phenomena import crf_gain, measure_phenomena
from PIL import Image
from scipy.stats import spearmanr
from typer.testing import CliRunner

from lidcam_cli.app import build_app

SIDE, CHANNELS, PICTURES = 16, 24, 8
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[4:12, 4:12] = 1


class Built:
    """What `measure_phenomena` asks of a network: features that are given, and weights of one class."""

    def __init__(self, planes, weight, pool=None):
        self.planes = torch.tensor(np.asarray(planes), dtype=torch.float32)[None]
        self.head_weight = torch.tensor(np.asarray(weight), dtype=torch.float32)[None]
        self.pool, self.tap_threshold = pool, None

    def forward_features(self, image):
        return self.planes


def spots(areas, rng, inside=True):
    """A plane per channel: a square of that many cells' side, in the object or out of it, at height about 1."""
    planes = np.zeros((len(areas), SIDE, SIDE))
    for plane, side in zip(planes, areas, strict=True):
        y, x = rng.integers(4, 13 - side, 2) if inside else (0, 0)
        plane[y : y + side, x : x + side] = 1 + 0.05 * rng.random()
    return planes


def measured(make, *, mask=MASK):
    image = torch.zeros(1, 3, SIDE, SIDE)
    rngs = [np.random.default_rng(seed) for seed in range(PICTURES)]
    return [measure_phenomena(Built(*make(rng)), image, 0, mask=mask) for rng in rngs]


def verdicts(pictures, pooling="gap", gains=()):
    return {entry.component: entry.verdict for entry in advise(summarize(pictures, pooling, gains))}


@pytest.mark.parametrize("sign, verdict", [(-1, "on"), (0, "try"), (1, "try")])
def test_p1_small_areas_with_large_weights(sign, verdict):
    def make(rng):
        sides = rng.integers(1, 9, CHANNELS)
        weight = np.exp(sign * 0.3 * sides + 0.1 * rng.normal(size=CHANNELS))
        if sign == 0:
            weight = rng.random(CHANNELS) + 0.1
        return spots(sides, rng), weight

    pictures = measured(make)
    rank = summarize(pictures, "gap").area_weight_correlation
    assert (rank.high < 0) if sign < 0 else (rank.low > 0) if sign > 0 else (rank.low < 0 < rank.high)
    for entry in pictures:
        assert entry.area_weight_correlation == pytest.approx(spearmanr(entry.area, entry.weight)[0])
    assert verdicts(pictures)["TAP"] == verdict
    assert verdicts(pictures, "tap")["TAP"] == "try"


def test_p1_is_absent_where_all_channels_are_active_everywhere():
    """TAP is GAP there."""
    pictures = measured(lambda rng: (1 + rng.random((CHANNELS, SIDE, SIDE)), rng.random(CHANNELS) + 0.1))
    assert summarize(pictures, "gap").area_spread.high < ALIKE
    assert verdicts(pictures)["TAP"] == "off"


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_p2_negative_weights_on_the_object_or_beside_it(inside, masks):
    def make(rng):
        sides = np.full(CHANNELS, 4)
        planes = np.concatenate([spots(sides[:12], rng), spots(sides[12:], rng, inside)])
        return planes, np.concatenate([np.full(12, 1.0), np.full(12, -0.5)])

    pictures = measured(make, mask=MASK if masks else None)
    summary = summarize(pictures, "gap")
    assert summary.negative_weights.value == 0.5
    assert verdicts(pictures)["NWC"] == ("on" if inside else "off")
    if masks:
        assert summary.object_share.value == MASK.mean()
        assert summary.negative_ioa.value == pytest.approx(1 if inside else 0, abs=0.02)
        assert summary.positive_ioa.value == pytest.approx(1)
    else:
        assert summary.negative_ioa is None and summary.negative_excess is None


def test_p2_without_negative_weights_there_is_nothing_to_clamp():
    pictures = measured(lambda rng: (spots(np.full(CHANNELS, 3), rng), rng.random(CHANNELS) + 0.1))
    assert verdicts(pictures)["NWC"] == "off"
    assert "no weight is negative" in advise(summarize(pictures, "gap"))[1].reason


@pytest.mark.parametrize("height, verdict", [(4.0, "on"), (0.0, "off")])
def test_p3_a_peak_on_a_broad_map(height, verdict):
    def make(rng):
        planes = np.stack([MASK + 0.01 * rng.random(MASK.shape), np.zeros(MASK.shape)])
        planes[1, rng.integers(4, 12), rng.integers(4, 12)] = height
        return planes, [1.0, 1.0]

    pictures = measured(make)
    for entry in pictures:
        wanted = float(entry.values.max()) / float(np.percentile(entry.values.astype(float), 98))
        assert entry.peak == pytest.approx(wanted, rel=1e-5)
        assert (wanted > PEAKED) == (height > 0)
    assert verdicts(pictures)["PaS"] == verdict


def test_the_crf_is_measured_on_the_masks():
    big = np.kron(MASK, np.ones((8, 8), np.uint8))
    picture = np.where(big[..., None] == 1, (200, 60, 40), (40, 90, 160)).astype(np.uint8)
    entry = measured(lambda rng: (spots([6], rng), [1.0]))[0]
    gain = crf_gain(entry, picture, big)
    assert gain > 0.1  # the map covers a part of an object of one colour
    noise = np.random.default_rng(0).integers(0, 256, picture.shape).astype(np.uint8)
    assert crf_gain(entry, noise, big) < gain
    assert verdicts([entry] * 3, gains=[0.1, 0.2, 0.15])["CRF"] == "on"
    assert verdicts([entry] * 3, gains=[-0.1, -0.2, -0.15])["CRF"] == "off"
    assert verdicts([entry] * 3)["CRF"] == "try"


def test_means_leave_out_what_is_no_number():
    mean = Mean.of([1.0, float("nan"), 3.0])
    assert (mean.value, mean.pictures) == (2.0, 2) and mean.low <= 2 <= mean.high
    assert Mean.of([1.0, float("nan")]) is None
    dead = measured(lambda rng: (np.zeros((CHANNELS, SIDE, SIDE)), np.ones(CHANNELS)))
    assert set(verdicts(dead).values()) <= {"try", "off"}


@pytest.mark.slow
def test_command(tmp_path):
    torch.manual_seed(0)
    spec = ClassifierSpec("lidcam_seresnet_small", num_classes=2, pooling="gap")
    save_checkpoint(build_classifier(spec), CheckpointMeta(spec, ("a", "b"), (32, 32)), tmp_path / "c")
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(255 * np.pad(np.ones((20, 20), np.uint8), ((5, 15), (8, 20)))).save(
            tmp_path / "masks" / f"{number}.png"
        )
    pictures = [part for i in range(3) for part in ("--images", str(tmp_path / f"{i}.png"))]
    for masks in (["--masks", str(tmp_path / "masks")], []):
        command = ["analyze", str(tmp_path / "c"), *pictures, *masks, "-o", str(tmp_path / "out")]
        result = CliRunner().invoke(build_app("analyze"), command, env={"COLUMNS": "80"})
        assert result.exit_code == 0, result.output
        assert all(name in result.output for name in ("TAP", "NWC", "PaS", "CRF"))
        found = json.loads((tmp_path / "out" / "analysis.json").read_text())
        assert [entry["component"] for entry in found["advice"]] == ["TAP", "NWC", "PaS", "CRF"]
        assert len(found["pictures"]) == 3
        assert (found["summary"]["crf_gain"] is None) == (not masks)
        assert (found["summary"]["object_share"] is None) == (not masks)
        for name in ("phenomena.png", "0.png"):
            with Image.open(tmp_path / "out" / name) as drawn:
                assert drawn.width > 1000
    assert "over 3 pictures, which is too few" in " ".join(result.output.split())

    def refused(*more):
        result = CliRunner().invoke(build_app("analyze"), ["analyze", str(tmp_path / "c"), *map(str, more)])
        assert result.exit_code == 2, result.output
        return " ".join(result.output.split())

    # One figure would take the place of another, and one mask would be the truth of two pictures.
    (tmp_path / "more").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "more" / "0.bmp")
    Image.new("RGB", (32, 32)).save(tmp_path / "more" / "phenomena.png")
    twice = ("--images", tmp_path / "0.png", "--images", tmp_path / "more" / "0.bmp", "-o", tmp_path / "twice")
    assert "would both be 0.png" in refused(*twice)
    summary = ("--images", tmp_path / "more" / "phenomena.png", "-o", tmp_path / "twice")
    assert "would both be phenomena.png" in refused(*summary)
    inside = ["analyze", str(tmp_path / "c"), "--images", str(tmp_path), "--masks", str(tmp_path / "masks")]
    (tmp_path / "more" / "0.bmp").rename(tmp_path / "more" / "3.bmp")
    (tmp_path / "more" / "phenomena.png").rename(tmp_path / "more" / "4.png")
    result = CliRunner().invoke(build_app("analyze"), [*inside, "--limit", "100", "-o", str(tmp_path / "inside")])
    assert result.exit_code == 0, result.output
    assert "have no mask" in " ".join(result.output.split())
    analysed = json.loads((tmp_path / "inside" / "analysis.json").read_text())["pictures"]
    assert not [row for row in analysed if "masks" in row["image"]]  # the masks are no pictures of their own
    none = ("--images", tmp_path / "0.png", "--masks", tmp_path / "more", "-o", tmp_path / "twice")
    assert "has no mask for any of the 1 pictures; looked for 0.png" in refused(*none)
    assert not (tmp_path / "twice").exists()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    result = CliRunner().invoke(
        build_app("analyze"), ["analyze", str(tmp_path / "c"), "--images", str(broken), "-o", str(tmp_path / "none")]
    )
    assert result.exit_code != 0 and "can be read" in " ".join(result.output.split())
