"""The cold start: fresh processes, from nothing to a first result.

Run as a program it is such a process: it opens a target, localizes a picture twice and prints the time after each step.
"""

from __future__ import annotations

import time

_FIRST_LINE = time.monotonic_ns()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from lidcam_bench.latency.facts import ColdStart
    from lidcam_bench.latency.target import Target

__all__ = ["measure_cold_start"]

_STEPS = ("interpreter_ms", "import_ms", "load_ms", "first_call_ms", "second_call_ms")


def measure_cold_start(
    target: Target,
    picture: Path,
    processes: int,
    folder: Path,
    *,
    spawn: Callable[[Sequence[str]], str] | None = None,
    clock: Callable[[], int] = time.monotonic_ns,
) -> ColdStart:
    """Start fresh processes and take the medians.

    Args:
        target: what each opens.
        picture: what each localizes, twice.
        processes: how many, at least 1.
        folder: for the job's file.
        spawn: runs a command and returns the last line that it printed; for tests.
        clock: nanoseconds of the clock that all processes share.

    Raises:
        LidcamError: a process failed.
    """
    from statistics import median

    from lidcam_bench.latency.facts import ColdStart

    job = folder / "cold_start.json"
    job.write_text(json.dumps({"target": target.model_dump(mode="json"), "picture": str(picture)}))
    command = [sys.executable, "-m", "lidcam_bench.latency.cold_start", str(job)]
    rows = []
    for _ in range(processes):
        start = clock()
        marks = json.loads((spawn or _spawn)(command))
        rows.append([(after - before) / 1e6 for before, after in zip([start, *marks[:-1]], marks, strict=True)])
    return ColdStart(processes=processes, **{name: median(row[i] for row in rows) for i, name in enumerate(_STEPS)})


def _spawn(command: Sequence[str]) -> str:
    import subprocess

    from lidcam_rt.errors import LidcamError

    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LidcamError(f"a fresh process could not localize ({last}); `lidcam localize` shows why")
    return done.stdout.strip().splitlines()[-1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Open a target and localize twice; print the nanoseconds of the monotonic clock after each step."""
    marks = [_FIRST_LINE]
    job = json.loads(Path((arguments or sys.argv[1:])[0]).read_text())
    target, picture = job["target"], Path(job["picture"]).read_bytes()
    localizer: Any
    if target["engine"] in ("pytorch", "torch-compile"):
        from lidcam_bench.latency.target import Target, open_target

        marks.append(time.monotonic_ns())
        localizer = open_target(Target.model_validate(target))
    else:  # as an embedder does it, with nothing of this package imported
        from lidcam_rt import load

        marks.append(time.monotonic_ns())
        names = {"engine": "backend", "device": "device", "threads": "threads", "precision": "precision"}
        localizer = load(target["path"], **{option: target[name] for name, option in names.items()})
    marks.append(time.monotonic_ns())
    for _ in range(2):
        localizer(picture, keep_image=False, refine=target["refine"] or "none")
        marks.append(time.monotonic_ns())
    print(json.dumps(marks))


if __name__ == "__main__":
    main()
