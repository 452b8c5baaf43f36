"""Many requests to `lidcam serve`, a third of them hostile: no crash, no wrong answer, and memory must not grow.

    python benchmarks/suites/serve_soak.py MODEL.onnx FOLDER --requests 10000

Hostile are: bodies cut in the middle, bytes that are no HTTP, truncated pictures, a PNG of 400 million pixels, clients
that go before the answer, bodies that do not come. Prints resident memory after every tenth; exit status 1 if it grew
by more than --limit MB after the first, or an answer was wrong.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import socket
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import bench_serve
from PIL import Image

import lidcam_rt
from lidcam_rt.image import image_suffixes

_HEAD = b"POST /v1/localize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


def bomb() -> bytes:
    """A small PNG of 20,000 x 20,000 pixels."""
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "png")
    return out.getvalue()


class Clients:
    """Good and hostile ones.

    Args:
        port: of the server.
        good: files of pictures with their boxes.
    """

    def __init__(self, port: int, good: list[tuple[bytes, Any]]) -> None:
        self.address, self.good, self.bomb = ("127.0.0.1", port), good, bomb()
        self.outcomes: Counter[str] = Counter()

    def __call__(self, number: int) -> None:
        """One request."""
        try:
            (self.send_good if number % 3 else self.send_hostile)(random.Random(number))
        except OSError as error:
            self.outcomes[f"{'good' if number % 3 else 'hostile'}: {type(error).__name__}"] += 1

    def send_good(self, rng: random.Random) -> None:
        data, box = rng.choice(self.good)
        connection = HTTPConnection(*self.address, timeout=60)
        connection.request("POST", "/v1/localize", data)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        right = answer.status == 429 or (answer.status == 200 and told["box"] == box)
        self.outcomes[f"good: {answer.status if right else 'wrong'}"] += 1

    def send_hostile(self, rng: random.Random) -> None:
        data = rng.choice(self.good)[0]
        cut = data[: len(data) // 2]
        kinds = {
            "cut": _HEAD % len(data) + cut,
            "no HTTP": rng.randbytes(300) + b"\r\n\r\n",
            "truncated": _HEAD % len(cut) + cut,
            "bomb": _HEAD % len(self.bomb) + self.bomb,
            "gone": _HEAD % len(data) + data,
            "no body": _HEAD % 30_000_000,
        }
        kind = rng.choice(list(kinds))
        with socket.create_connection(self.address, 60) as client:
            client.sendall(kinds[kind])
            told = client.recv(64)[9:12].decode("latin-1") if kind in ("no HTTP", "truncated", "bomb") else "left"
        self.outcomes[f"{kind}: {told}"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, help="pictures")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=20.0, help="MB")
    options = parser.parse_args()
    files = [path.read_bytes() for path in sorted(options.folder.iterdir()) if path.suffix.lower() in image_suffixes()]
    with lidcam_rt.load(options.model, device="cpu") as localizer:
        boxes = [localizer(data).box for data in files]
    good = [(data, box and list(box)) for data, box in zip(files, boxes, strict=True)]
    seen = []
    with bench_serve.server(options.model) as (port, pid), ThreadPoolExecutor(8) as pool:
        clients = Clients(port, good)
        for part in range(10):
            list(pool.map(clients, range(part * options.requests // 10, (part + 1) * options.requests // 10)))
            seen.append(bench_serve.resident(pid))
            print(f"{(part + 1) * options.requests // 10:6} requests  {seen[-1]:6} MB", flush=True)
    print(json.dumps(clients.outcomes, indent=1, sort_keys=True))
    bad = [name for name in clients.outcomes if name.startswith("good") and name not in ("good: 200", "good: 429")]
    return int(bool(bad) or seen[-1] - seen[0] > options.limit)


if __name__ == "__main__":
    sys.exit(main())
