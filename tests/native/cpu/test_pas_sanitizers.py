"""The kernels of PaS and components and their bindings under AddressSanitizer and UndefinedBehaviorSanitizer.

A module with these subjects only is compiled here; it takes the place of the installed one in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from sources import KERNELS, sources

MODULE = """
#include <nanobind/nanobind.h>
#include "cpu/isa.h"
void bind_components(nanobind::module_& parent);
void bind_pas(nanobind::module_& parent);
NB_MODULE(_kernels, m) { bind_components(m); bind_pas(m); m.def("isa", &lidcam::cpu::isa_name); }
"""
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", f"-I{KERNELS}"]


def compile_all(jobs, folder):
    """Object files; two compilers run at a time."""
    running, objects = [], []
    for source, name, flags in jobs:
        objects.append(folder / name)
        if len(running) == 2:
            finish(running.pop(0))
        command = ["g++", "-c", str(source), "-o", str(objects[-1]), *COMMON, *flags]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for job in running:
        finish(job)
    return [str(path) for path in objects]


def finish(job):
    _, text = job.communicate(timeout=300)
    assert job.returncode == 0, text[-3000:]


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    nanobind = pytest.importorskip("nanobind", reason="nanobind, which compiles the module, is not installed")
    folder = tmp_path_factory.mktemp("sanitized")
    if shutil.which("g++") is None or not Path(runtime("libasan.so")).is_absolute():
        pytest.skip("g++ with its sanitizers is not here")
    if not (KERNELS / "pas" / "pas.cpp").exists():
        pytest.skip("the sources are not here")
    (folder / "module.cpp").write_text(MODULE)
    include = Path(nanobind.include_dir())
    python = [f"-I{include}", f"-I{sysconfig.get_path('include')}"]
    combined = [f"-I{include.parent / 'ext' / 'robin_map' / 'include'}", "-fno-strict-aliasing", "-O0"]
    jobs = [(Path(nanobind.source_dir()) / "nb_combined.cpp", "nanobind.o", python + combined)]
    jobs += [(folder / "module.cpp", "module.o", ["-O0", *python])]
    checked = ["-O1", *SANITIZE]
    for name in ("pas", "components"):
        jobs.append((KERNELS / "python" / f"bind_{name}.cpp", f"bind_{name}.o", checked + python))
    subjects = sources("cpu", "components", "pas", isas=("baseline", "avx2", "avx512"))
    jobs += [(path, name, checked + flags) for path, name, flags in subjects]
    objects = compile_all(jobs, folder)
    target = folder / f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(["g++", "-shared", *SANITIZE, *objects, "-o", str(target), "-lpthread"], check=True, timeout=300)
    return target


def runtime(name):
    return subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()


def environment(**more):
    preload = " ".join(runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so"))
    return os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"} | more


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_right_and_wrong_calls(module, isa):
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("pas_fuzz.py")), str(module)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(LIDCAM_ISA=isa))
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]
    assert "right calls equal" in result.stdout
