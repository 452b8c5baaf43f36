"""Random calls of the C++ entry points under the address and undefined behaviour sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[3] / "kernels"
SOURCES = [
    "lattice",
    "mean_field",
    "many_fast",
    "many_labels", "rows",
    "two_fast",
    "infer",
    "buffer",
    "dispatch",
    "kernels_baseline",
]


def test_fuzz(tmp_path):
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler or not KERNELS.is_dir():
        pytest.skip("no C++ compiler, or no sources beside the tests")
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    (tmp_path / "empty.cpp").write_text("int main() {}\n")
    empty = [compiler, *flags, str(tmp_path / "empty.cpp"), "-o", str(tmp_path / "empty")]
    if subprocess.run(empty, capture_output=True).returncode or subprocess.run([tmp_path / "empty"]).returncode:
        pytest.skip("the compiler has no sanitizers")
    fuzzer = KERNELS.parent / "tests" / "native" / "crf_fuzz.cpp"
    files = [*(str(KERNELS / "crf" / f"{name}.cpp") for name in SOURCES), str(fuzzer)]
    program = tmp_path / "fuzz"
    subprocess.run([compiler, *flags, "-w", f"-I{KERNELS}", *files, "-o", str(program)], check=True)
    done = subprocess.run([program, "0", "3000"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "3000 seeds\n"
