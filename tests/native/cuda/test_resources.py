"""No kernel takes more registers, stack or spills than docs/gpu_resources.json says."""

from __future__ import annotations

import json

import pytest
import resources

pytestmark = pytest.mark.slow  # not in make quick


@pytest.fixture(scope="module")
def compiler() -> str:
    found = resources.nvcc()
    if found is None:
        pytest.skip("needs nvcc")
    return found


@pytest.mark.parametrize("architecture", ["75", "90", "120"])
def test_kernels_take_no_more_than_the_table_says(compiler, architecture):
    table = json.loads(resources.TABLE.read_text())
    measured = resources.measure(compiler, architecture)
    known = {name: rows[architecture] for name, rows in table["kernels"].items() if architecture in rows}
    again = "run python tests/native/cuda/resources.py and look at what changed"
    assert measured.keys() == known.keys(), again
    same_compiler = table["nvcc"] == resources.release(compiler)
    for name, used in measured.items():
        registers, stack, spilled = known[name]
        assert used["spilled"] <= spilled, (name, used, again)
        if same_compiler:  # another allots registers otherwise
            assert used["registers"] <= registers and used["stack"] <= stack, (name, used, known[name], again)


def test_no_kernel_spills():
    kernels = json.loads(resources.TABLE.read_text())["kernels"]
    for name, rows in kernels.items():
        for architecture, (registers, _, spilled) in rows.items():
            assert 0 < registers <= 255
            assert spilled == 0, (name, architecture)


def test_the_report_of_ptxas_is_read():
    report = """
ptxas info    : Compiling entry function 'lidcam_a' for 'sm_90'
ptxas info    : Function properties for lidcam_a
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size
ptxas info    : Function properties for _Z6calledv
    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'lidcam_b' for 'sm_90'
ptxas info    : Function properties for lidcam_b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
"""
    assert resources.parse(report) == {
        "lidcam_a": {"registers": 40, "stack": 32, "spilled": 12},
        "lidcam_b": {"registers": 32, "stack": 0, "spilled": 0},
    }
