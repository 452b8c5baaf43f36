"""Packages that tests look at but nothing needs: fetched by pip or npm once, kept in the user's cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lidcam-tests"


def package(requirement: str) -> Path:
    """Folder with the unpacked wheel of NAME==VERSION; skips the test where it cannot be had."""
    cache = _cache()
    folder = cache / requirement.replace("==", "-")
    if folder.exists():
        return folder
    pip = [sys.executable, "-m", "pip"]
    with tempfile.TemporaryDirectory() as place:
        command = [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "-d", place, requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        wheels = list(Path(place).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            pytest.skip(f"{requirement} cannot be downloaded ({last[:120]})")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made, zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(made + "/unpacked")
            with contextlib.suppress(OSError):  # another test process was faster
                Path(made, "unpacked").rename(folder)
    return folder


def npm_package(requirement: str) -> Path:
    """Folder whose node_modules has NAME@VERSION, installed without its scripts; skips the test without Node or npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js with npm is not installed")
    cache = _cache()
    folder = cache / requirement.replace("@", "-")
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        place = Path(made, "package")
        place.mkdir()
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place), requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"{requirement} cannot be installed ({done.stderr.strip()[-120:]})")
        with contextlib.suppress(OSError):  # another test process was faster
            place.rename(folder)
    return folder
