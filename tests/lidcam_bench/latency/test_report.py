"""The reports of `lidcam bench`: what they say of made results, and that the page stands alone."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from lidcam_bench.latency.facts import Accuracy, Energy, Finding, Split, Work
from lidcam_bench.latency.results import Run

sys.path.insert(0, str(Path(__file__).parent))
import made

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
from lidcam_bench.latency.results import save_samples
from lidcam_bench.report.bench_html import write_bench_reports
from lidcam_bench.report.bench_plots import growth_exponent, plot_labels, short_labels
from lidcam_bench.report.bench_view import number, view

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.sources = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def several(tmp_path) -> tuple:
    """Two engines, two batches, two numbers of threads, a CRF, a server, accuracy, and one that failed."""
    runs = []
    for i, (key, fields, factor) in enumerate((
        ("m.onnx, onnxruntime, 1 thread", {"threads": 1}, 1.6), ("m.onnx, onnxruntime, 2 threads", {"threads": 2}, 1.0),
        ("m.onnx, onnxruntime, 2 threads, batch 8", {"batch": 8}, 7.0), ("m.onnx, pytorch, 2 threads", {}, 1.4),
    )):  # fmt: skip
        arrays = made.samples(n=400, seed=i, slower=dict.fromkeys(made.STAGES, factor))
        save_samples(tmp_path / "samples" / f"{i}.npz", arrays)
        variant = made.variant(key, **fields)
        kind = "multi-stream" if variant.batch > 1 else "single-stream"
        split = Split(shares_percent={"network": 92.0, "CAM + PaS": 8.0}, source="a profile")
        main = made.scenario(arrays, f"{i}.npz", kind=kind, images=400 * variant.batch, split=split)
        offline = main.model_copy(update={
            "scenario": "offline", "latency": None, "stages": (), "samples": None, "queries": 1,
            "images_per_second": 12.0 * variant.batch**0.5,
        })  # fmt: skip
        servers = [
            main.model_copy(update={"scenario": "server", "load": load, "target_qps": 12 * load, "bound_ms": 900.0,
                                    "bound_percentile": 99.0, "verdict": verdict, "queue": main.latency,
                                    "reasons": reasons, "images_per_second": 12 * min(load, 1)})
            for load, verdict, reasons in (
                (0.8, "VALID", ()), (1.2, "INVALID", ("the 99th percentile is over the bound of 900 ms",)),
            )
        ]  # fmt: skip
        accuracy = made.accuracy(miou=0.5 + 0.01 * i, top1_cls=70.0) if i != 2 else None
        runs.append(made.run(arrays, variant=variant, scenarios=(main, offline, *servers), accuracy=accuracy))
    failed = Run(variant=made.variant("m.onnx, tensorrt"), error="TensorRT runs engines, not artifacts <&>")
    return made.results(*runs, failed), tmp_path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    results, folder = several(tmp_path_factory.mktemp("report"))
    text, page = write_bench_reports(folder, results)
    return results, text.read_text(), page.read_text()


def test_the_page_stands_alone_and_is_well_formed(written):
    page = Page(written[2])
    assert all(source.startswith("#") for source in page.sources), page.sources  # nothing is fetched
    assert "<script" not in written[2] and "TensorRT runs engines, not artifacts &lt;&amp;&gt;" in written[2]


@pytest.mark.parametrize("heading", ["Latency", "Where the time goes", "Throughput against latency",
                                     "Accuracy against latency", "Scaling over the batch",
                                     "Scaling over threads"])  # fmt: skip
def test_every_plot_is_there(written, heading):
    part = written[2].split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]
    assert part.count("<svg") == 1 and "<figcaption>" in part


def test_plots_name_the_variants_without_what_all_share(written):
    svg = written[2].split("<h2>Latency</h2>")[1].split("</svg>")[0]
    labels = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert {"onnxruntime, 1 thread", "onnxruntime, 2 threads, batch 8", "pytorch, 2 threads"} <= set(labels)


def test_both_forms_say_the_same(written):
    results, text, page = written
    words = " ".join(" ".join(Page(page).text).split())
    shown = view(results)
    for row in shown["glance"]["rows"]:
        assert "| " + " | ".join([row["name"], *row["cells"]]) + " |" in text
        assert " ".join([row["name"], *row["cells"]]) in words
    for run in shown["runs"]:
        for scenario in run["scenarios"]:
            for fact in (*scenario["facts"], *scenario["reasons"]):
                assert fact in text and fact in words


def test_at_a_glance(written):
    glance = view(written[0])["glance"]
    rows = {row["name"]: dict(zip(glance["headings"], row["cells"], strict=True)) for row in glance["rows"]}
    first = rows["onnxruntime, 2 threads"]
    assert first["verdicts"] == "1 of 4 INVALID" and first["pictures/s offline"] == "12.0"
    assert first["pictures/s within the bound"] == "9.60 (p99 under 900 ms)"
    assert first["accuracy"] == "miou 0.510" and first["of the floor"] == "36.0%"
    assert set(rows["tensorrt"].values()) == {"–"}
    assert "GPU memory, MB" not in glance["headings"] and "J per picture" not in glance["headings"]


def test_the_tables_are_those_of_markdown(written):
    for block in re.findall(r"(?:^\|.*\|\n)+", written[1], re.M):
        lines = block.splitlines()
        assert re.fullmatch(r"\|(-+\|)+", lines[1]), lines[:2]
        assert len({line.count("|") for line in lines}) == 1


def test_percentiles_that_the_samples_do_not_bound_are_in_brackets(written):
    glance = view(written[0])["glance"]
    column = glance["headings"].index("p99, ms")
    assert glance["rows"][1]["cells"][column].replace(".", "").isdigit()
    assert "not bounded by the samples" in written[1]  # p99.9 of 400
    few = made.results(made.run(made.samples(n=50)))
    assert view(few)["glance"]["rows"][0]["cells"][3].startswith("(")


def test_warnings_come_first_and_once(tmp_path):
    arrays = made.samples(n=100)
    finding = Finding(kind="disturbed", level="warning", text="other processes took 40%")
    noisy = made.scenario(arrays, "0.npz", findings=(finding, Finding(kind="host-bound", level="note", text="x")))
    runs = [made.run(arrays, key=key, scenarios=(noisy, noisy)) for key in ("m, a", "m, b")]
    moved = Finding(kind="throttled", level="warning", text="the machine's own speed moved")
    shown = view(made.results(*runs, findings=(moved,)))["warnings"]
    assert [(row["text"], row["places"]) for row in shown] == [
        ("throttled: the machine's own speed moved", []),
        ("disturbed: other processes took 40%", ["a, single-stream (and 3 more)"]),
    ]


def test_throughput_alone_is_reported(tmp_path):
    """Two targets in the offline scenario: no latency is there to be drawn."""
    runs = [
        run.model_copy(update={"scenarios": tuple(e for e in run.scenarios if e.scenario == "offline")})
        for run in several(tmp_path)[0].runs[:2]
    ]
    _, page = write_bench_reports(tmp_path, made.results(*runs))
    assert "p99 latency (log scale)" not in page.read_text(encoding="utf-8")


def test_what_is_not_known_says_why():
    run = made.run(made.samples(n=50), memory=None, cold_start=None, warm_up_ms=(), work=Work(reason="an engine"),
                   split=Split(reason="no profile"), accuracy=Accuracy(reason="there are no labels"))  # fmt: skip
    energy = run.scenarios[0].model_copy(update={"energy": Energy(reason="root only")})
    shown = view(made.results(run.model_copy(update={"scenarios": (energy,)})))["runs"][0]
    facts = dict(shown["facts"])
    assert facts["arithmetic"] == "not known: an engine" and facts["memory"] == "not known on this system"
    assert facts["cold start"] == "not measured" and facts["warm-up"] == "none"
    assert shown["split"]["text"] == "no breakdown: no profile" and shown["accuracy"]["reason"] == "there are no labels"
    assert shown["accuracy"]["about"] == "Not scored: there are no labels"
    assert "energy: not measured, root only" in shown["scenarios"][0]["facts"]


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        (["m, a", "m, b"], ["a", "b"]), (["m", "m, b"], ["m", "b"]), (["m, a"], ["m, a"]),
        (["m, a, x", "n, a, x"], ["m", "n"]),
    ],
)  # fmt: skip
def test_short_labels(keys, labels):
    assert list(short_labels(keys).values()) == labels


def test_labels_of_plots():
    """Whatever a file is called, a plot shows it, in lines that leave room for the plot, and tells it from others."""
    long = "x" * 200
    alike = [f"{'y' * 50}{middle}{'z' * 50}" for middle in "vw"]
    keys = ["_m$1$, a", f"{long}1.onnx", *alike, "a\x1b[2J\n.onnx"]
    labels = plot_labels(keys)
    assert len(set(labels.values())) == len(keys) and labels["_m$1$, a"] == "\u200b_m\\$1\\$, a"
    assert max(len(line) for label in labels.values() for line in label.split("\n")) <= 38
    assert max(label.count("\n") for label in labels.values()) <= 3
    assert labels[keys[-1]] == "a\\x1b[2J\\n.onnx"


NAMES = ["_m$1$|a, b.onnx", "モデル é <b>&.onnx", f"{'x' * 200}.onnx", *(f"m{i}.onnx" for i in range(9))]


def test_twelve_variants_with_names_of_every_kind(tmp_path, recwarn):
    runs = []
    for i, key in enumerate(NAMES):
        arrays = made.samples(n=60, seed=i)
        save_samples(tmp_path / "samples" / f"{i}.npz", arrays)
        accuracy = made.accuracy(miou=0.5)
        runs.append(made.run(arrays, f"{i}.npz", variant=made.variant(key, target=key), accuracy=accuracy))
    text, page = (path.read_text(encoding="utf-8") for path in write_bench_reports(tmp_path, made.results(*runs)))
    assert not [str(entry.message) for entry in recwarn]
    shown = Page(page)
    assert all(source.startswith("#") for source in shown.sources)
    svg = page.split("<h2>Accuracy against latency</h2>")[1].split("</svg>")[0]
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert {"モデル é &lt;b&gt;&amp;.onnx", "\u200b_m$1$|a, b.onnx", "m8.onnx"} <= set(texts)
    assert len(set(re.findall(r"fill: (#[0-9a-f]{6})", svg))) >= len(NAMES)  # a colour for each
    rows = [line for line in text.splitlines() if line.startswith("| ") and "VALID" in line]
    assert len(rows) == 12 and len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "<b>" not in text


def test_a_failed_accuracy_pass_and_wrong_classes_are_warnings():
    arrays = made.samples(n=100)
    other = Accuracy(images=4, scores={"miou": 0.5}, warning="2 of 4 classes are missing", notes=("few pictures",))
    runs = [
        made.run(arrays, key="m, a", accuracy=Accuracy(error="no such data")),
        made.run(arrays, key="m, b", accuracy=other),
    ]
    shown = view(made.results(*runs))
    assert {(row["text"], *row["places"]) for row in shown["warnings"]} >= {
        ("could not be scored: no such data", "a"), ("accuracy: 2 of 4 classes are missing", "b"),
    }  # fmt: skip
    assert shown["runs"][0]["accuracy"]["about"] == "Could not be scored: no such data"
    assert shown["runs"][1]["accuracy"]["notes"] == ["few pictures"]


def test_growth():
    assert growth_exponent([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert growth_exponent([1, 2, 4], [8, 8, 8]) == pytest.approx(0)
    assert growth_exponent([4, 4], [1, 2]) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")],  # half to even
)
def test_numbers(value, shown):
    assert number(value) == shown
