"""Runs the code blocks of a document as a reader would: in order, in a folder that holds the files it names."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: The export that several pages begin with; the fixture `lite0` runs it, as it stands there, once per test run.
EXPORT = "lidcam export zoo:efficientnet_lite0 -o model.onnx"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)
_PORT = re.compile(r"(?:-port\W+|127\.0\.0\.1:)(\d+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        language: `python` or `sh`.
        text: what stands between the fences.
    """

    language: str
    text: str

    def run(self, folder: Path, *, done_before: str = "") -> str:
        """Run the block in a folder with `lidcam` on its path; its output. A block that fails fails the test.

        Ports of this machine that it names are replaced by free ones: those may be taken here.

        Args:
            folder: where it runs.
            done_before: a line that was run already, with its results in the folder; it is left out.
        """
        text = "\n".join(line for line in self.text.splitlines() if not done_before or line != done_before)
        path = f"{_command_line(folder)}:{os.environ['PATH']}"
        with on_free_ports(text) as text:
            command = ["sh", "-ec", text] if self.language == "sh" else [sys.executable, "-c", text]
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                env={**os.environ, "PATH": path, "COLUMNS": "80"},
                timeout=600,
            )
        assert done.returncode == 0, f"{self.text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{self.text}\n{done.stderr}"
        return done.stdout


def blocks(page: str, *, until: str | None = None) -> list[Block]:
    """The blocks of a page that are code.

    Args:
        page: path from the root of the checkout.
        until: only what stands before this text.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [Block(*match) for match in _BLOCK.findall(text.split(until)[0] if until else text)]
    assert found, f"{page} has no code"
    return found


def joined(page: str, *, until: str | None = None) -> Block:
    """All Python blocks of a page as one, for pages whose blocks build on each other."""
    texts = [block.text for block in blocks(page, until=until) if block.language == "python"]
    return Block("python", "\n".join(texts))


@contextmanager
def on_free_ports(text: str) -> Iterator[str]:
    """A text with a free port in place of each port of this machine that it names.

    Until the end of the context no process is given one of them as a free port: a socket is bound to it. As that does
    not listen, a server with SO_REUSEADDR can.
    """
    with ExitStack() as stack:
        free = {}
        for port in dict.fromkeys(_PORT.findall(text)):
            held = stack.enter_context(socket.socket())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            free[port] = str(held.getsockname()[1])
        yield re.sub(r"\b\d+\b", lambda match: free.get(match[0], match[0]), text)


def _command_line(folder: Path) -> Path:
    """A folder with a `lidcam` of the environment that runs the tests."""
    place = folder / ".bin"
    place.mkdir(exist_ok=True)
    script = place / "lidcam"
    script.write_text(f"#!{sys.executable}\nfrom lidcam_cli.main import main\nmain()\n")
    script.chmod(0o755)
    return place
