"""What `--help` and the shell's completion show, for every verb."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any, get_args

import pytest
import typer

from lidcam_cli.app import build_app, missing_modules

LIDCAM = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]
#: Verbs with verbs of their own.
GROUPS = {"data": ["make", "info"], "bench": ["run", "compare"], "pipeline": ["track1"], "cache": ["list", "clear"]}
VERBS = [entry for entry in entry_points(group="lidcam.verbs") if not any(missing_modules(e) for e in entry.extras)]
#: Those that write no results.
WITHOUT_OUTPUT = {"doctor", "inspect", "serve", "bench compare", "cache list", "cache clear", "data make", "data info"}
HERE = sorted(entry.name for entry in VERBS if entry.name not in GROUPS)
HERE += [f"{entry.name} {name}" for entry in VERBS for name in GROUPS.get(entry.name, [])]


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [*LIDCAM, *arguments],
        capture_output=True, text=True, timeout=300, check=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb", **environment},
    )  # fmt: skip
    assert not done.stderr
    return done.stdout


def test_every_verb_is_listed_on_one_whole_line():
    listed = run("--help").split("Commands:")[1].splitlines()[1:]
    assert {line.split()[0] for line in listed} == {entry.name for entry in entry_points(group="lidcam.verbs")}
    assert all(len(line) <= 80 and not line.endswith("...") for line in listed)


@pytest.mark.slow
@pytest.mark.parametrize("verb", HERE)
def test_help_fits_80_columns_and_cuts_no_name(verb):
    text = run(*verb.split(), "--help")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text and "..." not in re.sub(r"[}\]]\.\.\.", "", text)
    names = set(re.findall(r"--[a-z0-9-]+", text))
    assert {"--quiet", "--verbose", "--help"} <= names and not {"--out", "--run"} & names
    command = typer.main.get_command(build_app(only=verb.split()[0]))
    for word in verb.split():
        command = command.commands[word]  # type: ignore[attr-defined]
    wanted = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {name for name in wanted if name.startswith("--")} <= names


@pytest.mark.slow
@pytest.mark.parametrize("verb", HERE)
def test_output_quiet_and_verbose_are_spelled_alike(verb):
    text = run(*verb.split(), "--help")
    assert "-q, --quiet " in text and "-v, --verbose " in text
    if verb not in WITHOUT_OUTPUT:
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


@pytest.mark.parametrize("name", [entry.name for entry in VERBS if entry.name in GROUPS])
def test_groups_are_looked_at_whole(name):
    app = next(entry for entry in VERBS if entry.name == name).load()
    assert [command.name for command in app.registered_commands] == GROUPS[name]


def commands(verb: str) -> tuple[Any, Any]:
    """A verb's command as it was built, and the function as it was written."""
    first, *rest = verb.split()
    built = typer.main.get_command(build_app(only=first))
    for word in (first, *rest):
        built = built.commands[word]  # type: ignore[attr-defined]
    loaded = next(entry for entry in VERBS if entry.name == first).load()
    if rest:
        loaded = next(command.callback for command in loaded.registered_commands if command.name == rest[0])
    return built, inspect.unwrap(loaded)


def names_of(parameter: inspect.Parameter) -> set[str]:
    """What a parameter is called on the command line; nothing for an argument."""
    kind, info = get_args(parameter.annotation)  # every parameter is Annotated
    if isinstance(info, typer.models.ArgumentInfo):
        return set()
    given = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]
    spelled = parameter.name.replace("_", "-")
    plain = [f"--{spelled}", f"--no-{spelled}"] if bool in (kind, *get_args(kind)) else [f"--{spelled}"]
    return {name for entry in given for name in entry.split("/")} or set(plain)


@pytest.mark.parametrize("verb", HERE)
def test_every_parameter_is_an_option_of_its_name(verb):
    built, function = commands(verb)
    own = inspect.signature(function, eval_str=True).parameters.values()
    wanted = {p.name: names_of(p) for p in own if p.name != "quiet"}
    wanted |= {"quiet": {"--quiet", "-q"}, "verbose": {"--verbose", "-v"}}
    have = {p.name: {*p.opts, *p.secondary_opts} if p.param_type_name == "option" else set() for p in built.params}
    assert have == wanted


@pytest.mark.parametrize("verb", HERE)
def test_no_name_of_an_option_is_left_to_typer(verb):
    first, *rest = verb.split()
    app = build_app(only=first)
    if rest:
        app = next(group.typer_instance for group in app.registered_groups if group.name == first)
    callback = next(c.callback for c in app.registered_commands if c.name == verb.split()[-1])
    for parameter in inspect.signature(callback).parameters.values():
        info = get_args(parameter.annotation)[1]
        # typer 0.27 made --DEVICE of the metavar DEVICE
        assert isinstance(info, typer.models.ArgumentInfo) or isinstance(info.default, str) or info.param_decls
