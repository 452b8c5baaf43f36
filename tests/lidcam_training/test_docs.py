"""The script in docs/training.md, run as it stands, with stand-ins for the packages it would fetch."""

import json
import shlex
from pathlib import Path

import pytest
import snippets
from typer.testing import CliRunner

from lidcam_cli.app import build_app


@pytest.mark.slow
def test_the_script_of_a_minute(tmp_path, sources, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = snippets.blocks("docs/training.md")[0].text
    for line in script.strip().splitlines():
        arguments = shlex.split(line)[1:]
        if arguments[:2] == ["data", "make"]:
            arguments += ["--source", str(sources[0]), "--backgrounds", str(sources[1])]
        result = CliRunner().invoke(build_app(arguments[0]), arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
    assert len(json.loads(Path("found/results.json").read_text())["results"]) == 2
    assert Path("scores/report.html").stat().st_size > 1000
    analysis = json.loads(Path("analysis/analysis.json").read_text())
    assert len(analysis["pictures"]) == 4 and len(analysis["advice"]) == 4
    rows = json.loads(Path("ablation/ablation.json").read_text())["summary"]
    assert [row["stage"] for row in rows] == ["blob", "CAM +TAP", "CAM +TAP +NWC", "CAM +TAP +NWC +PaS"]


def test_shell_errors_are_messages_without_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, words in (
        (["train", "nothing"], "recipe nothing does not exist"),
        (["train", "clutter_fashion", "optim.lrr=1"], "optim.lr"),
        (["train", "clutter_fashion"], "does not exist"),
        (["ablate", "none", "--data", "cub:none"], "does not exist"),
        (["analyze", "none", "--images", "x"], "checkpoint.json"),
    ):
        result = CliRunner().invoke(build_app(arguments[0]), arguments)
        assert result.exit_code == 2, (arguments, result.output, result.exception)
        assert words in " ".join(result.output.split())
        assert "Traceback" not in result.output
