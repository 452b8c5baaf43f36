"""Peak memory of one localization per pixel of the picture, by form of picture: `python benchmarks/suites/memory.py`.

Each form is localized in a process of its own, by a tiny artifact whose network takes next to no memory; the
growth of its peak over that of a small picture is divided by the number of pixels. docs/runtime.md states the largest.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FORMS = ("JPEG", "JPEG progressive", "JPEG grey", "JPEG CMYK", "PNG", "PNG RGBA", "PNG LA", "PNG palette",
         "PNG transparent palette", "PNG 16 bits", "WEBP RGBA", "TIFF", "TIFF turned", "array RGBA", "array 16 bits",
         "one column", "one row")  # fmt: skip


def picture(form: str, megapixels: int) -> object:
    """A picture of the form: the bytes of a file, or an array."""
    import numpy as np
    from PIL import Image

    width, height = 4000, megapixels * 250
    if form in ("one column", "one row"):
        width, height = (1, width * height) if form == "one column" else (width * height, 1)
    grey = np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width)
    if form in ("array RGBA", "array 16 bits"):
        return np.repeat(grey[..., None], 4, 2) if form == "array RGBA" else grey.astype(np.uint16) * 257
    image = Image.fromarray(grey)
    options: dict[str, object] = {}
    name, _, kind = form.partition(" ")
    if kind in ("RGBA", "LA"):
        image.putalpha(128)
        image = image.convert(kind)
    elif kind == "palette":
        image = image.convert("P")
    elif kind == "transparent palette":
        image, options = image.convert("P"), {"transparency": bytes(range(256))}
    elif kind == "16 bits":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif kind == "CMYK":
        image = image.convert("CMYK")
    elif kind != "grey":
        image = image.convert("RGB")
    if kind == "progressive":
        options = {"progressive": True}
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    elif kind == "column" or kind == "row":
        name = "PNG"
    elif name == "WEBP":
        options = {"method": 0}
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def measure(model: str, path: str) -> None:
    """In the process of its own: print peak and resident memory, in bytes, before and after."""
    import numpy as np

    import lidcam_rt

    def peak() -> int:
        status = Path("/proc/self/status").read_text()  # getrusage's peak may be that of the process before exec
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    with lidcam_rt.load(model, device="cpu", threads=1) as localizer:
        localizer(np.zeros((64, 64, 3), np.uint8)).overlay()
        source = np.load(path) if path.endswith(".npy") else Path(path)
        before = peak()
        result = localizer(source)
        result.overlay()
        print(json.dumps({"bytes": peak() - before, "pixels": result.map.size}))


def run(model: Path, form: str, megapixels: int) -> float:
    """Bytes per pixel that a form takes at the peak, its file or array included."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        source = picture(form, megapixels)
        path = Path(folder) / ("picture.npy" if isinstance(source, np.ndarray) else "picture")
        np.save(path, source) if isinstance(source, np.ndarray) else path.write_bytes(source)  # type: ignore[arg-type]
        del source
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(path), "--model", str(model)],
            capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    return float(found["bytes"] / found["pixels"])


def main() -> None:
    """Print a row per form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="an artifact whose network is small")
    parser.add_argument("--megapixels", type=int, default=24)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        measure(str(given.model), given.child)
        return
    for form in FORMS:
        print(f"{form:26s} {run(given.model, form, given.megapixels):5.1f} bytes per pixel", flush=True)


if __name__ == "__main__":
    main()
