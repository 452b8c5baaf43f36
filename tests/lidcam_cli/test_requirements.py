"""Packages that are older than the lower bounds: named, never an option that is missing or a riddle."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from lidcam_cli.requirements import OutdatedPackageError, outdated, require_current

LINES = [
    "typer>=0.19",
    'jsonargparse[signatures]>=4.35; extra == "train"',
    "nvidia-nvimgcodec-cu12[nvjpeg]>=0.9; (sys_platform == 'linux') and extra == 'gpu-decode'",
    'zoo-model==0.1.0; extra == "zoo"',
    "any-version",
]


def old(installed: dict[str, str], extra: str | None = None) -> list[tuple[str, str, str]]:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    return [(e.name, e.installed, e.needed) for e in outdated(extra, lines=lambda: LINES, version=version)]


@pytest.mark.parametrize("version", ["0.9.4", "0.18", "0.18.99", "0.18.0rc1"])
def test_an_old_one_is_named(version):
    assert old({"typer": version, "any-version": "0"}) == [("typer", version, "0.19")]


@pytest.mark.parametrize("version", ["0.19", "0.19.0", "0.29.2", "1", "1.0+local", "0.20.dev3"])
def test_a_new_one_is_not(version):
    assert not old({"typer": version})


def test_an_extra_has_requirements_of_its_own():
    installed = {"typer": "0.1", "jsonargparse": "4.34.1", "nvidia-nvimgcodec-cu12": "0.8", "zoo-model": "0.0.9"}
    assert old(installed, "train") == [("jsonargparse", "4.34.1", "4.35")]
    assert old(installed, "gpu-decode") == [("nvidia-nvimgcodec-cu12", "0.8", "0.9")]
    assert old(installed, "zoo") == [("zoo-model", "0.0.9", "0.1.0")]
    assert not old({}, "train")


def test_the_metadata_of_this_package_are_read():
    require_current("no-such-package")
    required = {entry.name for entry in outdated(version=lambda name: "0")}
    assert {"typer", "numpy", "pydantic", "onnxruntime"} <= required and "torch" not in required
    assert {"torch", "onnx"} <= {entry.name for entry in outdated("export", version=lambda name: "0")}


OLD = """
from importlib import metadata
known = metadata.version
metadata.version = lambda name: {old}.get(name) or known(name)
from lidcam_cli.main import main
{more}
main({arguments})
"""


def run(old: dict[str, str], arguments: list[str], more: str = "") -> subprocess.CompletedProcess[str]:
    code = OLD.format(old=old, arguments=arguments, more=more)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_no_verb_runs_with_an_old_typer():
    done = run({"typer": "0.15.4"}, ["localize", "--help"])
    assert done.returncode == OutdatedPackageError.exit_code == 7 and not done.stdout
    assert "typer 0.15.4 is installed, lidcam-rt needs 0.19 or newer: pip install 'typer>=0.19'" in done.stderr


def test_other_old_packages_are_named_beside_an_error_that_nobody_expected():
    fails = "import lidcam_cli.inspect as verb\nverb.inspect = lambda: [].gone"
    done = run({"pydantic": "2.5.3"}, ["inspect"], fails)
    assert done.returncode == 1 and "AttributeError" in done.stderr
    assert "pydantic 2.5.3 is installed, lidcam-rt needs 2.6 or newer, which may be the reason" in done.stderr
    assert "may be the reason" not in run({}, ["inspect"], fails).stderr


def test_doctor_lists_them():
    done = run({"pydantic": "2.5.3", "torch": "2.9.1"}, ["doctor", "--json"])
    assert "pydantic 2.5.3 is installed" in done.stdout and "pip install 'pydantic>=2.6'" in done.stdout
    assert done.returncode == 1
