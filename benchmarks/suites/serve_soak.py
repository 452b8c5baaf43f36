"""Many requests to `lidcam serve`, a third of them hostile: no crash, no wrong answer, and memory must not grow.

    python benchmarks/suites/serve_soak.py MODEL.onnx FOLDER [--requests 10000] [--write NAME]

Hostile: bodies cut in the middle, bytes that are not HTTP, truncated pictures, text in place of one, a PNG of 400
million pixels, a tensor of a million numbers in JSON and of another shape, clients that leave before the answer, bodies
that come slowly or not at all. Prints resident memory after every tenth; exit status 1 if it grew
by more than --limit MB after the first, or an answer was wrong or a status reported a server error.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import bench_serve
import results
from PIL import Image

import lidcam_rt
from lidcam_rt.image import image_suffixes

_HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
_LOCALIZE = b"/v1/localize"


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
        model: name of the model.
    """

    def __init__(self, port: int, good: list[tuple[bytes, Any]], model: str) -> None:
        self.address, self.good, self.bomb = ("127.0.0.1", port), good, bomb()
        self.infer = f"/v2/models/{model}/infer".encode()
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 9, 9, 3], "data": [7] * 1_000_000}
        self.tensor = json.dumps({"inputs": [tensor]}).encode()
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
            "cut": (_LOCALIZE, len(data), cut),
            "truncated": (_LOCALIZE, len(cut), cut),
            "text": (_LOCALIZE, 4000, b"no picture, but " * 250),
            "bomb": (_LOCALIZE, len(self.bomb), self.bomb),
            "large JSON": (self.infer, len(self.tensor), self.tensor),
            "gone": (_LOCALIZE, len(data), data),
            "no body": (_LOCALIZE, 30_000_000, b""),
            "slow": (_LOCALIZE, len(data), cut),
        }
        kind = rng.choice([*kinds, "no HTTP"])
        with socket.create_connection(self.address, 60) as client:
            if kind == "no HTTP":
                client.sendall(rng.randbytes(300) + b"\r\n\r\n")
            else:
                path, length, body = kinds[kind]
                client.sendall(_HEAD % (path, length) + body)
            if kind == "slow":
                time.sleep(0.2)
                client.sendall(data[len(cut) :])
            left = kind in ("cut", "gone", "no body")
            told = "left" if left else client.recv(64)[9:12].decode("latin-1")
        self.outcomes[f"{kind}: {told}"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, help="pictures")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=20.0, help="MB")
    parser.add_argument("--write", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    files = [path.read_bytes() for path in sorted(options.folder.iterdir()) if path.suffix.lower() in image_suffixes()]
    with lidcam_rt.load(options.model, device="cpu") as localizer:
        boxes = [localizer(data).box for data in files]
    good = [(data, box and list(box)) for data, box in zip(files, boxes, strict=True)]
    seen = []
    with bench_serve.server(options.model) as (port, pid), ThreadPoolExecutor(8) as pool:
        clients = Clients(port, good, options.model.stem)
        for part in range(10):
            list(pool.map(clients, range(part * options.requests // 10, (part + 1) * options.requests // 10)))
            seen.append(bench_serve.resident(pid))
            print(f"{(part + 1) * options.requests // 10:6} requests  {seen[-1]:6} MB", flush=True)
    print(json.dumps(clients.outcomes, indent=1, sort_keys=True))
    rows = {"resident_mb_after_each_tenth": seen, "outcomes": dict(sorted(clients.outcomes.items()))}
    what = f"{options.requests} requests to lidcam serve, a third hostile; {options.model.name}, {len(files)} pictures"
    results.write(options.write, what, load, rows, command="python benchmarks/suites/serve_soak.py MODEL FOLDER")
    fine = ("good: 200", "good: 429", "slow: 200", "slow: 429")
    bad = [name for name in clients.outcomes if ": 5" in name or (name[:4] in ("good", "slow") and name not in fine)]
    return int(bool(bad) or seen[-1] - seen[0] > options.limit)


if __name__ == "__main__":
    sys.exit(main())
