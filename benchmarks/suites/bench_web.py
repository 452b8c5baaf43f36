"""The site of `lidcam web` in Chromium against the runtime: the same boxes, and milliseconds per picture.

    python benchmarks/suites/bench_web.py PHOTOS [--model LITE0.onnx] [--count 20] [--rounds 5] [--write NAME]

The page is served without the headers that give threads, so that WebAssembly has one. The times are those of the page's
worker: decoding, the network's input, the network, and from its map to mask and box; beside them the runtime on one
thread, on the same photos. Other work on the machine stretches them, so the processor time of both threads is counted
too. Needs Linux, Chromium, npm (or --ort) and websockets.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lite0
import numpy as np
import results

import lidcam_rt
from lidcam_serve.web.site import SiteOptions, write_site

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lidcam_serve"))
import chromium

WHAT = (
    "The site of lidcam web in Chromium against lidcam_rt, Lite0 at 320, JPEG to class, mask and box, one thread each"
)
#: A worker of the site, as browser.js starts it; `localize` returns a picture's result and times.
WORKER = """(async () => {
  const model = (await (await fetch("model.json")).json()).model;
  const code = `import ${JSON.stringify(location.origin + "/static/worker.js")};`;
  const worker = new Worker(URL.createObjectURL(new Blob([code], {type: "text/javascript"})), {type: "module"});
  const answer = () => new Promise((resolve, reject) => {
    worker.onmessage = ({data}) => data.error ? reject(data.error) : resolve(data);
  });
  const opened = answer();
  worker.postMessage({model, engine: "wasm", base: document.baseURI});
  await opened;
  window.localize = async (text) => {
    const file = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
    const told = answer();
    worker.postMessage({number: 1, file, classId: null});
    const {result} = await told;
    let map = "";
    for (const value of result.before.map) map += String.fromCharCode(value);
    const {class_name, box, threshold, engine, milliseconds} = result;
    return {class_name, box, threshold, engine, milliseconds, map: btoa(map)};
  };
})()"""


def iou(a: Any, b: Any) -> float:
    """Of two boxes (x0, y0, x1, y1); 1 where both are missing."""
    if a is None or b is None:
        return float(a is None and b is None)
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def processor_seconds(browser: int) -> float:
    """Of the worker's thread: the one of that name in a process that the browser has started."""
    total = 0.0
    for comm in Path("/proc").glob("[0-9]*/task/*/comm"):
        try:
            if not comm.read_text().startswith("DedicatedWorker") or browser not in ancestors(int(comm.parts[2])):
                continue
            fields = (comm.parent / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def ancestors(pid: int) -> list[int]:
    """A process's parent, its parent, and so on."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    places = {
        "p50": statistics.median(ordered),
        "p10": ordered[len(ordered) // 10],
        "p90": ordered[-1 - len(ordered) // 10],
    }
    return {name: round(value, 1) for name, value in places.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of JPEG files")
    parser.add_argument("--model", type=Path, help="artifact of EfficientNet-Lite0; by default it is exported")
    parser.add_argument("--ort", type=Path, help="folder or .tgz of onnxruntime-web; by default npm fetches it")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", metavar="NAME")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    paths = sorted(options.photos.glob("*.[jJ]*[gG]"))
    paths = paths[:: max(1, len(paths) // options.count)][: options.count]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = options.model or lite0.artifact(folder / "lite0.onnx")
        write_site(model, folder / "site", SiteOptions(ort=options.ort, webgpu=False))

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder / "site")))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.Page(folder)
        version = page.send("Browser.getVersion")["product"]
        page.go(f"http://127.0.0.1:{server.server_port}/")
        page.run(WORKER)
        texts = [base64.b64encode(path.read_bytes()).decode() for path in paths]
        times: dict[str, list[float]] = {"runtime": [], "browser": []}
        stages: dict[str, list[float]] = {}
        agreement, used = [], {"runtime": 0.0, "browser": 0.0}
        with lidcam_rt.load(model, backend="onnxruntime", device="cpu", threads=1) as localizer:
            for turn in range(options.rounds + 1):
                if turn == 1:
                    begin = processor_seconds(page.process.pid)
                for path, text in zip(paths, texts, strict=True):
                    told = page.run(f"localize('{text}')")
                    start, processor = time.perf_counter(), time.process_time()
                    result = localizer(path)
                    seconds = time.perf_counter() - start
                    if turn:
                        used["runtime"] += time.process_time() - processor
                        times["runtime"].append(1e3 * seconds)
                        times["browser"].append(sum(told["milliseconds"].values()))
                        for stage, value in told["milliseconds"].items():
                            stages.setdefault(stage, []).append(value)
                        continue
                    browser_map = np.frombuffer(base64.b64decode(told["map"]), np.uint8).reshape(result.map.shape)
                    differing = int(np.count_nonzero((browser_map > told["threshold"]) != result.mask))
                    agreement.append(
                        {
                            "photo": path.name,
                            "same_class": told["class_name"] == result.class_name,
                            "box_iou": round(iou(told["box"], result.box), 4),
                            "mask_pixels_differing": differing,
                            "map_levels_differing": int(np.abs(browser_map.astype(int) - result.map).max()),
                        }
                    )
            used["browser"] = processor_seconds(page.process.pid) - begin
        page.close()
        server.shutdown()
    rows = {
        "ms_per_picture": {name: spread(values) for name, values in times.items()},
        "photos": len(paths),
        "engine": told["engine"],
        "browser": version,
        "same_class": sum(row["same_class"] for row in agreement),
        "lowest_box_iou": min(row["box_iou"] for row in agreement),
        "most_mask_pixels_differing": max(row["mask_pixels_differing"] for row in agreement),
        "processor_ms_per_picture": {
            name: round(1e3 * seconds / len(times[name]), 1) for name, seconds in used.items()
        },
        "ms_of_the_browser_by_stage": {name: spread(values) for name, values in stages.items()},
        "agreement": agreement,
    }
    print(json.dumps(rows, indent=1))
    results.write(
        options.write,
        WHAT,
        load,
        rows,
        command=f"python benchmarks/suites/bench_web.py PHOTOS --rounds {options.rounds}",
    )


if __name__ == "__main__":
    main()
