"""The tools that the Makefile, the hooks and the pages name are installed by `make test` itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PLACES = ("Makefile", ".pre-commit-config.yaml", "CONTRIBUTING.md", "kernels/README.md")


@pytest.mark.parametrize("place", PLACES)
def test_tools_are_installed(place):
    named = set(re.findall(r"\.venv/bin/([\w-]+)", (ROOT / place).read_text()))
    assert named and {tool for tool in named if not (BIN / tool).exists()} == set()


def test_the_hooks_are_valid():
    command = [BIN / "pre-commit", "validate-config", ROOT / ".pre-commit-config.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
