"""Random calls of the C++ entry points under the address and undefined behaviour sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from sources import KERNELS, sources

pytestmark = pytest.mark.slow  # not in make quick

#: Calls with random arguments; `make fuzz` makes more.
SEEDS = os.environ.get("LIDCAM_CRF_SEEDS", "1000")


def test_fuzz(tmp_path):
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler or not KERNELS.is_dir():
        pytest.skip("no C++ compiler, or no sources beside the tests")
    flags = ["-std=c++17", "-O0", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    (tmp_path / "empty.cpp").write_text("int main() {}\n")
    empty = [compiler, *flags, str(tmp_path / "empty.cpp"), "-o", str(tmp_path / "empty")]
    if subprocess.run(empty, capture_output=True).returncode or subprocess.run([tmp_path / "empty"]).returncode:
        pytest.skip("the compiler has no sanitizers")
    command = [compiler, *flags, "-w", f"-I{KERNELS}", "-pthread"]
    files = [str(path) for path, _, _ in sources("cpu", "crf")]
    program = tmp_path / "fuzz"
    fuzzer = str(Path(__file__).with_name("crf_fuzz.cpp"))
    subprocess.run([*command, "-DLIDCAM_TARGET=baseline", *files, fuzzer, "-o", str(program)], check=True)
    done = subprocess.run([program, "0", SEEDS], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{SEEDS} seeds\n"
