"""Kernels set rounding and subnormal numbers for themselves and leave their caller's as they were."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sources import KERNELS, sources

from lidcam_rt import _kernels
from lidcam_rt.boxes import largest_box
from lidcam_rt.crf import CrfOptions, DenseCRF
from lidcam_rt.errors import InputError
from lidcam_rt.pas import PasOptions, pas, pas_reference

pytestmark = pytest.mark.slow  # not in make quick


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads and writes MXCSR")
def test_control_register_and_bits(tmp_path):
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler or not KERNELS.is_dir():
        pytest.skip("no C++ compiler, or no sources beside the tests")
    flags = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-w", f"-I{KERNELS}", "-pthread"]
    jobs = sources("cpu", "components", "crf", "metrics", "pas", isas=("baseline", "avx2", "avx512"))
    objects = [tmp_path / name for _, name, _ in jobs]
    for (source, _, more), target in zip(jobs, objects, strict=True):
        subprocess.run([*flags, *more, "-c", str(source), "-o", str(target)], check=True)
    program = tmp_path / "float_mode"
    test = Path(__file__).with_name("float_mode.cpp")
    subprocess.run([*flags, str(test), *map(str, objects), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"(33|66|99) calls\n", done.stdout)


def subnormals_are_kept() -> bool:
    with np.errstate(under="ignore"):
        return bool((np.full(64, 1e-40, np.float32) * np.float32(0.5) > 0).all())


def test_numpy_keeps_its_subnormals_after_kernels_and_after_errors():
    rng = np.random.default_rng(0)
    image, unary = rng.integers(0, 256, (20, 30, 3), np.uint8), rng.random((2, 20, 30), np.float32) * 80
    calls = [
        lambda: DenseCRF("psa").infer(image, unary),
        lambda: DenseCRF("psa-fast").infer(image, np.concatenate([unary, unary])),
        lambda: pas(rng.random((1, 2, 5, 5), np.float32), (20, 30)),
        lambda: largest_box(image[..., 0]),
        lambda: DenseCRF(CrfOptions(bilateral_srgb=1e-6)).infer(image, unary),
        lambda: DenseCRF().infer(image, unary * np.float32("nan")),
    ]
    errors = 0
    for call in calls:
        try:
            call()
        except InputError:
            errors += 1
        assert subnormals_are_kept()
    assert errors == 2


@pytest.mark.parametrize("exponent", [-126, -133, -140, -149])
def test_pas_of_subnormal_maps_has_the_bits_of_the_reference(exponent):
    cam = np.ldexp(np.random.default_rng(1).integers(0, 1000, (1, 3, 7, 6)).astype(np.float32), exponent)
    for options in (PasOptions(), PasOptions(mode="normalize", precision="float"), PasOptions(where="raw")):
        expected = pas_reference(cam, (40, 33), options)
        for got, wanted in zip(pas(cam, (40, 33), options, threads=2), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("isa", ["avx2", "baseline"])
@pytest.mark.parametrize("rounding", ["pydensecrf", "fast"])
def test_confident_energies_give_the_same_bits_on_every_instruction_set(isa, rounding):
    """Their probabilities reach down to subnormal numbers, which all sets flush alike."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    unary = np.ascontiguousarray(rng.random((2, 40, 50), np.float32) * np.float32(95))
    field = DenseCRF(CrfOptions(iterations=6, gaussian_compat=0.3, bilateral_compat=0.5, rounding=rounding))
    expected = field.infer(image, unary)
    assert (expected < 1e-30).any() and not ((expected > 0) & (expected < np.finfo(np.float32).tiny)).any()
    try:
        _kernels.use_isa(isa)
        found = field.infer(image, unary)
    except ValueError:
        pytest.skip(f"no {isa} here")
    finally:
        _kernels.use_isa("auto")
    np.testing.assert_array_equal(found, expected)
