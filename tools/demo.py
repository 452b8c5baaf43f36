"""`make demo`: EfficientNet-Lite0 from its ImageNet weights to a gallery of localizations.

Usage: python tools/demo.py OUT
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import skimage
from lidcam_export.exporter import export_artifact

from lidcam_cli.console import say
from lidcam_cli.gallery import gallery
from lidcam_cli.main import main as lidcam
from lidcam_rt.files import write_atomically

PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
ABOUT = (
    "EfficientNet-Lite0 with ImageNet weights, trained on class labels alone: localization map, mask and box from its "
    "class activation map (NWC and PaS). It is not the talk's ResNet50-SE, and it is not always right: the astronaut, "
    "the rocket and the flower have no class of their own."
)


def _photos() -> list[Path]:
    """Photos shipped in the wheels of scikit-image and scikit-learn; missing ones are left out."""
    places = [Path(skimage.__file__).parent / "data" / name for name in PHOTOS]
    if found := find_spec("sklearn"):
        places.append(Path(str(found.origin)).parent / "datasets" / "images" / "flower.jpg")
    return [place for place in places if place.is_file()]


def main(out: Path) -> None:
    """Export, localize, and write the gallery to `out`."""
    model = out / "efficientnet_lite0.onnx"
    if model.exists():
        say(f"using {model}, exported before")
    else:
        say("exporting EfficientNet-Lite0 (about half a minute, once) ...")
        _, agreement = export_artifact("zoo:efficientnet_lite0", model)
        say(
            f"agrees with PyTorch on {agreement.pictures}: logits {agreement.logits:.0e}, CAM {agreement.cam:.0e}, "
            f"mask {agreement.mask_flipped:.0e} of the pixels"
        )
    say("lidcam localize efficientnet_lite0.onnx PHOTOS --map --html")
    try:
        lidcam(["localize", str(model), *map(str, _photos()), "-o", str(out), "--map", "--html"])
    except SystemExit as end:
        if end.code:
            raise
    records = json.loads((out / "results.json").read_text())["results"]
    write_atomically(out / "index.html", gallery(records, title="Where the network looks", about=ABOUT))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
