"""What the GPU check does beside its parts: taking turns, and giving built kernels to other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import build  # noqa: E402
from benchmarks.gpu.resident import in_turns  # noqa: E402


def test_contenders_take_turns_and_one_that_fails_is_noted():
    calls: list[str] = []
    notes: dict[str, str] = {}

    def fail(pictures):
        raise RuntimeError("out of memory")

    contenders = {"a": lambda p: calls.append("a"), "fails": fail, "b": lambda p: calls.append("b")}
    rows = [in_turns(contenders, list(range(batch)), 0.0, notes) for batch in (2, 3)]
    assert [row["batch"] for row in rows] == [2, 3]
    for row in rows:
        assert list(row["contenders"]) == ["a", "b"]
        assert all(entry["samples"] == 1 and entry["images/s"] > 0 for entry in row["contenders"].values())
    assert calls == ["a"] * 3 + ["b"] * 3 + ["a", "b"] + ["a"] * 3 + ["b"] * 3 + ["a", "b"]
    assert list(notes) == ["fails, batch 2", "fails, batch 3"] and "out of memory" in notes["fails, batch 2"]


def test_other_processes_find_the_kernels_that_were_built(tmp_path, monkeypatch):
    """The module lies where only the finder looks, under another name than its own."""
    import lidcam_rt._kernels as kernels

    monkeypatch.setattr(build, "_offered", [])
    library = tmp_path / f"built{Path(kernels.__file__).suffix}"
    library.symlink_to(kernels.__file__)
    build.offer(library, tmp_path / "python")
    ask = "import lidcam_rt._kernels as k; print(k.__file__)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(build.offered())}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(library), done.stderr
