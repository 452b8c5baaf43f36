"""Every barrier of the CUDA sources is needed, and no kernel reaches past its memory or needs what C++ leaves open."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import builds
import cases
import pytest

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return cases.write(tmp_path_factory.mktemp("cases") / "cases.bin")


LAUNCHES = 1000  # as in check.cpp


def check(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def test_kernels_under_address_and_undefined_behaviour_sanitizers(file):
    try:
        program = builds.build("sanitized", "check.cpp", *builds.SANITIZED)
    except AssertionError as error:
        if "asan" in str(error) and "cannot find" in str(error):
            pytest.skip("the sanitizers' libraries are not installed")
        raise
    done = check(program, file, "all", -1, 4)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agree" in done.stdout
    # What the sanitizer is for: kernels that get less shared memory than they use.
    small = cases.write(file.with_name("small.bin"), shared=256)
    for subject in ("pas", "components"):
        done = check(program, small, subject)
        assert done.returncode != 0
        assert "AddressSanitizer: use-after-poison" in done.stderr


def test_a_removed_barrier_or_launch_is_caught(file, tmp_path):
    places = builds.with_switches(tmp_path / "kernels")
    assert len(places["pas"]) >= 10
    assert len(places["components"]) >= 7
    assert len(places["crf"]) >= 8
    # The dense CRF has launches too; the shortest case has 12.
    places["crf"] += [f"{LAUNCHES + number} launch {number}" for number in range(12)]
    program = builds.build("mutants", "check.cpp", "-O1", "-DLIDCAM_MUTANTS", kernels=tmp_path / "kernels")
    whole = check(program, file)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    mutants = [(subject, place) for subject, all_ in places.items() for place in all_]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda mutant: check(program, file, mutant[0], mutant[1].split()[0]).returncode, mutants))
    assert not [place for (_, place), status in zip(mutants, done, strict=True) if status == 0]
