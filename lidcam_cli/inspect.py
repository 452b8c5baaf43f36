"""`lidcam inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lidcam_cli.options import JsonFlag, Model

__all__ = ["inspect"]


def inspect(model: Model, as_json: JsonFlag = False) -> None:
    """Show an artifact: manifest, inputs, outputs, operators.

    Also says which form of the PaS operator runs here. For an engine, shows its sidecar without loading it.
    """
    import json

    from lidcam_cli.console import out
    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.backends.base import engine_text
    from lidcam_rt.backends.engine_file import ENGINE_SUFFIX
    from lidcam_rt.backends.onnxruntime import open_backend
    from lidcam_rt.files import file_sha256
    from lidcam_rt.protobuf import model_header

    if model.name.endswith(ENGINE_SUFFIX):
        facts = _engine_facts(model)
        if as_json:
            print(json.dumps(facts, indent=1))
        else:
            _print(out, facts)
        return
    manifest = read_manifest(model)
    header = model_header(model)
    as_declared = manifest.input.model_copy(update={"dynamic_size": False})  # the runtime fixes free sizes
    engine = open_backend(model, manifest.model_copy(update={"input": as_declared}), device="cpu")
    facts = {
        "file": str(model),
        "bytes": model.stat().st_size,
        "sha256": file_sha256(model),
        "ir_version": header.ir_version,
        "opsets": header.opsets,
        "functions": list(header.functions),
        "inputs": engine.inputs,
        "outputs": engine.outputs,
        "operator": operator_form(header.functions, engine.ops_registered),
        "engine": engine_text(engine),
        "other_engines": _other_engines(model, "onnxruntime"),
        "manifest": manifest.model_dump(mode="json"),
    }
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    _print(out, facts)


def _engine_facts(path: Path) -> dict[str, Any]:
    from lidcam_rt.backends.engine_file import read_sidecar

    spec = read_sidecar(path)
    manifest = spec.read_manifest(path)
    form = "standard operators" if spec.pas == "body" else "plugin, its kernel baked into the engine"
    built = ", ".join(f"{number} {name}" for name, number in sorted(spec.built.items()))
    return {
        "file": str(path),
        "bytes": spec.engine_bytes,
        "sha256": spec.engine_sha256,
        "built_from": {"artifact": spec.artifact, "sha256": spec.artifact_sha256},
        "inputs": [entry.model_dump(mode="json") for entry in spec.inputs],
        "outputs": [entry.model_dump(mode="json") for entry in spec.outputs],
        "operator": form,
        "engine": f"{spec.flavour} {spec.version} for compute capability {', '.join(spec.compute_capability)}",
        "precision": f"{spec.precision}; convolutions as built: {built} (read from the {spec.evidence})",
        "profile": {name: shapes.model_dump(mode="json") for name, shapes in spec.profile.items()},
        "manifest": manifest.model_dump(mode="json"),
    }


def _other_engines(path: Path, shown: str) -> dict[str, str]:
    """The other engines that load such a file, and what they offer or how to install them."""
    from lidcam_rt.backends import BACKENDS

    return {
        entry.name: f"{', '.join(entry.precisions)} on {', '.join(entry.devices)}: --backend {entry.name}"
        if entry.installed
        else f"not installed: pip install 'lidcam-rt[{entry.extra}]'"
        for entry in BACKENDS
        if entry.suffix == path.suffix and entry.name != shown
    }


def operator_form(functions: tuple[str, ...], registered: bool) -> str:
    """Which form of `lidcam::PaS` ONNX Runtime runs for this file here."""
    if not any(name.startswith("lidcam::") for name in functions):
        return "standard operators, written out in the graph"
    if registered:
        return "kernel of the operator library"
    return (
        "function body of the file, in standard operators "
        "(the operator library is not built or is switched off: see `lidcam doctor`)"
    )


def _print(out: Any, facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from lidcam_cli.console import cell

    def show(title: str, rows: list[tuple[str, str]]) -> None:
        out.print(Text(title, style="bold"))
        table = Table(box=None, show_header=False, pad_edge=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(cell(name), cell(value))
        out.print(table)

    manifest = facts["manifest"]
    size, source = manifest["input"], manifest["source"]
    names = manifest["class_names"]
    show(
        "engine" if "built_from" in facts else "artifact",
        [
            ("file", facts["file"]),
            ("size", f"{facts['bytes'] / 1e6:.1f} MB"),
            ("sha256", facts["sha256"]),
            ("source", source["name"]),
            ("weights", f"{_weights(source)} (licence: {manifest['weights_license'] or 'not stated'})"),
            ("written by", f"lidcam_rt {manifest['package_version']}, schema {manifest['schema_version']}"),
            _form(facts),
        ],
    )  # fmt: skip
    show(
        "model",
        [
            ("task", manifest["task"]),
            ("classes", f"{len(names)}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"),
            ("input", f"{size['width']}x{size['height']} {size['channel_order']} {size['dtype']} "
             f"{size['layout']}, "
             f"{size['resize']}, {size['interpolation']}{', any size' if size['dynamic_size'] else ''}"),
            *_maps(manifest),
            ("graph", _graph(manifest["nodes"])),
            ("precision", _precision(manifest["precision"])),
        ],
    )  # fmt: skip
    show("inputs", [(e["name"], f"{e['dtype']} {e['shape']}") for e in facts["inputs"]])
    show("outputs", [(e["name"], f"{e['dtype']} {e['shape']}") for e in facts["outputs"]])
    if "built_from" in facts:
        shapes = [(name, f"{e['min']} to {e['max']}, best at {e['opt']}") for name, e in facts["profile"].items()]
        show("shapes", shapes)
        rows = [("built by", facts["engine"]), ("precision", facts["precision"]), ("PaS operator", facts["operator"])]
        show("as built", rows)
        return
    rows = [("engine", facts["engine"]), ("PaS operator", facts["operator"])]
    show("runs here", [*rows, *facts["other_engines"].items()])


def _graph(nodes: dict[str, int] | None) -> str:
    return f"{nodes['written']} nodes, {nodes['traced']} as traced" if nodes else "nodes not counted"


def _precision(spec: dict[str, Any] | None) -> str:
    if spec is None:
        return "fp32"
    text = str(spec["network"])
    if spec["calibration"]:
        text += (
            f", weights of {spec['weight_bits']} bits, {spec['calibration']} of {spec['calibration_pictures']} pictures"
        )
    if spec["float_layers"]:
        text += f", {len(spec['float_layers'])} layers in float32"
    agreement = spec["agreement"] or {}
    if "label_iou" in agreement:
        text += (
            f"; label IoU {agreement['label_iou']:.4f} with fp32, {100 * agreement['flipped']:.2f}% of labels "
            "differ"
        )
        if "miou" in agreement:
            text += f", mean IoU {100 * agreement['miou_fp32']:.2f}% in fp32 and {100 * agreement['miou']:.2f}% now"
    elif agreement:
        text += (
            f"; mask IoU {agreement['mask_iou']:.4f} with fp32, "
            f"{100 * agreement['changed']:.2f}% of pictures change class"
        )
    return text


def _maps(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows that say how maps or label maps are formed."""
    cam, pas, segmentation = manifest["cam"], manifest["pas"], manifest["segmentation"]
    if segmentation is not None:
        return [("label map", f"logits at stride {segmentation['stride']}, sides multiples of "
                 f"{segmentation['multiple']}")]  # fmt: skip
    pooling = cam["pooling"] + (f", threshold {cam['tap_threshold']}" if cam["pooling"] == "tap" else "")
    return [
        ("CAM", f"{'exact' if cam['head'] == 'linear' else 'of the linearized head, not exact'}, "
         f"stride {cam['stride']}, negative weights {'clamped (NWC)' if cam['nwc'] else 'kept'}, {pooling}"),
        ("PaS", f"percentile {pas['percentile']:g}, theta {pas['theta']:g}, {pas['mode']}, {pas['precision']}, "
         f"{pas['where']}, {pas['interpolation']}"),
        *_tuned(manifest),
        ("maps per picture", str(manifest["top_k"])),
        ("labels input", "yes" if manifest["labels_input"] else "no"),
    ]  # fmt: skip


def _tuned(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows that say what `lidcam tune` chose."""
    rows = []
    if defaults := manifest["defaults"]:
        scales = ", ".join(f"{scale:g}" for scale in defaults["scales"])
        rows.append(("views", f"scales {scales}{', each mirrored too' if defaults['flip'] else ''}"))
        rows.append(("CRF", defaults["refine"] or "none"))
    if tuned := manifest["tuning"]:
        rows.append(("tuned", f"{tuned['metric']} on {tuned['pictures']} pictures, {tuned['before']:.4f} before, "
                     f"{tuned['after']:.4f} after"))  # fmt: skip
    return rows


def _weights(source: dict[str, Any]) -> str:
    if source["random_weights"]:
        return "random, so that the maps mean nothing"
    entry = f", {source['weights_entry']}" if source["weights_entry"] else ""
    return f"{source['weights'] or 'not named'}{entry}"


def _form(facts: dict[str, Any]) -> tuple[str, str]:
    """The row that shows an artifact's opsets, or what an engine was built from."""
    if "built_from" in facts:
        return "built from", f"{facts['built_from']['artifact']}, sha256 {facts['built_from']['sha256']}"
    opsets = ", ".join(f"{k or 'ai.onnx'} {v}" for k, v in facts["opsets"].items())
    return "opsets", f"{opsets}, IR {facts['ir_version']}"
