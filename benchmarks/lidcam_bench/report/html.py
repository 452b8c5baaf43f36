"""The report of an evaluation: one HTML file with all its pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lidcam_bench.evaluation.metric_set import HEADLINE, MEANING
from lidcam_bench.report.cases import Case
from lidcam_bench.report.plots import CAPTIONS
from lidcam_rt.files import write_atomically

__all__ = ["TITLES", "score_name", "write_report"]

#: Names of the metrics, as the field writes them.
TITLES = {
    "track3": "Track 3 peak IoU",
    "track3_per_image": "Peak IoU, mean of pictures",
    "pxap": "PxAP",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "localization": "Class and box together",
    "track1": "Track 1 label maps",
}
_SCORES = {
    "peak_iou": "peak IoU", "peak_threshold": "at threshold", "pxap": "PxAP", "foreground_percent": "object pixels, %",
    "top1_cls": "Top-1 Cls", "top5_cls": "Top-5 Cls", "top1_loc": "Top-1 Loc", "top5_loc": "Top-5 Loc",
    "gt_known_loc": "GT-known Loc", "mean_iou": "mean IoU, %", "mean_accuracy": "mean accuracy, %",
    "pixel_accuracy": "pixel accuracy, %",
}  # fmt: skip
_STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;margin:0;background:#f6f8fa}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:20px;margin:40px 0 8px}
h3{font-size:16px;margin:28px 0 4px}p{margin:4px 0 10px;max-width:80ch}
.sub,.why,figcaption,td small{color:#57606a}.why{font-size:13.5px}.why b{color:#1b1f24;font-weight:600}
.note{background:#fff8e1;border-left:4px solid #f0b429;padding:8px 14px;margin:8px 0;max-width:none}
.wide{overflow-x:auto;background:#fff;border:1px solid #d8dee4;border-radius:6px}
table{border-collapse:collapse;width:100%}tr:last-child td{border-bottom:0}
th,td{padding:8px 12px;text-align:left;border-bottom:1px solid #eaeef2;vertical-align:top}
th{background:#f0f3f6;font-weight:600}td:first-child{min-width:7.5em}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}td small{display:block;font-size:12.5px}
td .up{color:#1a7f37}td .no{color:#b35900}.base td{color:#57606a;background:#fbfcfd}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:14px}
figure{margin:0;background:#fff;border:1px solid #d8dee4;border-radius:6px;overflow:hidden}
figure img{width:100%;display:block}figcaption{padding:8px 10px;font-size:13px;overflow-wrap:anywhere}
.plot{margin:0 0 14px}.plot div{overflow-x:auto}.plot img{min-width:480px;max-width:860px;margin:0 auto}
dl{display:grid;grid-template-columns:minmax(90px,max-content) minmax(0,1fr);gap:2px 16px;background:#fff;
border:1px solid #d8dee4;padding:12px;border-radius:6px;margin:0}dt{color:#57606a}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:560px){main{padding:20px 14px 48px}th,td{padding:7px 8px}
h1{font-size:22px}dl{grid-template-columns:1fr}dd{margin:0 0 6px}}
"""


def score_name(metric: str, score: str) -> str:
    """The name of a score as the field writes it, for example `at IoU 0.5`."""
    if score.startswith("max_box_acc@"):
        return f"at IoU {score.removeprefix('max_box_acc@')}, %"
    if score == "max_box_acc":
        return f"{TITLES[metric]}, %"
    if score == "peak_iou":
        return TITLES[metric]
    return _SCORES.get(score, score.replace("_", " "))


def write_report(path: Path, results: dict[str, Any], cases: Sequence[Case], plots: dict[str, bytes]) -> None:
    """Write the report.

    Args:
        path: the .html file.
        results: of `evaluate`.
        cases: of `draw_cases`.
        plots: of `curve_plots`.

    Raises:
        OutputError: it cannot be written.
    """
    data, rows = results["data"], results["rows"]
    title = f"{results['model'] or 'model'} on {data['name']}"
    body = [
        f"<h1>{_text(title)}</h1>",
        f"<p class=sub>{data['images']} pictures · {_text(results['identity']['backend'])}</p>",
        *(f"<p class=note>{_text(note)}</p>" for note in results["notes"]),
        *_summary(results),
        "<h2>Each number, and what it is not</h2>",
        "<p class=why>In brackets: 95% bootstrap interval over pictures, taken as independent (pictures made from "
        "one scene are not, and their interval is too narrow).</p>",
    ]
    for metric in TITLES:
        if any(metric in metrics for metrics in rows.values()):
            body += _table(metric, rows)
    if plots:
        body.append("<h2>Curves</h2>")
        for name, png in plots.items():
            picture = f"<div><img alt='{name}' src='{_inline(png, 'png')}'></div>"
            body.append(f"<figure class=plot>{picture}<figcaption>{_text(CAPTIONS[name])}</figcaption></figure>")
    for heading in dict.fromkeys(case.heading for case in cases):
        own = [case for case in cases if case.heading == heading]
        body.append(f"<h2>{_text(heading)}</h2><p class=why>{_text(own[0].about)}</p><div class=grid>")
        for case in own:
            picture = f"<img alt='' src='{_inline(case.jpeg, 'jpeg')}'>"
            body.append(f"<figure>{picture}<figcaption>{_text(case.caption)}</figcaption></figure>")
        body.append("</div>")
    if results["failures"]:
        body.append(f"<h2>{len(results['failures'])} pictures that could not be read</h2><ul>")
        body += [f"<li>{_text(f['file'])}: {_text(f['error'])}</li>" for f in results["failures"][:100]]
        body.append("</ul>")
    body.append("<h2>What was run</h2><dl>")
    body += [f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in _facts(results)]
    body.append("</dl>")
    page = (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{_text(title)}: evaluation</title><style>{_STYLE}</style></head><body><main>"
        + "\n".join(body)
        + "</main></body></html>\n"
    )
    write_atomically(path, page.encode())


def _summary(results: dict[str, Any]) -> list[str]:
    """The headline numbers of every map, with how far they are above the blob's."""
    rows, above = results["rows"], results["above_baseline"]
    columns = [(metric, HEADLINE[metric]) for metric in HEADLINE if any(metric in m for m in rows.values())]
    columns += [
        ("localization", score)
        for score in ("top1_loc", "gt_known_loc")
        if any(m.get("localization", {"scores": {}})["scores"].get(score) is not None for m in rows.values())
    ]
    out = [
        "<h2>At a glance</h2><p class=why>The blob is a Gaussian in the middle of the picture, made without a model: a "
        "score that it reaches is no score. Below each number, how far it is above the blob's on the same pictures, "
        "with its 95% interval.</p><div class=wide><table><tr><th>map</th>",
        *(
            f"<th>{_text(_SCORES[score] if metric == 'localization' else TITLES[metric])}</th>"
            for metric, score in columns
        ),
        "</tr>",
    ]
    for row, metrics in rows.items():
        out.append(f"<tr{' class=base' if row.startswith('baseline') else ''}><td>{_text(row)}</td>")
        for metric, score in columns:
            value = metrics.get(metric, {"scores": {}})["scores"].get(score)
            if value is None:
                out.append("<td class=n>–</td>")
                continue
            delta = above.get(row, {}).get(metric) if metric != "localization" else None
            out.append(f"<td class=n>{_number(score, value)}{_delta(score, delta)}</td>")
        out.append("</tr>")
    return [*out, "</table></div>"]


def _delta(score: str, delta: dict[str, Any] | None) -> str:
    if delta is None:
        return ""
    digits = 3 if score == "peak_iou" else 1
    text, kind = f"{delta['difference']:+.{digits}f}", "up" if delta["difference"] > 0 else "no"
    if delta["interval_95"] is not None:
        low, high = delta["interval_95"]
        text += f"<br>[{low:+.{digits}f}, {high:+.{digits}f}]"
        kind = "up" if low > 0 else "no"
        text += "" if low > 0 else ", not above the blob"
    return f"<small class={kind}>{text}</small>"


def _table(metric: str, rows: dict[str, Any]) -> list[str]:
    what, isnt = MEANING[metric]
    names = list(dict.fromkeys(n for m in rows.values() if metric in m for n in m[metric]["scores"]))
    if metric == "max_box_acc":
        names = names[:1]  # there is one delta: its share is the mean
    out = [
        f"<h3>{TITLES[metric]}</h3><p class=why>{_text(what)} <b>It is not</b> {_text(isnt)}.</p>",
        "<div class=wide><table><tr><th>map</th>",
        *(f"<th>{_text(score_name(metric, n))}</th>" for n in names),
        "<th>pictures</th></tr>",
    ]
    for row, metrics in rows.items():
        if metric not in metrics:
            continue
        entry = metrics[metric]
        cells = "".join(_cell(n, entry["scores"][n], entry["intervals_95"][n]) for n in names)
        css = " class=base" if row.startswith("baseline") else ""
        out.append(f"<tr{css}><td>{_text(row)}</td>{cells}<td class=n>{entry['images']}</td></tr>")
    return [*out, "</table></div>"]


def _facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"version": "lidcam_rt", "model": "artifact SHA-256", "data": "data SHA-256"}
    facts = {names.get(k, k): v for k, v in results["identity"].items() if k != "options"}
    facts |= results["identity"].get("options", {})
    facts |= {f"artifact: {k}": v for k, v in results["manifest"].items()}
    out = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        out.append((name.replace("_", " "), "none" if value is None else str(value)))
    return out


def _text(value: Any) -> str:
    return html.escape(str(value))


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _number(score: str, value: float) -> str:
    if score == "peak_threshold":
        return f"{value:.0f}"
    return f"{value:.{3 if score == 'peak_iou' else 1}f}"


def _cell(score: str, value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "<td class=n>not counted</td>"
    span = f"<small>[{_number(score, interval[0])}, {_number(score, interval[1])}]</small>" if interval else ""
    return f"<td class=n>{_number(score, value)}{span}</td>"
