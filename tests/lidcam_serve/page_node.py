"""Calls functions of the page's modules under node."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import ROOT

_HARNESS = """
import { createInterface } from "node:readline";
const kinds = { uint8: Uint8Array, float32: Float32Array, float64: Float64Array };
const revive = (_, value) => {
  if (!value?.dtype || value.data === undefined) return value;
  const bytes = Buffer.from(value.data, "base64");
  return new kinds[value.dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};
const told = (_, value) => {
  for (const [dtype, kind] of Object.entries(kinds)) {
    if (!(value instanceof kind)) continue;
    return { dtype, data: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64") };
  }
  return value;
};
for await (const line of createInterface({ input: process.stdin })) {
  const { module, name, given } = JSON.parse(line, revive);
  const value = (await import("./" + module))[name](...given);
  console.log(JSON.stringify({ value: value ?? null }, told));
}
"""


class Node:
    """A process of node with the page's modules, in a folder as in a site."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("node")
        if binary is None:
            pytest.skip("no node")
        for place in ("page", "web/js"):
            for path in (ROOT / "lidcam_serve" / place).glob("*.js"):
                shutil.copy(path, folder)
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "harness.js").write_text(_HARNESS)
        self.process = subprocess.Popen(
            [binary, "harness.js"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, module: str, name: str, *given: Any) -> Any:
        """What a function gives; arrays go both ways, flat ones back."""
        assert self.process.stdin is not None and self.process.stdout is not None
        line = json.dumps({"module": module, "name": name, "given": given}, default=_told)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline(), object_hook=_revived)["value"]

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(300) == 0


def _told(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return {"dtype": str(array.dtype), "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}
    return array.item()


def _revived(value: dict[str, Any]) -> Any:
    if set(value) == {"dtype", "data"}:
        return np.frombuffer(base64.b64decode(value["data"]), value["dtype"])
    return value
