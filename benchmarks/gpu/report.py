"""Parts of the check, the outcome of each, and the file that records it."""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lidcam_rt.text import cut

__all__ = ["Cannot", "Outcome", "Report", "Wrong"]

STATES = ("ok", "failed", "not run")


class Cannot(Exception):
    """A part cannot run here; the message says why and what would let it."""


class Wrong(Exception):
    """A part ran, and its result differs from the reference."""


@dataclass
class Outcome:
    """The outcome of one part.

    Attributes:
        part: its name.
        state: `ok`, `failed` or `not run`.
        reason: why it failed or did not run.
        seconds: how long it took.
        data: its results.
    """

    part: str
    state: str
    reason: str = ""
    seconds: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)


class Report:
    """Runs parts one after the other, even if some fail, and collects their outcomes.

    Args:
        facts: what the machine is.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.outcomes: list[Outcome] = []

    def run(self, name: str, part: Callable[[dict[str, Any]], None]) -> Outcome:
        """Run a part: it gets a dictionary for its results, which are kept even if it stops half-way."""
        print(f"== {name}", flush=True)
        data: dict[str, Any] = {}
        start = time.perf_counter()
        state, reason = "ok", ""
        try:
            part(data)
        except Cannot as error:
            state, reason = "not run", str(error)
        except Wrong as error:
            state, reason = "failed", str(error)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            state, reason = "failed", f"{type(error).__name__} at {where}: {cut(str(error).strip(), 600)}"
        outcome = Outcome(name, state, reason, round(time.perf_counter() - start, 2), data)
        self.outcomes.append(outcome)
        print(f"   {state}" + (f": {reason}" if reason else "") + f" ({outcome.seconds:.1f} s)", flush=True)
        return outcome

    @property
    def exit_status(self) -> int:
        """0: all ran and agreed. 1: something failed. 2: nothing failed, but something could not run."""
        states = {outcome.state for outcome in self.outcomes}
        return 1 if "failed" in states else 2 if "not run" in states else 0

    def file_name(self) -> str:
        """gpu_DEVICE_DATE.json."""
        device = re.sub(r"[^a-z0-9]+", "-", str(self.facts.get("device") or "none").lower()).strip("-")
        return f"gpu_{device}_{self.facts['date']}.json"

    def write(self, path: Path) -> None:
        """Write facts and outcomes as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**self.facts, "exit_status": self.exit_status, "parts": [asdict(o) for o in self.outcomes]}
        text = json.dumps(content, indent=1, default=str)
        for place, name in ((Path(__file__).parents[2], "."), (Path.home(), "~")):  # results are published
            text = text.replace(str(place), name)
        path.write_text(text + "\n")

    def summary(self) -> str:
        """A line per part."""
        width = max(len(outcome.part) for outcome in self.outcomes)
        return "\n".join(
            f"{o.part:<{width}}  {o.state:<7}  {o.reason.splitlines()[0][:160] if o.reason else ''}".rstrip()
            for o in self.outcomes
        )
