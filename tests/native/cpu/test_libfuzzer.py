"""Coverage-guided calls of the C++ entry points under the sanitizers; `make fuzz` runs more of them."""

import libfuzzer
import pytest

pytestmark = [pytest.mark.hostile, pytest.mark.slow]


def test_inputs_from_nothing(tmp_path):
    program = libfuzzer.build(tmp_path, optimize="-O0")  # compiling takes longer than these inputs
    if program is None:
        pytest.skip("needs clang++ with libFuzzer, and the sources beside the tests")
    done = libfuzzer.run(program, tmp_path / "corpus", 7_000, seed=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DONE" in done.stderr
    assert not list((tmp_path / "corpus").glob("*-*"))  # crash-, timeout-, oom-
