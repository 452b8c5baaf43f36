"""The table of docs/exporting.md: networks by checkpoint kinds, as `lidcam export` takes them.

LIDCAM_WRITE_TABLE=1 writes it; otherwise the page must have it. LIDCAM_WHOLE_TABLE=1 (`make fuzz`) looks at every cell.
"""

import argparse
import os
import re
from pathlib import Path

import pytest
import timm
import torch
from lidcam_export.sources.network import Request
from lidcam_export.sources.source import load_source
from safetensors.torch import save_file
from torchvision import models

from lidcam_rt.errors import LidcamError

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"

#: row: (timm's name, torchvision's name or None)
NETWORKS = {
    "resnet50": ("resnet50", "resnet50"),
    "seresnet50": ("seresnet50", None),
    "densenet121": ("densenet121", "densenet121"),
    "efficientnet_b0": ("efficientnet_b0", "efficientnet_b0"),
    "mobilenet_v2": ("mobilenetv2_100", "mobilenet_v2"),
    "mobilenet_v3": ("mobilenetv3_large_100", "mobilenet_v3_large"),
    "convnext_tiny": ("convnext_tiny", "convnext_tiny"),
    "vgg16": ("vgg16", "vgg16"),
    "swin_t": ("swin_tiny_patch4_window7_224", "swin_t"),
}

#: 0.1 to 0.5 GB of weights: all kinds only of the whole table, the first three otherwise. The other kinds wrap the same
#: state dict of timm for every network.
LARGE = ("convnext_tiny", "vgg16", "swin_t")


def half(state, dtype):
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


#: column: what is saved of a state dict
KINDS = {
    "timm": lambda s: s,
    "torchvision": lambda s: s,
    "Lightning": lambda s: {
        "state_dict": prefixed(s, "model."), "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.4.0",
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}}, "loops": {}, "epoch": 3,
    },
    "Namespace": lambda s: {"state_dict": s, "epoch": 3, "args": argparse.Namespace(model="x", lr=0.1)},
    "EMA": lambda s: {"state_dict": {k: torch.zeros_like(v) for k, v in s.items()}, "state_dict_ema": s},
    "fp16": lambda s: half(s, torch.float16),
    "bf16": lambda s: half(s, torch.bfloat16),
    "safetensors": lambda s: s,
    "DataParallel": lambda s: {"state_dict": prefixed(s, "module.")},
    "torch.compile": lambda s: prefixed(s, "_orig_mod."),
}  # fmt: skip


def cell(source, model, kind, folder, heads=("linear", "linearized")):
    """What `lidcam export` makes of one checkpoint with the first of the heads that takes it, or why none does."""
    state = model.state_dict()
    file = folder / ("w.safetensors" if kind == "safetensors" else "w.pth")
    saved = KINDS[kind](state)
    save_file(saved, file) if kind == "safetensors" else torch.save(saved, file)
    try:
        for head in heads:
            try:
                loaded = load_source(source, Request(file), head=head)
                break
            except LidcamError as error:
                reason = str(error)
        else:
            return f"refused: {reason}"
    finally:
        file.unlink()
    tolerance = 1e-2 if kind in ("fp16", "bf16") else 0
    for key, value in loaded.module.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=tolerance, atol=tolerance)
    return "exact" if loaded.head == "linear" else "linearized"


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_the_table_says_what_is_exported(tmp_path, network):
    ours, theirs = NETWORKS[network]
    writing = bool(os.environ.get("LIDCAM_WRITE_TABLE"))
    torch.manual_seed(0)
    model = timm.create_model(ours, num_classes=5)
    cells = {"timm": cell(f"timm:{ours}", model, "timm", tmp_path)}
    heads = ("linearized",) if cells["timm"] == "linearized" else ("linear", "linearized")  # as just seen
    whole = writing or os.environ.get("LIDCAM_WHOLE_TABLE") or network not in LARGE
    for kind in list(KINDS)[1 : None if whole else 3]:
        if kind == "torchvision" and theirs is None:
            cells[kind] = "refused: torchvision has no such network"
        elif kind == "torchvision":
            cells[kind] = cell(f"torchvision:{theirs}", models.get_model(theirs, num_classes=5), kind, tmp_path)
        else:
            cells[kind] = cell(f"timm:{ours}", model, kind, tmp_path, heads)
    page = PAGE.read_text()
    if writing:
        row = f"| {network} | {' | '.join(cells.values())} |"
        PAGE.write_text(re.sub(rf"^\| {network} \|.*$", row, page, flags=re.M))
        return
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {network} |"))
    there = dict(zip(KINDS, row.strip("| ").split(" | ")[1:], strict=True))
    assert cells == {kind: there[kind] for kind in cells}


def test_the_table_has_these_networks_and_kinds():
    lines = PAGE.read_text().splitlines()
    head = f"| network | {' | '.join(KINDS)} |"
    start = lines.index(head) + 2
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines[start : start + len(NETWORKS)]]
    assert rows == list(NETWORKS)
