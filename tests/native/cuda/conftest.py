from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import builds


@pytest.fixture(scope="session")
def stand_in() -> Path:
    """The library that is a libcuda.so.1 whose device is the CPU."""
    return builds.build("stand_in", "stand_in_driver.cpp", "-O2", "-shared")


@pytest.fixture(scope="session")
def kernels(stand_in) -> ctypes.CDLL:
    return ctypes.CDLL(str(stand_in))
