"""ONNX Runtime's own profile of an artifact: the time, type and shapes of each node."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidcam_bench.latency.facts import Split

__all__ = ["NodeRun", "count_operations", "counting_options", "parse_profile", "profile_nodes", "split_nodes"]

Shape = tuple[int, ...]

_SUFFIX = "_kernel_time"
_COPIES = ("MemcpyFromHost", "MemcpyToHost")
_CONVOLUTIONS = ("Conv", "ConvInteger", "FusedConv", "QLinearConv")


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One execution of one node.

    Attributes:
        name: of the node; ONNX Runtime makes one of type and number where the graph gives none.
        kind: its operator.
        provider: execution provider that ran it.
        ns: nanoseconds (the profile counts whole microseconds).
        inputs: shapes of its inputs; constants that were packed beforehand are left out.
        outputs: shapes of its outputs.
    """

    name: str
    kind: str
    provider: str
    ns: int
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def profile_nodes(
    path: str | os.PathLike[str],
    feeds: Sequence[dict[str, Any]],
    *,
    options: Any,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    outputs: Sequence[str] | None = None,
) -> list[NodeRun]:
    """Run an artifact in ONNX Runtime with its profiler on.

    Args:
        path: the artifact.
        feeds: inputs by name, of one call each; the first call is not in the result.
        options: onnxruntime.SessionOptions; its profile settings are changed.
        providers: of the session.
        outputs: those requested; None: all.
    """
    import onnxruntime as ort

    from lidcam_rt.backends.onnxruntime import session_source

    with tempfile.TemporaryDirectory(prefix="lidcam-profile-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "nodes")
        session = ort.InferenceSession(session_source(path), sess_options=options, providers=list(providers))
        names = None if outputs is None else list(outputs)
        for feed in feeds:
            session.run(names, feed)
        runs = parse_profile(Path(session.end_profiling()).read_bytes())
    per_call = len(runs) // max(1, len(feeds))
    return runs[per_call:] if len(feeds) > 1 else runs


def counting_options() -> Any:
    """Session options under which every operator runs as the standard defines it and the profile names all shapes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights are not among the shapes
    return options


def parse_profile(content: bytes) -> list[NodeRun]:
    """The nodes of a profile, in the order in which they ran."""
    out = []
    for event in json.loads(content):
        if event.get("cat") != "Node" or not event["name"].endswith(_SUFFIX):
            continue
        about = event["args"]
        out.append(
            NodeRun(
                name=event["name"].removesuffix(_SUFFIX),
                kind=about.get("op_name", ""),
                provider=about.get("provider", ""),
                ns=int(event["dur"]) * 1000,
                inputs=_shapes(about.get("input_type_shape", [])),
                outputs=_shapes(about.get("output_type_shape", [])),
            )
        )
    return out


def _shapes(entries: Sequence[dict[str, list[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for entry in entries for shape in entry.values())


def count_operations(runs: Sequence[NodeRun]) -> float:
    """Operations of the convolutions and matrix products, a multiply-add being two.

    The rest of a convolutional network is below a few percent of them.

    Args:
        runs: of one call, profiled with `counting_options`.
    """
    total = 0
    for run in runs:
        size = _product(run.outputs[0]) if run.outputs else 0
        if run.kind in _CONVOLUTIONS:
            weight = [shape for shape in run.inputs if len(shape) > 2][1]
            total += 2 * size * _product(weight[1:])
        elif run.kind == "ConvTranspose":
            image, weight = [shape for shape in run.inputs if len(shape) > 2][:2]
            total += 2 * _product(image) * _product(weight[1:])
        elif run.kind in ("MatMul", "MatMulInteger", "QLinearMatMul"):
            total += 2 * size * run.inputs[0][-1]
        elif run.kind == "Gemm":
            total += 2 * size * (_product(run.inputs[0]) // run.outputs[0][0])
    return float(total)


def _product(shape: Sequence[int]) -> int:
    out = 1
    for side in shape:
        out *= side
    return out


def split_nodes(path: str | os.PathLike[str], runs: Sequence[NodeRun], calls: int, source: str) -> Split:
    """How the time of a call divides into network, CAM + PaS, and copies.

    The network is all that the logits need; CAM + PaS is the rest of the graph. ONNX Runtime keeps the names of nodes
    when it fuses them, as parts of new names; nodes of PaS's function body, which it writes out, have no names.

    Args:
        path: the artifact.
        runs: of several calls.
        calls: how many.
        source: whose profile it is.
    """
    try:
        import onnx
    except ImportError:
        return Split(reason="the graph is read with onnx, which is not installed: pip install onnx")
    model = onnx.load(os.fspath(path), load_external_data=False)
    graph = model.graph
    if not all(node.name for node in graph.node):
        return Split(reason="the nodes of this artifact have no names: export it again")
    producer = {name: node for node in graph.node for name in node.output}
    needed: set[str] = set()
    todo = ["logits"]
    while todo:
        node = producer.get(todo.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            todo += list(node.input)
    rest = {node.name for node in graph.node} - needed
    functions = bool(model.functions)
    times: dict[str, int] = defaultdict(int)
    by_node: dict[tuple[str, str], int] = defaultdict(int)
    for run in runs:
        times[_part(run, needed, rest, functions)] += run.ns
        by_node[run.name, run.kind] += run.ns
    total = sum(times.values())
    if not total:
        return Split(reason="the profile is empty")
    slowest = sorted(by_node.items(), key=lambda item: -item[1])[:8]
    return Split(
        shares_percent={part: 100 * ns / total for part, ns in times.items()},
        slowest=tuple((name, kind, 100 * ns / total) for (name, kind), ns in slowest),
        source=f"{source}, {calls} {'call' if calls == 1 else 'calls'}",
    )


def _part(run: NodeRun, needed: set[str], rest: set[str], functions: bool) -> str:
    if run.kind in _COPIES:
        return "copies"
    stem = run.name.partition("/")[0]
    if stem in rest:
        return "CAM + PaS"
    inlined = functions and stem not in needed and re.fullmatch(rf"{re.escape(run.kind)}_\d+", stem) is not None
    return "CAM + PaS" if inlined else "network"
