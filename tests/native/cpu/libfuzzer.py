"""Builds the libFuzzer harness of the kernels and runs it: python tests/native/cpu/libfuzzer.py [RUNS [SEED [FOLDER]]]

FOLDER keeps the corpus, so that the next call goes on from it. An input that fails is written there as `crash-...`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sources import KERNELS, sources

FLAGS = ["-std=c++17", "-g1", "-ffp-contract=off", "-fno-omit-frame-pointer", "-w", "-pthread"]
SANITIZE = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]


def build(folder: Path, *, optimize: str = "-O1") -> Path | None:
    """The program, or None where clang or its fuzzer is missing."""
    here = Path(__file__).parent
    compiler = shutil.which("clang++") or next((shutil.which(f"clang++-{v}") for v in range(25, 11, -1)), None)
    if compiler is None or not KERNELS.is_dir():
        return None
    (folder / "empty.cpp").write_text(
        "#include <cstddef>\n#include <cstdint>\n"
        'extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }\n'
    )
    empty = [compiler, *SANITIZE, str(folder / "empty.cpp"), "-o", str(folder / "empty")]
    if subprocess.run(empty, capture_output=True).returncode:
        return None
    command = [compiler, *FLAGS, optimize, *SANITIZE, f"-I{KERNELS}", "-DLIDCAM_TARGET=baseline"]
    command += ["-include", str(here / "clang.h")]
    files = [str(path) for path, _, _ in sources("cpu", "components", "metrics", "pas", "crf")]
    subprocess.run([*command, *files, str(here / "kernels_fuzz.cpp"), "-o", str(folder / "kernels_fuzz")], check=True)
    return folder / "kernels_fuzz"


def run(program: Path, corpus: Path, runs: int, seed: int) -> subprocess.CompletedProcess[str]:
    """`runs` inputs, of at most 4 KiB, on top of what the corpus holds."""
    corpus.mkdir(parents=True, exist_ok=True)
    # A limit for one allocation, not for all: what the sanitizer keeps back of freed memory grows with the inputs.
    bounds = ["-max_len=4096", "-len_control=10", "-timeout=10", "-rss_limit_mb=0", "-malloc_limit_mb=2048"]
    command = [str(program), f"-runs={runs}", f"-seed={seed}", *bounds, f"-artifact_prefix={corpus}/", str(corpus)]
    return subprocess.run(command, capture_output=True, text=True)


def main() -> int:
    """Exit status 1 where an input failed, 2 where nothing can be built."""
    given = sys.argv[1:]
    runs, seed = int(given[0]) if given else 100_000, int(given[1]) if len(given) > 1 else 1
    with tempfile.TemporaryDirectory() as name:
        program = build(Path(name))
        if program is None:
            print("needs clang++ with libFuzzer, and the sources beside the tests")
            return 2
        done = run(program, Path(given[2]) if len(given) > 2 else Path(name) / "corpus", runs, seed)
        print(done.stderr[-3000:])
        return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
