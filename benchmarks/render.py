"""Writes the list of results in benchmarks/README.md from the files in benchmarks/results/: `make bench` runs it.

python benchmarks/render.py [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- written by benchmarks/render.py -->", "<!-- end -->"


def machine_of(report: dict[str, Any]) -> str:
    """The machine in words."""
    machine = report.get("machine") or report.get("device") or ""
    if isinstance(machine, dict):
        machine = f"{machine['name']}, kernels {machine['instruction_set']}"
    load = report.get("load_average")
    return f"{machine}{f'; load {load[0]:g} to {load[1]:g}' if load else ''}"


def table(name: str, report: dict[str, Any]) -> list[str]:
    """The rows of a report whose form is known: interleaved peers, or growth."""
    rows = report.get("rows")
    first = next(iter(rows.values()), None) if isinstance(rows, dict) else None
    if not isinstance(first, dict):
        return []
    head = [f"### {report['what']}", "", f"{machine_of(report)}; {report['date']}; [samples](results/{name})", ""]
    if "median_ms" in first:
        ratio = next(key for key in first if key.startswith("times_as_fast"))
        titles = "| | ms | lowest to highest | times as fast | 10% to 90% | stages, ms |"
        out = [*head, titles, "|---|---|---|---|---|---|"]
        for peer, row in rows.items():
            low, high = row["ratio_10_90"]
            stages = ", ".join(f"{stage} {ms:g}" for stage, ms in row.get("stages_ms", {}).items())
            spread = f"{row['lowest_ms']:.1f} to {row['highest_ms']:.1f}"
            share = f"{row[ratio]:.2f} | {low:.2f} to {high:.2f}"
            out.append(f"| {peer} | {row['median_ms']:.1f} | {spread} | {share} | {stages} |")
        return [*out, ""]
    if all(isinstance(entry, dict) and "exponent" in entry for entry in first.values()):
        out = [*head, "| time grows with | peer | exponent | median ms by size |", "|---|---|---|---|"]
        for title, peers in rows.items():
            for peer, row in peers.items():
                medians = ", ".join(f"{size}: {ms:g}" for size, ms in row["median_ms"].items())
                error = row["standard_error"]
                spread = "two sizes: no spread" if error is None else f"± {error:.2f}"
                out.append(f"| {title} | {peer} | {row['exponent']:.2f} {spread} | {medians} |")
        return [*out, ""]
    return []


def render(results: Path) -> str:
    """The generated part."""
    lines = ["| file | machine | date |", "|---|---|---|"]
    tables: list[str] = []
    for path in sorted(results.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict):
            report = {}
        lines.append(f"| [{path.name}](results/{path.name}) | {machine_of(report)} | {report.get('date', '')} |")
        tables += table(path.name, report)
    return "\n".join([BEGIN, "", *lines, "", *tables, END])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check whether README.md is up to date")
    check = parser.parse_args().check
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = before + render(HERE / "results") + after
    if check:
        sys.exit(0 if new == text else "benchmarks/README.md is older than its results: python benchmarks/render.py")
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
