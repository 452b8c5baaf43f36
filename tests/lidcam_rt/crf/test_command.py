"""`--refine` of localize and eval."""

import json
import os
import subprocess
import sys

import artifacts
import numpy as np
import pytest
from lidcam_bench.evaluation import EvalOptions, evaluate, open_data, runner
from PIL import Image

from lidcam_rt.crf import PRESETS, Refine
from lidcam_rt.errors import InputError, OutputError
from lidcam_rt.segmenter import SegmentOptions


def lidcam(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", "from lidcam_cli.main import main; main()", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return artifacts.data_set(tmp_path_factory.mktemp("data") / "colours", 6, noise=9)


@pytest.mark.slow
def test_localize(model, localizer, folder, tmp_path):
    out, pictures = tmp_path / "o", folder / "images"
    assert lidcam("localize", model, pictures, "-o", out, "--refine", "psa", "--map").returncode == 0
    document = json.loads((out / "results.json").read_text())
    assert document["crf"] == Refine("psa").to_dict()
    for record in document["results"]:
        assert record["crf"] == document["crf"] and record["threshold"] == 127
        expected = localizer(record["image"], refine="psa")
        found = np.asarray(Image.open(out / record["files"]["map"]))
        assert np.array_equal(found, expected.map) and record["box"] == list(expected.box)
    again = lidcam("localize", model, pictures, "-o", out, "--refine", "psa", "--map")
    assert again.returncode == 0 and "6 of 6 pictures are already done" in again.stderr
    for other, says in (
        (["--map"], "crf was psa, is none"),
        (["--map", "--refine", "irn"], "crf preset was \"psa\", is \"irn\"; crf bilateral_sxy was 80.0, is 50.0"),
        (["--map", "--refine", "psa@original"], "crf size was \"network\", is \"original\""),
    ):
        refused = lidcam("localize", model, pictures, "-o", out, *other)
        assert refused.returncode == 6 and says in refused.stderr.replace("\n", " ")
    wrong = lidcam("localize", model, pictures, "-o", tmp_path / "p", "--refine", "deeplap")
    assert wrong.returncode == 2 and "deeplab" in wrong.stderr and not (tmp_path / "p").exists()


@pytest.mark.slow
def test_a_run_from_before_the_option_is_resumed(model, folder, tmp_path):
    picture, out = folder / "images" / "00.png", tmp_path / "o"
    assert lidcam("localize", model, picture, "-o", out).returncode == 0
    settings = json.loads((out / "run.json").read_text())
    assert settings.pop("crf") is None
    (out / "run.json").write_text(json.dumps(settings))
    again = lidcam("localize", model, picture, "-o", out)
    assert again.returncode == 0 and "1 of 1 pictures are already done" in again.stderr


def test_eval(localizer, folder, tmp_path):
    data = open_data(str(folder))
    plain = evaluate(localizer, data, tmp_path / "plain", EvalOptions(replicates=0))
    options = EvalOptions(replicates=0, refine="psa", metrics=("track3", "wsol"))
    found = evaluate(localizer, data, tmp_path / "crf", options)
    for measure, score in (("track3", "peak_iou"), ("pxap", "pxap")):
        values = [r["rows"]["predicted class"][measure]["scores"][score] for r in (plain, found)]
        assert values[1] > values[0]
    assert found["rows"]["predicted class"]["track3"]["scores"]["peak_iou"] > 0.95
    assert found["identity"]["options"]["crf"] == Refine("psa").to_dict()
    assert any("dense CRF (psa" in note for note in found["notes"])
    assert not any("CRF" in note for note in plain["notes"])
    for other in (None, "irn", PRESETS["irn"]):
        with pytest.raises(OutputError, match="options crf"):
            evaluate(localizer, data, tmp_path / "crf", EvalOptions(replicates=0, refine=other))
    with pytest.raises(InputError, match="psa"):
        EvalOptions(refine="nope")


def test_eval_stopped_and_resumed(localizer, folder, tmp_path, monkeypatch):
    options = EvalOptions(
        metrics=("track3", "wsol", "track1"), replicates=5, save_every=2, batch_size=2, refine="psa@original",
        segment=SegmentOptions(refine="psa"),
    )  # fmt: skip
    data = open_data(str(folder))
    evaluate(localizer, data, tmp_path / "whole", options)
    score, calls = runner._Run.score, []

    def stopped(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return score(self, *arguments)

    monkeypatch.setattr(runner._Run, "score", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(localizer, data, tmp_path / "parts", options)
    evaluate(localizer, data, tmp_path / "parts", options)
    assert len(calls) < 5 + 6  # it went on, it did not start again
    for name in ("results.json", "images.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


@pytest.mark.slow
def test_eval_command(model, folder, tmp_path):
    pytest.importorskip("matplotlib")
    command = ["eval", model, "--data", folder, "--metrics", "track3,track1", "--replicates", "0", "--limit", "3"]
    assert lidcam(*command, "--refine", "psa", "-o", tmp_path / "o").returncode == 0
    page = (tmp_path / "o" / "report.html").read_text()
    assert "dense CRF (psa, at network size)" in page and "refined at original size" in page
    refused = lidcam(*command, "-o", tmp_path / "o")
    assert refused.returncode == 6 and "crf" in refused.stderr
