"""Servers for the tests: `lidcam serve` in a process, and pictures to send."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import artifacts
from PIL import Image

FREE_PORTS = ["--port", "0", "--grpc-port", "0"]
ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds after which a state that does not come is a failure; beside busy loops a start takes 20 to 60


def png(colour: str = "red", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(artifacts.picture(colour, **options)).save(out, "png")
    return out.getvalue()


class Server:
    """`lidcam serve` in a process of its own, on free ports, with a deadline that a busy machine keeps."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        code = "import sys; from lidcam_cli.main import main; main(['serve', *sys.argv[1:]])"
        self.lines: list[dict] = []
        self._arrived = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *FREE_PORTS, "--deadline", str(PATIENCE), *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = self.wait(
            lambda e: (e["event"] in ("ready", "all workers ready") and "workers" in e) or self._single(e)
        )
        self.port, self.grpc_port, self.pids = ready["port"], ready["grpc_port"], ready.get("workers", [])
        self.address, self.grpc = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.grpc_port}"
        self.url = f"http://{self.address}"

    def _single(self, entry: dict) -> bool:
        return entry["event"] == "ready" and entry["pid"] == self.process.pid

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._arrived:
                self.lines.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})
                self._arrived.notify_all()
        with self._arrived:
            self.lines.append({"event": "end"})
            self._arrived.notify_all()

    def wait(self, wanted, after: int = 0) -> dict:
        """The first line of the log that is wanted."""

        def found():
            entry = next((entry for entry in self.lines[after:] if entry["event"] != "end" and wanted(entry)), None)
            return entry or (self.lines and self.lines[-1]["event"] == "end")

        with self._arrived:
            entry = self._arrived.wait_for(found, PATIENCE)
        assert isinstance(entry, dict), f"not in the log: {self.lines}"
        return entry

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status
