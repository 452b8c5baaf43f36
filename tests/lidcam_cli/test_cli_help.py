"""What `--help` and the shell's completion show, for every verb."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from lidcam_cli.app import missing_modules

LIDCAM = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]
#: Verbs with verbs of their own.
GROUPS = {"data": [], "bench": ["run", "compare"], "pipeline": ["track1"], "cache": ["list", "clear"]}
VERBS = [entry for entry in entry_points(group="lidcam.verbs") if not any(missing_modules(e) for e in entry.extras)]
HERE = sorted(entry.name for entry in VERBS if entry.name not in GROUPS)
HERE += [f"{entry.name} {name}" for entry in VERBS for name in GROUPS.get(entry.name, [])]


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [*LIDCAM, *arguments],
        capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb", **environment},
    )  # fmt: skip
    assert not done.stderr
    return done.stdout


def test_every_verb_is_listed_on_one_whole_line():
    listed = run("--help").split("Commands:")[1].splitlines()[1:]
    assert {line.split()[0] for line in listed} == {entry.name for entry in entry_points(group="lidcam.verbs")}
    assert all(len(line) <= 80 and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("verb", HERE)
def test_help_fits_80_columns_and_cuts_no_name(verb):
    text = run(*verb.split(), "--help")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text and "..." not in re.sub(r"[}\]]\.\.\.", "", text)
    names = set(re.findall(r"--[a-z0-9-]+", text))
    assert {"--quiet", "--verbose", "--help"} <= names and not {"--out", "--run"} & names
    from typer.main import get_command

    from lidcam_cli.app import build_app

    command = get_command(build_app(only=verb.split()[0]))
    for word in verb.split():
        command = command.commands[word]  # type: ignore[attr-defined]
    wanted = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {name for name in wanted if name.startswith("--")} <= names


@pytest.mark.parametrize("verb", HERE)
def test_output_quiet_and_verbose_are_spelled_alike(verb):
    text = run(*verb.split(), "--help")
    assert "-q, --quiet " in text and "-v, --verbose " in text
    if verb not in ("doctor", "inspect", "serve", "bench compare", "cache list", "cache clear"):
        assert re.search(r"^  -o, --output [A-Z]", text, re.M)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "words", "index", "complete"),
    [("bash", "lidcam loc", "1", "localize"), ("bash", "lidcam localize --max", "2", "--max-pixels")],
)
def test_the_shell_completes_verbs_and_options(shell, words, index, complete):
    shown = run(_LIDCAM_COMPLETE=f"complete_{shell}", COMP_WORDS=words, COMP_CWORD=index)
    assert complete in shown.split()
    script = run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_LIDCAM_COMPLETE=complete_bash" in script
