"""Feeds mutated files to every reader, counts what happens, and keeps what should not.

Run: python tests/hostile/fuzz.py [--inputs N] [--seconds S] [--seed K] [--only NAME] [--findings DIR]

Each input follows from (seed, target, index) alone, so that a finding is named by these three. A worker process that
crashes, hangs or takes too much memory is a finding too; the next worker goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from mutate import mutate  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

#: Seconds of processor time that one input may take (a busy machine hangs nobody), bytes of memory that a worker may
#: take, and seconds by the clock after which an input counts as asleep for good.
PATIENCE, MEMORY, ASLEEP = 10, 6 << 30, 300


class Hang(Exception):
    """An input took longer than PATIENCE."""


def make_input(target: Target, seeds: list[bytes], seed: int, index: int) -> bytes:
    """The input of a number."""
    rng = random.Random(f"{seed}:{target.name}:{index}")
    return mutate(rng, target.kind, rng.choice(seeds))


def _alarm(*_: object) -> None:
    raise Hang(f"more than {PATIENCE} s of processor time")


def _work(target: Target, folder: Path, seed: int, start: int, stop: int, until: float, place: mmap.mmap) -> None:
    """Runs inputs `start` to `stop`; writes what happens to `folder`/log and where it is to `place`."""
    from lidcam_rt.errors import LidcamError

    warnings.simplefilter("ignore")
    # A fork has its parent's address space already, which is large where other tests have loaded large libraries.
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _alarm)
    seeds = target.seeds(folder)
    for data in seeds:  # a good file must be read, or the target tests nothing
        target.read(data, folder)
    counts: Counter[str] = Counter()
    with (folder / "log").open("a") as log:
        for index in range(start, stop):
            struct.pack_into("q", place, 0, index)
            signal.setitimer(signal.ITIMER_PROF, PATIENCE)
            try:
                target.read(make_input(target, seeds, seed, index), folder)
                counts["read"] += 1
            except LidcamError:
                counts["refused"] += 1
            except BaseException as error:
                signal.setitimer(signal.ITIMER_PROF, 0)
                log.write(json.dumps(["finding", index, f"{type(error).__name__}: {error!s:.300}"]) + "\n")
                if isinstance(error, KeyboardInterrupt):
                    raise
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            if time.monotonic() > until:
                stop = index + 1
                break
        struct.pack_into("q", place, 0, stop)
        log.write(json.dumps(["counts", stop - start, dict(counts)]) + "\n")


def fuzz(target: Target, inputs: int, seed: int, seconds: float) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Runs a target.

    Returns:
        How many inputs were read and how many refused, and the findings as (index, what happened).
    """
    counts: Counter[str] = Counter()
    findings: list[tuple[int, str]] = []
    context = multiprocessing.get_context("fork")
    until, start = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as name, mmap.mmap(-1, 8) as place:
        folder = Path(name)
        while start < inputs and time.monotonic() < until:
            (folder / "log").unlink(missing_ok=True)
            stop = min(inputs, start + 5000)
            struct.pack_into("q", place, 0, -1)
            worker = context.Process(target=_work, args=(target, folder, seed, start, stop, until, place))
            worker.start()
            before, since = -2, time.monotonic()
            while worker.is_alive():
                worker.join(0.5)
                (now,) = struct.unpack_from("q", place, 0)
                if now != before:
                    before, since = now, time.monotonic()
                elif time.monotonic() - since > ASLEEP:  # or native code that no signal reaches
                    worker.kill()
            (reached,) = struct.unpack_from("q", place, 0)
            log = folder / "log"
            for line in log.read_text().splitlines() if log.exists() else ():
                kind, number, what = json.loads(line)
                if kind == "counts":
                    counts.update(what)
                else:
                    findings.append((number, what))
            if worker.exitcode != 0:
                if reached < 0:
                    raise RuntimeError(f"{target.name}: a good file was not read (see above)")
                findings.append((reached, f"the process ended with {worker.exitcode}"))
                counts["lost"] += 1
                start = reached + 1
            else:
                start = max(stop, reached) if reached >= stop else reached
    return counts, findings


def main() -> int:
    """Runs all targets in turn and prints a table; exit status 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="per target")
    parser.add_argument("--seconds", type=float, default=3600, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a target's name")
    parser.add_argument("--findings", type=Path, help="folder for the inputs that were findings")
    options = parser.parse_args()
    chosen = [target for target in TARGETS if options.only in (None, target.name)]
    if not chosen:
        parser.error(f"--only is one of {', '.join(target.name for target in TARGETS)}")
    total = 0
    end = time.monotonic() + options.seconds
    print(f"{'target':<24}{'inputs':>9}{'read':>9}{'refused':>9}  findings", flush=True)
    for place, target in enumerate(chosen):
        share = max(1.0, (end - time.monotonic()) / (len(chosen) - place))
        counts, findings = fuzz(target, options.inputs, options.seed, share)
        print(f"{target.name:<24}{sum(counts.values()) + len(findings):>9}{counts['read']:>9}{counts['refused']:>9}"
              f"  {len(findings)}", flush=True)  # fmt: skip
        for what, count in Counter(what[:100] for _, what in findings).most_common(8):
            example = next(index for index, text in findings if text.startswith(what))
            print(f"    {count} x {what} (seed {options.seed}, index {example})")
        if options.findings and findings:
            options.findings.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as name:
                seeds = target.seeds(Path(name))
                for index, _ in findings[:50]:
                    file = options.findings / f"{target.name.replace(' ', '-')}-{options.seed}-{index}"
                    file.write_bytes(make_input(target, seeds, options.seed, index))
        total += len(findings)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
