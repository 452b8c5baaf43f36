"""`lidcam bench`, and `lidcam bench compare`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lidcam_cli.options import Device, RefinePreset, Split

__all__ = ["app"]

#: Exit statuses of `compare`: a bound is broken; a bound seems broken, and the samples do not settle it.
BEYOND, UNDECIDED = 1, 9
#: What the terminal shows of the report's first table.
_SHOWN = ("verdicts", "p50, ms", "p99, ms", "pictures/s offline", "accuracy", "mask IoU with the reference")
#: Exit status of a measurement in which some variants could not be run.
SOME_FAILED = 8


class _RunByDefault(TyperGroup):
    """`lidcam bench TARGET...` is `lidcam bench run TARGET...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the command first where there is none."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Measure latency, throughput, memory and accuracy.",
    help="Measure latency, throughput, memory and accuracy, per stage and per engine; compare two measurements. "
    "`lidcam bench TARGETS` is short for `lidcam bench run TARGETS`.",
)


@app.command("run")
def run(
    targets: Annotated[
        list[Path], typer.Argument(metavar="TARGETS", help="Artifacts, engines, and checkpoint folders.")
    ],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of pictures; with labels or masks, see --data.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the reports.")],
    scenario: Annotated[
        str,
        typer.Option(metavar="NAMES", help="LoadGen's: single-stream, multi-stream, server, offline; comma-separated."),
    ] = "single-stream,offline",
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="auto, onnxruntime, openvino, tensorrt; for checkpoints pytorch and torch-compile; comma-separated.",
        ),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(metavar="NAMES", help="auto (the file's), fp32, bf16, fp16, int8; comma-separated.")
    ] = "auto",
    device: Device = "auto",
    batch: Annotated[str, typer.Option(metavar="COUNTS", help="Pictures per network call; comma-separated.")] = "1",
    threads: Annotated[
        str, typer.Option(metavar="COUNTS", help="Threads per call; 0: the runtime chooses; comma-separated.")
    ] = "0",
    refine: RefinePreset = None,
    pipeline: Annotated[str, typer.Option(metavar="NAME", help="track3 or track1 (label maps).")] = "track3",
    scope: Annotated[
        str, typer.Option(metavar="NAME", help="end-to-end, or inference: the call of the engine alone.")
    ] = "end-to-end",
    duration: Annotated[float, typer.Option(metavar="SECONDS", help="Shortest duration of a scenario.")] = 10.0,
    max_duration: Annotated[float, typer.Option(metavar="SECONDS", help="Longest duration of a scenario.")] = 60.0,
    load: Annotated[
        str,
        typer.Option(metavar="SHARES", help="Server: rates as shares of the offline throughput; comma-separated."),
    ] = "0.8",
    qps: Annotated[str, typer.Option(metavar="RATES", help="Server: queries per second; comma-separated.")] = "",
    bound: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Server: bound on the p99. [default: ten times a single query's median]"),
    ] = None,
    max_images: Annotated[int, typer.Option(min=1, metavar="COUNT", help="Use the first COUNT pictures.")] = 256,
    accuracy: Annotated[bool, typer.Option(help="Score each variant too, in a separate pass.")] = True,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled pictures, as for `lidcam eval`. [default: --images, if labelled]"),
    ] = None,
    split: Split = "test",
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="TARGET",
            help="What masks and classes are compared with. [default: the first target with the same classes]",
        ),
    ] = None,
    cold_starts: Annotated[
        int, typer.Option(min=0, metavar="COUNT", help="Processes started to time the cold start; 0: none.")
    ] = 3,
    floor: Annotated[bool, typer.Option(help="Measure the machine's matrix rate and bandwidth too.")] = True,
) -> None:
    """Measure targets; write results.json, results.md, report.html.

    Every combination of target, engine, precision, threads, batch and CRF is measured in a process of its own, one
    after the other. --refine takes several comma-separated presets, `none` among them. How to read the numbers, and
    how far to trust them: docs/benchmarking.md.

    After Ctrl-C the folder has the combinations that were done. Exit status: 0, or 8 if some combinations could not
    be run or scored (the report says why). A scenario that is INVALID is
    a result: the report says so.
    """
    from lidcam_bench.latency.bench import run_bench
    from lidcam_bench.latency.plan import BenchOptions, plan_jobs, plan_targets
    from lidcam_bench.latency.results import sample_files, save_results
    from lidcam_bench.report.bench_html import write_bench_reports
    from lidcam_cli.console import note, progress
    from lidcam_cli.sources import find_images
    from lidcam_rt.files import output_folder
    from lidcam_rt.text import plain

    options = BenchOptions(
        scenarios=_names(scenario),  # type: ignore[arg-type]  # checked by the class
        engines=_names(engine),
        precisions=_names(precision),
        device=device,
        batches=_counts("--batch", batch),
        threads=_counts("--threads", threads),
        refine=tuple(None if name == "none" else name for name in _names(refine)) if refine else (None,),
        pipeline=pipeline,  # type: ignore[arg-type]
        scope=scope,  # type: ignore[arg-type]
        seconds=duration,
        max_seconds=max(duration, max_duration),
        loads=_numbers("--load", load),
        qps=_numbers("--qps", qps),
        bound_ms=bound,
        cold_starts=cold_starts,
        floor=floor,
    )
    planned = plan_targets(targets, options)
    pictures = [Path(name) for name in find_images([str(images)]).paths][:max_images]
    scored = _accuracy(planned, pictures, images, data, split, reference, max_images) if accuracy else None
    kept: list[Any] = []

    def keep(so_far: Any) -> None:
        save_results(output / "results.json", so_far)
        kept[:] = [so_far]

    with output_folder(output):
        former = sample_files(output / "results.json")
        jobs = plan_jobs(planned, options, pictures, output / "samples", scored)
        with progress("variants") as bar:
            task = bar.add_task("bench", total=len(jobs))
            try:
                results = run_bench(
                    jobs,
                    options,
                    command=_command(),
                    progress=lambda done, target, step: bar.update(
                        task, completed=done, description=plain(f"{target}: {step}")
                    ),
                    keep=keep,
                )
            except KeyboardInterrupt:
                if kept:
                    write_bench_reports(output, kept[0])
                    done = f"{len(kept[0].runs)} of {len(jobs)} variants"
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # this says how to continue, not the main command
                    note(f"interrupted; {output} has {done}; the same command measures all of them again")
                    raise typer.Exit(130) from None
                raise
            bar.update(task, completed=len(jobs))
        save_results(output / "results.json", results)
        for name in former - sample_files(output / "results.json"):
            (output / name).unlink(missing_ok=True)
        _, page = write_bench_reports(output, results)
    _print(results, page)
    if any(entry.error or (entry.accuracy and entry.accuracy.error) for entry in results.runs):
        raise typer.Exit(SOME_FAILED)


@app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="results.json of the first measurement.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="results.json of the second.")],
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:LIMIT",
            help="How much worse a quantity may become, in percent or in its own unit: p99:5%, crf:10%, miou:0.005. "
            "May be given several times.",
        ),
    ] = None,
) -> None:
    """Compare two reports, and name the stage to blame.

    Exit status: 0 if every bound holds; 1 if one is broken; 9 if one seems broken, but the samples do not settle
    whether anything changed: measure longer.
    """
    from lidcam_bench.latency.compare import compare_results, parse_bound

    bounds = [parse_bound(text) for text in fail or []]
    found = compare_results(before, after, bounds)
    _print_comparison(found)
    if found.state != "within":
        raise typer.Exit(BEYOND if found.state == "beyond" else UNDECIDED)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _counts(option: str, text: str) -> tuple[int, ...]:
    from lidcam_rt.errors import InputError

    try:
        return tuple(dict.fromkeys(int(part) for part in _names(text)))
    except ValueError:
        raise InputError(f"{option} takes comma-separated whole numbers, such as 1,8,32; got {text!r}") from None


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from lidcam_rt.errors import InputError

    try:
        return tuple(dict.fromkeys(float(part) for part in _names(text)))
    except ValueError:
        raise InputError(f"{option} takes comma-separated numbers, such as 0.5,0.8,1.2; got {text!r}") from None


def _accuracy(
    planned: list[Any], pictures: list[Path], images: Path, data: str | None, split: str, reference: Path | None,
    limit: int,
) -> Any:  # fmt: skip
    """The accuracy job: labelled data where there are some, and a reference where there is more than one result."""
    from lidcam_bench.data import open_data
    from lidcam_bench.latency.accuracy import has_truth
    from lidcam_bench.latency.job import AccuracyJob
    from lidcam_bench.latency.target import Target
    from lidcam_rt.errors import DataError, InputError

    labelled = data
    if labelled is not None:
        open_data(labelled, split)  # data that cannot be read are reported before anything is measured
    else:
        try:
            labelled = str(images) if has_truth(open_data(str(images), split)) else None
        except DataError:  # a plain folder of pictures
            labelled = None
    first = planned[0]
    held = None
    if reference is not None:
        if not reference.exists():
            raise InputError(f"{reference}: no such file or folder. Check --reference")
        held = Target(path=reference, device=first.device, pipeline=first.pipeline)
    elif any((t.path, t.engine, t.precision) != (first.path, first.engine, first.precision) for t in planned):
        held = first.model_copy(update={"threads": 0, "batch": 1, "refine": None})
    if labelled is None and held is None:
        return None
    rest: dict[Path, Target] = {}
    for target in planned if reference is None else ():
        if target.path != first.path:
            rest.setdefault(target.path, target.model_copy(update={"threads": 0, "batch": 1, "refine": None}))
    return AccuracyJob(
        data=labelled, split=split, images=tuple(pictures), reference=held, others=tuple(rest.values()), limit=limit
    )


def _command() -> str:
    """The command, without the folders of this machine."""
    import re
    import shlex
    import sys

    words = [re.sub(r"^(-o|--[\w-]+=|)/(?:.*/)?", r"\1", word) for word in sys.argv[1:]]
    return shlex.join(["lidcam", *words])


def _print(results: Any, page: Path) -> None:
    from rich.table import Table

    from lidcam_bench.report.bench_view import view
    from lidcam_cli.console import cell, say

    shown = view(results)
    headings = shown["glance"]["headings"]
    kept = [i for i, name in enumerate(headings) if name in _SHOWN]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variant")
    for i in kept:
        table.add_column(headings[i], justify="right")
    for row in shown["glance"]["rows"]:
        table.add_row(cell(row["name"]), *(cell(row["cells"][i]) for i in kept))
    say(table)
    for warning in shown["warnings"]:
        places = f" ({'; '.join(warning['places'])})" if warning["places"] else ""
        say(f"Warning: {warning['text']}{places}", style="yellow", wrap=True)
    say(str(page))


def _print_comparison(found: Any) -> None:
    from rich.table import Table

    from lidcam_cli.console import cell, say

    for where in dict.fromkeys(change.where for change in found.changes):
        table = Table(box=None, pad_edge=False, header_style="bold", title=where, title_justify="left")
        for heading in ("quantity", "A", "B", "change", "95% interval", "bound", ""):
            table.add_column(heading, justify="left" if heading in ("quantity", "") else "right")
        for change in (entry for entry in found.changes if entry.where == where):
            percent = "" if change.percent is None else f"{change.percent:+.1f}%"
            span = ""
            if change.ratio is not None:
                span = f"{100 * (change.ratio.low - 1):+.1f}% to {100 * (change.ratio.high - 1):+.1f}%"
            state = "" if change.bound is None else "ok" if change.state == "within" else change.state
            style = {"beyond": "bold red", "undecided": "yellow", "ok": "green"}.get(state, "")
            values = (f"{change.before:.4g}", f"{change.after:.4g}", percent, span, str(change.bound or ""))
            table.add_row(cell(change.name), *(cell(value) for value in values), cell(state, style))
        say(table)
        say()
    for note in found.notes:
        say(f"Note: {note}", style="dim", wrap=True)
    for change in found.changes:
        if change.state != "within":
            style = "red" if change.state == "beyond" else "yellow"
            text = f"{change.state}: {change.where}: {change.name} {change.before:.4g} to {change.after:.4g}"
            say(f"{text}. {change.text}", style=style, wrap=True)
    for text in found.unheld:
        say(f"undecided: {text}", style="yellow", wrap=True)
