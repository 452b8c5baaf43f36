"""The report of an evaluation: one HTML file with all its pictures in it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lidcam_rt.evaluation.board import MEANING
from lidcam_rt.evaluation.runner import write_atomically

__all__ = ["curve_plots", "write_report"]

_TITLES = {
    "track3": "Track 3 · peak IoU",
    "track3_per_image": "Peak IoU, mean over images",
    "pxap": "PxAP",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "localization": "Class and box together",
    "track1": "Track 1 · label maps",
}
_COLOURS = ("#1f6feb", "#d9480f", "#868e96")
_STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-
serif;color:#1b1f24;margin:0;background:#f6f8fa} main{max-width:1080px;margin:0 auto;padding:32px
24px}h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px} .sub{color:#57606a;margin:0 0
20px}.note{background:#fff8e1;border-left:4px solid #f0b429;padding:8px 14px;margin:8px 0} table{border-
collapse:collapse;width:100%;background:#fff;border:1px solid #d8dee4;border-radius:6px} th,td{padding:8px
12px;text-align:left;border-bottom:1px solid #eaeef2;vertical-align:top}th{background:#f0f3f6;font-
weight:600} td.n{font-variant-numeric:tabular-nums;white-space:nowrap}td
small{color:#57606a;display:block}.base td{color:#6e7781} .why{color:#57606a;font-size:13.5px;margin:4px 0
10px}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:14px}
figure{margin:0;background:#fff;border:1px solid #d8dee4;border-radius:6px;overflow:hidden}figure
img{width:100%;display:block} figcaption{padding:8px 10px;font-size:13px}.plots
img{width:100%;background:#fff;border:1px solid #d8dee4;border-radius:6px} dl{display:grid;grid-template-
columns:max-content 1fr;gap:2px 16px;background:#fff;border:1px solid #d8dee4;padding:12px;border-
radius:6px} dt{color:#57606a}dd{margin:0;overflow-wrap:anywhere}
"""


def curve_plots(results: dict[str, Any]) -> dict[str, bytes]:
    """The curves as PNG by name: `iou_curve` and `box_accuracy`, as far as they were measured."""
    from matplotlib.figure import Figure

    plots = {}
    for name, metric, x_label, y_label in (
        ("iou_curve", "track3", "map threshold t (0 to 255)", "IoU of {map >= t}, all images"),
        (
            "box_accuracy",
            "max_box_acc",
            "map threshold tau (share of the map's maximum)",
            "images with a right box, %",
        ),
    ):
        figure = Figure(figsize=(9, 3.8), dpi=110, layout="constrained")
        axes = figure.subplots()
        drawn = False
        for (row, metrics), colour in zip(results["rows"].items(), _COLOURS, strict=False):
            if metric not in metrics:
                continue
            curve = metrics[metric]["curve"]
            curve = curve if metric == "track3" else curve[0]
            x = range(256) if metric == "track3" else [i / len(curve) for i in range(len(curve))]
            style = "--" if row.startswith("baseline") else "-"
            axes.plot(x, curve, style, color=colour, label=row, lw=1.8)
            best = max(range(len(curve)), key=curve.__getitem__)
            axes.plot([list(x)[best]], [curve[best]], "o", color=colour, ms=5)
            drawn = True
        if drawn:
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label, fontsize=9)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
            plots[name] = buffer.getvalue()
    return plots


def write_report(
    path: Path,
    results: dict[str, Any],
    cases: Sequence[tuple[str, str, bytes]],
    plots: dict[str, bytes],
) -> None:
    """Write the report.

    Args:
        path: the .html file.
        results: of `evaluate`.
        cases: (heading, caption, JPEG bytes) of single pictures, grouped by heading.
        plots: of `curve_plots`.

    Raises:
        OutputError: it cannot be written.
    """
    data, rows = results["data"], results["rows"]
    body = [
        f"<h1>{_text(results['model'] or 'model')} on {_text(data['name'])}</h1>",
        f"<p class=sub>{data['images']} pictures · {_text(results['identity']['backend'])}</p>",
        *(f"<p class=note>{_text(note)}</p>" for note in results["notes"]),
        "<h2>Numbers</h2><p class=why>In brackets: 95% bootstrap interval over images, taken as independent. "
        "A score that the centred blob reaches is no score.</p>",
    ]
    for metric, title in _TITLES.items():
        if not any(metric in metrics for metrics in rows.values()):
            continue
        names = list(dict.fromkeys(n for m in rows.values() if metric in m for n in m[metric]["scores"]))
        body.append(f"<h3>{title}</h3><p class=why>{_text(MEANING[metric])}</p><table><tr><th>map</th>")
        body += [f"<th>{_text(n.replace('_', ' '))}</th>" for n in names]
        body.append("<th>pictures</th></tr>")
        for row, metrics in rows.items():
            if metric not in metrics:
                continue
            entry = metrics[metric]
            cells = "".join(_cell(entry["scores"][n], entry["intervals_95"][n]) for n in names)
            css = " class=base" if row.startswith("baseline") else ""
            body.append(f"<tr{css}><td>{_text(row)}</td>{cells}<td class=n>{entry['images']}</td></tr>")
        body.append("</table>")
    if plots:
        body.append("<h2>Curves</h2><div class=plots>")
        body += [f"<p><img alt='{name}' src='{_inline(png, 'png')}'></p>" for name, png in plots.items()]
        body.append("</div>")
    for heading in dict.fromkeys(case[0] for case in cases):
        body.append(f"<h2>{_text(heading)}</h2><div class=grid>")
        for _, caption, jpeg in (case for case in cases if case[0] == heading):
            picture = f"<img alt='' src='{_inline(jpeg, 'jpeg')}'>"
            body.append(f"<figure>{picture}<figcaption>{_text(caption)}</figcaption></figure>")
        body.append("</div>")
    body.append("<h2>What was run</h2><dl>")
    facts = {**results["identity"], **{f"manifest {k}": v for k, v in results["manifest"].items()}}
    body += [f"<dt>{_text(k)}</dt><dd>{_text(str(v))}</dd>" for k, v in facts.items()]
    body.append("</dl>")
    if results["failures"]:
        body.append(f"<h2>{len(results['failures'])} pictures that could not be read</h2><ul>")
        body += [f"<li>{_text(f['file'])}: {_text(f['error'])}</li>" for f in results["failures"][:100]]
        body.append("</ul>")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_text(results['model'] or 'model')}: evaluation</title><style>{_STYLE}</style><main>"
        + "\n".join(body)
        + "</main></html>\n"
    )
    write_atomically(path, page.encode())


def _text(value: Any) -> str:
    return html.escape(str(value))


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _cell(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "<td class=n>not counted</td>"
    digits = 3 if abs(value) <= 1 else 1
    span = f"<small>[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]</small>" if interval else ""
    return f"<td class=n>{value:.{digits}f}{span}</td>"
