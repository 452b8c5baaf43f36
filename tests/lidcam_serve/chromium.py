"""A page in headless Chromium, by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

PATIENCE = 300  # seconds, as in servers.py


def binary() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium")
    return found


class Page:
    """One tab.

    Args:
        folder: for the browser's profile.
        flags: of the browser's command line.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
        self.folder = folder
        self.process = subprocess.Popen(
            [
                binary(), "--headless=new", "--no-sandbox", *(flags or ("--disable-gpu",)), "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", "about:blank",
            ],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for line in self.process.stderr:
            if match := re.search(r"ws://[^/]+", line):
                break
        else:
            pytest.skip("chromium does not start here")
        import httpx

        (tab,) = [t for t in httpx.get(f"http://{match[0][5:]}/json", timeout=PATIENCE).json() if t["type"] == "page"]
        self._socket = client.connect(tab["webSocketDebuggerUrl"], max_size=None, open_timeout=PATIENCE)
        self._number = 0
        self.console: list[str] = []
        self.requests: list[str] = []
        #: Sessions of the workers that run, and of theirs.
        self.workers: list[str] = []
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.send(f"{domain}.enable")
        self._attach_workers()

    def _post(self, method: str, session: str | None = None, **parameters) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        return self._number

    def _attach_workers(self, session: str | None = None) -> None:
        self._post("Target.setAutoAttach", session, autoAttach=True, waitForDebuggerOnStart=True, flatten=True)

    def send(self, method: str, session: str | None = None, **parameters):
        number = self._post(method, session, **parameters)
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            if "method" in message:
                self._note(message["method"], message["params"])

    def _note(self, method: str, told) -> None:
        if method == "Runtime.exceptionThrown":
            self.console.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.console.append(str(told["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Target.attachedToTarget":  # it waits until its requests are watched
            session = told["sessionId"]
            self.workers.append(session)
            for domain in ("Network", "Runtime"):
                self._post(f"{domain}.enable", session)
            self._attach_workers(session)
            self._post("Runtime.runIfWaitingForDebugger", session)
        elif method == "Target.detachedFromTarget":
            self.workers.remove(told["sessionId"])

    def run(self, code: str, session: str | None = None):
        """The value of an expression; of a promise what it gives. With a session in that worker."""
        answer = self.send("Runtime.evaluate", session, expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, code: str):
        """Its value, once that is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(code)):
            assert time.monotonic() < end, (code, self.run("document.body.innerText"), self.console)
            time.sleep(0.02)
        return value

    def go(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def text(self, name: str) -> str:
        return self.run(f"document.getElementById('{name}').textContent")

    def key(self, key: str) -> None:
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **({"text": key} if len(key) == 1 else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def choose(self, *paths: Path) -> None:
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def drop(self, *paths: Path) -> None:
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)

    def slide(self, name: str, value: float) -> None:
        self.run(
            f"(() => {{ const s = document.getElementById('{name}'); s.value = {value};"
            "s.dispatchEvent(new Event('input')); return new Promise(requestAnimationFrame) })()"
        )

    def size(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
        return path

    def close(self) -> None:
        self._socket.close()
        self.process.terminate()
        self.process.wait(PATIENCE)
