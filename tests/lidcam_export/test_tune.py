"""`lidcam tune`: settings are chosen on pictures, never for the worse, and are what a call does by default."""

import json
import shutil

import artifacts
import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import onnxruntime as ort
from lidcam_bench.data import ImageSet, Record, open_data
from lidcam_export.exporter import export_artifact
from lidcam_export.options import ExportOptions
from lidcam_export.tuning import run
from lidcam_export.tuning.maps import MapSource
from lidcam_export.tuning.rewrite import both_maps, find_map_head, with_pas, with_weights
from lidcam_export.tuning.run import tune_artifact
from lidcam_export.tuning.scores import Part, Scores, difference_interval
from lidcam_export.tuning.search import Grid, Search
from lidcam_export.tuning.settings import Settings, TuneOptions
from PIL import Image
from typer.testing import CliRunner

import lidcam_rt
from lidcam_cli.app import build_app
from lidcam_rt.artifact import DefaultsSpec, Manifest, read_manifest
from lidcam_rt.augment import Augment
from lidcam_rt.errors import ArtifactError, DataError, ExportError, InputError, OutputError
from lidcam_rt.pas import PasOptions

NETWORK = """
from torch import manual_seed, nn


def tiny():
    manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
"""
TINY_OPTIONS = ExportOptions(size=(48, 64), class_names=tuple("abcde"), top_k=2)
PLAIN = TuneOptions(views=False, crf=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures to choose on and pictures to report on: coloured boxes in noise."""
    root = tmp_path_factory.mktemp("data")
    val = open_data(str(artifacts.data_set(root / "val", 12, noise=60)))
    folder = artifacts.data_set(root / "test", 16, noise=60)
    for file in (folder / "images").iterdir():  # other pictures of the same kind
        with Image.open(file) as image:
            pixels = np.asarray(image)[:, ::-1]
        with Image.open(folder / "masks" / file.name) as image:
            mask = np.asarray(image)[:, ::-1]
        Image.fromarray(pixels).save(file)
        Image.fromarray(mask).save(folder / "masks" / file.name)
    (folder / "labels.csv").write_text("\n".join(
        ",".join(line.split(",")[:2]) for line in (folder / "labels.csv").read_text().splitlines()
    ))  # fmt: skip
    return val, open_data(str(folder))


@pytest.fixture
def bad(tmp_path):
    """An artifact whose theta is far too high."""
    return artifacts.build(tmp_path / "bad.onnx", pas_node=True, theta=0.95)


def mean_iou(path, images):
    """What a user gets who asks for nothing but the class."""
    ious = []
    with lidcam_rt.load(path) as localizer:
        for record in images.records:
            mask, truth = localizer(record.image, labels=record.labels[0]).mask, record.truth().object_mask() == 1
            ious.append((mask & truth).sum() / (mask | truth).sum())
    return float(np.mean(ious))


def test_chosen_settings_are_better_on_held_out_pictures_and_are_what_load_does(bad, data, tmp_path):
    before = bad.read_bytes()
    out = tmp_path / "out" / "tuned.onnx"
    tuned = tune_artifact(bad, out, data[0], PLAIN, report_on=data[1])
    assert bad.read_bytes() == before
    assert tuned.after.theta < tuned.before.theta == 0.95
    assert mean_iou(bad, data[1]) + 0.1 < mean_iou(out, data[1])
    for part, images in ((tuned.chosen_on, data[0]), (tuned.held_out, data[1])):
        assert part.before["mask-iou"] == pytest.approx(mean_iou(bad, images), abs=1e-9)
        assert part.after["mask-iou"] == pytest.approx(mean_iou(out, images), abs=1e-9)
        low, high = part.intervals["mask-iou"]
        assert 0 < low < part.after["mask-iou"] - part.before["mask-iou"] < high
    manifest = read_manifest(out)
    assert (manifest.pas.percentile, manifest.pas.theta) == (tuned.after.percentile, tuned.after.theta)
    assert (manifest.tuning.pictures, manifest.tuning.metric, manifest.schema_version) == (12, "mask-iou", 3)
    assert manifest.tuning.after == pytest.approx(tuned.chosen_on.after["mask-iou"])
    report = json.loads((tmp_path / "out" / "tuned.onnx.tune.json").read_text())
    assert report["after"] == tuned.after.to_dict() and report["held_out"]["pictures"] == 16
    assert sorted(p.name for p in out.parent.iterdir()) == ["tuned.onnx", "tuned.onnx.tune.json"]


@pytest.mark.parametrize("metric", ["mask-iou", "pxap", "box"])
def test_by_every_metric_nothing_is_worse_on_the_pictures_chosen_on(bad, data, tmp_path, metric):
    options = TuneOptions(metric, views=False, crf=False)
    tuned = tune_artifact(bad, tmp_path / "a.onnx", data[0], options)
    assert tuned.chosen_on.after[metric] >= tuned.chosen_on.before[metric]
    again = tune_artifact(tmp_path / "a.onnx", tmp_path / "b.onnx", data[0], options)
    assert again.chosen_on.after[metric] == again.chosen_on.before[metric] == tuned.chosen_on.after[metric]
    assert again.after == again.before == tuned.after
    assert any("Nothing better" in note for note in again.notes)


def test_what_the_artifacts_themselves_score_decides(bad, data, tmp_path, monkeypatch):
    worse = Settings(nwc=True, percentile=100.0, theta=1.0)
    monkeypatch.setattr(Search, "choose", lambda self, own: worse)
    tuned = tune_artifact(bad, tmp_path / "t.onnx", data[0], PLAIN)
    assert tuned.after == tuned.before
    assert read_manifest(tmp_path / "t.onnx").pas.theta == 0.95


def test_the_search_sees_what_the_artifact_gives(bad, data, tmp_path):
    """Masks and maps of the search, for several settings, are those of an artifact that has them."""
    model, manifest = onnx.load(str(bad)), read_manifest(bad)
    head = find_map_head(model, nwc=True)
    both = tmp_path / "both.onnx"
    both.write_bytes(both_maps(model, head).SerializeToString())
    wide = Augment((0.5, 1.0, 1.5), flip=True)
    with lidcam_rt.load(both) as localizer:
        source = MapSource(localizer, other=True, nwc=True, views=(wide,))
        for settings in (
            Settings(True, 90.0, 0.4),
            Settings(False, 98.0, 0.3),
            Settings(False, 90.0, 0.4, wide),
            Settings(True, 98.0, 0.5, wide, "psa"),
        ):
            made = tmp_path / "made.onnx"
            run._write(run._with_settings(model, manifest, settings), made)
            assert Settings.of(read_manifest(made)) == settings
            with lidcam_rt.load(made) as tuned:
                for record in data[0].records[:3]:
                    label = record.labels[0]
                    found = source.localize(source.of(record.image, label), settings)
                    wanted = tuned(record.image, labels=label)
                    np.testing.assert_array_equal(found.map, wanted.map)
                    np.testing.assert_array_equal(found.mask, wanted.mask)
                    assert (found.crf is None) == (settings.refine is None)


def _outputs(path, image):
    session = ort.InferenceSession(str(path))
    return session.run(None, {"image": image, "labels": np.full((len(image), 2), -1)})


@pytest.mark.slow
@pytest.mark.parametrize("portable", [False, True])
def test_the_rewritten_graph_is_the_one_that_an_export_with_these_options_writes(tmp_path, monkeypatch, portable):
    from dataclasses import replace

    (tmp_path / "tune_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    source, options = "python:tune_network:tiny", replace(TINY_OPTIONS, portable=portable)
    export_artifact(source, tmp_path / "clamped.onnx", options)
    export_artifact(source, tmp_path / "signed.onnx", replace(options, nwc=False, percentile=90.0, theta=0.6))
    image = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3)).astype(np.uint8)
    for start, target, nwc, pas in (
        ("clamped", "signed", True, PasOptions(90.0, 0.6)),
        ("signed", "clamped", False, PasOptions()),
    ):
        model = onnx.load(str(tmp_path / f"{start}.onnx"))
        head = find_map_head(model, nwc=nwc)
        with_weights(model, head)
        made = with_pas(model, pas)
        onnx.checker.check_model(made)
        (tmp_path / "made.onnx").write_bytes(made.SerializeToString())
        assert bool(made.functions) is not portable
        wanted = _outputs(tmp_path / f"{target}.onnx", image)
        for got, want in zip(_outputs(tmp_path / "made.onnx", image), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_heads_whose_signs_are_lost_are_left_alone(tmp_path):
    model = onnx.load(str(artifacts.build(tmp_path / "m.onnx", pas_node=True)))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    lost = onnx.numpy_helper.from_array(np.maximum(onnx.numpy_helper.to_array(weights["w"]), 0), "w")
    weights["w"].CopyFrom(lost)
    assert find_map_head(model, nwc=True) is None
    with pytest.raises(ExportError, match="its own form of PaS"):
        with_pas(onnx.load(str(artifacts.build(tmp_path / "own.onnx"))), PasOptions())


def test_views_and_crf_of_the_manifest_are_those_of_a_call_that_names_none(tmp_path):
    plain = artifacts.build(tmp_path / "plain.onnx", pas_node=True)
    model, manifest = onnx.load(str(plain)), read_manifest(plain)
    defaults = DefaultsSpec(scales=(0.5, 1.0), flip=True, refine="psa")
    run._write((model, manifest.model_copy(update={"schema_version": 3, "defaults": defaults})), tmp_path / "set.onnx")
    noisy = artifacts.picture("green").astype(int) + np.random.default_rng(0).integers(-60, 61, (96, 160, 3))
    picture = np.clip(noisy, 0, 255).astype(np.uint8)
    with lidcam_rt.load(plain) as one, lidcam_rt.load(tmp_path / "set.onnx") as other:
        asked = {"refine": "psa", "augment": Augment((0.5, 1.0), flip=True)}
        wanted = one(picture, **asked)
        assert wanted.crf["preset"] == "psa"
        for found in (other(picture), other.batch([picture])[0], next(other.stream([picture]))):
            assert found.crf == wanted.crf
            np.testing.assert_array_equal(found.map, wanted.map)
        off = other(picture, refine="none", augment="none")
        assert off.crf is None
        np.testing.assert_array_equal(off.map, one(picture).map)
        with pytest.raises(AssertionError):  # they do differ
            np.testing.assert_array_equal(off.map, wanted.unrefined.map)
    Image.fromarray(picture).save(tmp_path / "p.png")
    for arguments, preset in (((), "psa"), (("--refine", "none", "--augment", "none"), None)):
        out = tmp_path / f"out{preset}"
        command = ["localize", str(tmp_path / "set.onnx"), str(tmp_path / "p.png"), "-o", str(out), *arguments]
        assert CliRunner().invoke(build_app("localize"), command).exit_code == 0
        result = json.loads((out / "results.json").read_text())
        assert (result["crf"] and result["crf"]["preset"]) == preset
        assert ("augment" in result) is (preset is not None)


@pytest.mark.parametrize(
    "change",
    [{"refine": "psa; rm"}, {"refine": "none"}, {"scales": []}, {"scales": [99.0]}, {"scales": [1.0] * 17}, {"x": 1}],
)
def test_defaults_of_unknown_origin_are_checked(change):
    raw = json.loads(artifacts.manifest().model_dump_json(exclude_none=True)) | {"schema_version": 3}
    import hashlib

    def read(entry):
        text = json.dumps(raw | {"defaults": entry})
        return Manifest.from_metadata(
            {"lidcam": text, "lidcam_sha256": hashlib.sha256(text.encode()).hexdigest()}, "a.onnx"
        )

    assert read({"scales": [0.5, 1.0], "flip": True, "refine": "irn-fast@original"}).defaults.flip
    with pytest.raises(ArtifactError, match="defaults"):
        read(change)
    raw["schema_version"] = 2
    with pytest.raises(ArtifactError, match="schema 3"):
        read({"flip": True})


@pytest.mark.parametrize("helps", [True, False])
def test_a_crf_is_taken_where_it_is_better_beyond_chance(bad, data, tmp_path, monkeypatch, helps):
    """`irn` cuts a tenth of the box off in every picture, or in one of them only."""
    from dataclasses import replace

    plain = MapSource.localize

    def localize(self, maps, settings):
        result = plain(self, maps, replace(settings, refine=None))
        truth = next(r for r in data[0].records if str(r.image) == str(result.path)).truth().object_mask() == 1
        rows = np.flatnonzero(truth.any(1))[: 16 if settings.refine is None else 4]
        mask = truth.copy()
        mask[rows] = False
        if settings.refine is not None and not (settings.refine == "irn-fast" and (helps or "03" in result.path)):
            mask[rows[-1] : rows[-1] + 13] = False
        return replace(result, mask=mask)

    monkeypatch.setattr(MapSource, "localize", localize)
    tuned = tune_artifact(bad, tmp_path / "t.onnx", data[0], TuneOptions(views=False))
    assert tuned.after.refine == ("irn" if helps else None)
    assert read_manifest(tmp_path / "t.onnx").defaults.refine == tuned.after.refine
    with lidcam_rt.load(tmp_path / "t.onnx") as localizer:
        crf = localizer(data[0].records[0].image).crf
    assert crf is None if not helps else crf["preset"] == "irn"


def test_views_that_change_nothing_are_not_paid_for(bad, data, tmp_path):
    """Boxes of one colour: a mirrored picture has a mirrored map, so that its mean is the map."""
    tuned = tune_artifact(bad, tmp_path / "t.onnx", data[0], TuneOptions(crf=False))
    gain = tuned.chosen_on.after["mask-iou"] - tuned.chosen_on.before["mask-iou"]
    assert gain > 0.1
    assert tuned.after.views.scales == (1.0,) or tuned.chosen_on.intervals["mask-iou"][0] > 0


class Stopped(Exception):
    """The run is broken off."""


@pytest.mark.slow
@pytest.mark.parametrize("when", [("grid", 5), ("crf", 3), ("before", 4), ("after", 2)])
def test_a_run_that_was_broken_off_goes_on_and_ends_in_the_same_bytes(bad, data, tmp_path, when):
    options = TuneOptions(views=False)
    tune_artifact(bad, tmp_path / "unbroken.onnx", data[0], options, report_on=data[1])

    def tick(what, done, total):
        if (what, done) == when:
            raise Stopped

    out = tmp_path / "t.onnx"
    with pytest.raises(Stopped):
        tune_artifact(bad, out, data[0], options, report_on=data[1], tick=tick)
    assert not out.exists()
    records = (tmp_path / "t.onnx.tuning" / "results.jsonl").read_text().splitlines()
    with pytest.raises(OutputError, match="another run"):
        tune_artifact(bad, out, data[0], PLAIN, report_on=data[1])
    done = [0]
    monkey = pytest.MonkeyPatch()
    put = run._Memory.put
    monkey.setattr(run._Memory, "put", lambda self, *row: (done.__setitem__(0, done[0] + 1), put(self, *row))[1])
    tune_artifact(bad, out, data[0], options, report_on=data[1])
    monkey.undo()
    assert len(records) + done[0] == 12 * 4 + 16 * 2  # nothing was made twice
    for suffix in ("", ".tune.json"):
        assert (tmp_path / f"t.onnx{suffix}").read_bytes() == (tmp_path / f"unbroken.onnx{suffix}").read_bytes()
    assert not (tmp_path / "t.onnx.tuning").exists()


def test_damaged_records_are_named(bad, data, tmp_path):
    def stop(what, done, total):
        raise Stopped

    with pytest.raises(Stopped):
        tune_artifact(bad, tmp_path / "t.onnx", data[0], PLAIN, tick=stop)
    records = tmp_path / "t.onnx.tuning" / "results.jsonl"
    records.write_text('{"what": "grid", "index": 0, "row": {"0|1": 1}}\n')
    with pytest.raises(OutputError, match=r"t\.onnx\.tuning.*damaged"):
        tune_artifact(bad, tmp_path / "t.onnx", data[0], PLAIN)


def test_refusals(bad, data, tmp_path):
    link = tmp_path / "link.onnx"
    link.symlink_to(bad)
    before = bad.read_bytes()
    for output in (bad, link, tmp_path / "x" / ".." / "bad.onnx"):
        with pytest.raises(InputError, match="artifact itself"):
            tune_artifact(bad, output, data[0], PLAIN)
    assert bad.read_bytes() == before
    out = tmp_path / "t.onnx"
    with pytest.raises(ExportError, match=r"end in \.onnx"):
        tune_artifact(bad, tmp_path / "t.bin", data[0], PLAIN)
    with pytest.raises(InputError, match="share pictures"):
        tune_artifact(bad, out, data[0], PLAIN, report_on=data[0])
    with pytest.raises(InputError, match="metric must be one of"):
        TuneOptions("accuracy")
    records = data[0].records
    without = Record(records[1].image, records[1].labels)
    with pytest.raises(DataError, match=r"01\.png has no mask"):
        tune_artifact(bad, out, ImageSet("s", data[0].class_names, (records[0], without)), PLAIN)
    with pytest.raises(DataError, match="too few"):
        tune_artifact(bad, out, ImageSet("s", data[0].class_names, records[:1]), PLAIN)
    broken = tmp_path / "broken.png"
    shutil.copy(records[2].image, broken)
    broken.write_bytes(broken.read_bytes()[:500])
    entries = (records[0], Record(broken, records[2].labels, mask=records[2].mask))
    with pytest.raises(DataError, match=r"broken\.png.*every picture"):
        tune_artifact(bad, out, ImageSet("s", data[0].class_names, entries), PLAIN)
    assert not out.exists()


def test_pictures_of_other_classes_are_scored_by_the_predicted_class(bad, data, tmp_path):
    other = ImageSet("s", ("w", "x", "y", "z"), data[0].records)
    tuned = tune_artifact(bad, tmp_path / "t.onnx", other, PLAIN)
    assert any("12 of 12 pictures were scored by the map of the predicted class" in note for note in tuned.notes)
    assert tuned.chosen_on.after["mask-iou"] > tuned.chosen_on.before["mask-iou"]


def test_intervals_are_those_of_paired_differences():
    rng = np.random.default_rng(0)
    n, counts = 200, np.zeros((200, 2, 256), np.int64)
    base, gain = rng.random(n), rng.normal(0.1, 0.02, n)
    before, after = Scores(base, base > 0.5, counts), Scores(base + gain, base > 0.4, counts)
    low, high = difference_interval(before, after, "mask-iou")
    error = gain.std() / np.sqrt(n)  # the spread between pictures, ten times as large, is not in it
    assert low == pytest.approx(gain.mean() - 1.96 * error, abs=error / 2)
    assert high == pytest.approx(gain.mean() + 1.96 * error, abs=error / 2)


class _Known:
    """Numbers of pictures that an earlier run made."""

    def __init__(self, rows):
        self.rows = rows

    def get(self, what, index):
        return self.rows[what][index]

    def put(self, what, index, row):
        raise AssertionError("nothing is left to make")


def _chosen(rows, own, options):
    count = len(rows["grid"])
    grid = Grid((True,), (Augment(), Augment(flip=True)), (98.0,), (0.35,))
    part = Part(ImageSet("s", ("a",), ()), (0,) * count)
    return Search(None, part, grid, options, _Known(rows)).choose(own)


@pytest.mark.parametrize(
    ("gains", "taken"),
    [([0.02] * 20, True), ([0.3, -0.25] * 10, False), ([-0.02] * 20, False), ([0.0] * 20, False)],
    ids=["in every picture", "on the mean alone", "a loss", "the same"],
)
def test_views_and_crf_are_taken_where_they_are_better_beyond_chance(gains, taken):
    """What costs time must be better than what is cheaper, and by more than its mean."""
    own, base = Settings(True, 98.0, 0.35), 0.5
    grid = [{"0|1": {"iou": [[base]]}, "1|1": {"iou": [[base + gain]]}} for gain in gains]
    chosen = _chosen({"grid": grid}, own, TuneOptions(crf=False))
    assert chosen.views == (Augment(flip=True) if taken else Augment())

    def scored(iou):
        return {"iou": iou, "hit": False, "counts": np.zeros((2, 256), int).tolist()}

    same = [{"0|1": {"iou": [[base]]}, "1|1": {"iou": [[base]]}} for _ in gains]
    crf = [
        {"plain": scored(base), "psa|0.35": scored(base + gain), "irn|0.35": scored(0.1), "deeplab|0.35": scored(0.1)}
        for gain in gains
    ]
    assert _chosen({"grid": same, "crf": crf}, own, TuneOptions()).refine == ("psa" if taken else None)


def test_command(bad, data, tmp_path):
    app = build_app("tune")
    folders = [str(images.records[0].image.parents[1]) for images in data]
    command = ["tune", str(bad), "--data", folders[0], "-o", str(tmp_path / "t.onnx"), "--report-on", folders[1]]
    result = CliRunner().invoke(app, [*command, "--no-views", "--no-crf"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert all(len(line) <= 80 for line in result.output.splitlines() if "/" not in line)
    for words in ("theta", "mask IoU *", "95% interval", "chosen on", "held out", "difference", "too few"):
        assert words in result.output
    shown = CliRunner().invoke(build_app("inspect"), ["inspect", str(tmp_path / "t.onnx")])
    assert "mask-iou on 12 pictures" in " ".join(shown.output.split())
    refused = CliRunner().invoke(app, ["tune", str(bad), "--data", folders[0], "-o", str(bad)])
    assert refused.exit_code == 2 and "artifact itself" in " ".join(refused.output.split())
