"""A measuring process: reads a job, measures, writes the run. Its own process keeps memory and start clean.

    python -m lidcam_bench.latency.worker JOB.json RUN.json

Progress goes to standard output, a line each; everything else to standard error. The end of standard input ends this
process too: nobody is left to read what it measures.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Measure a job. Exit status 0: RUN.json holds a run; 1: it holds the error that ended it."""
    from lidcam_bench.latency.job import Job
    from lidcam_bench.latency.measure import measure
    from lidcam_rt.errors import LidcamError

    given, answer = (Path(name) for name in (arguments or sys.argv[1:]))
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries that print
    job = Job.model_validate(json.loads(given.read_text()))
    try:
        run = measure(job, lambda text: print(text, file=told))
    except LidcamError as error:
        answer.write_text(json.dumps({"error": str(error), "known": True}))
        return 1
    except Exception as error:
        traceback.print_exc()
        answer.write_text(json.dumps({"error": f"{type(error).__name__}: {error}", "known": False}))
        return 1
    answer.write_text(json.dumps(run.model_dump(mode="json")))  # names may be no UTF-8: JSON's escapes keep them
    return 0


def _end_with_parent() -> None:
    """End this process at the end of standard input."""

    def follow() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=follow, name="lidcam-parent", daemon=True).start()


if __name__ == "__main__":
    _end_with_parent()
    sys.exit(main())
