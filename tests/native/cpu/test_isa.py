"""One instruction set for the kernels of every subject, chosen by LIDCAM_ISA."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lidcam_rt import _kernels

ORDER = ["baseline", "avx2", "avx512"]


def isa_of_a_process(wish: str | None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "LIDCAM_ISA"}
    if wish is not None:
        environment["LIDCAM_ISA"] = wish
    command = [sys.executable, "-c", "from lidcam_rt import _kernels; print(_kernels.isa())"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip()


def test_the_environment_chooses_and_the_newest_is_the_default():
    newest = isa_of_a_process(None)
    for name in ORDER:
        available = ORDER.index(name) <= ORDER.index(newest)
        assert isa_of_a_process(name) == (name if available else newest)
    assert isa_of_a_process("base") == isa_of_a_process("") == newest  # not a name


def test_a_test_can_change_it():
    before = _kernels.isa()
    try:
        _kernels.use_isa("baseline")
        assert _kernels.isa() == "baseline"
        with pytest.raises(ValueError, match="no kernels for mmx"):
            _kernels.use_isa("mmx")
        assert _kernels.isa() == "baseline"
        _kernels.use_isa("auto")
        assert _kernels.isa() == isa_of_a_process(None)
    finally:
        _kernels.use_isa(before)
