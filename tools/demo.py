"""`make demo`: EfficientNet-Lite0 from its ImageNet weights to a gallery of localizations.

Usage: python tools/demo.py OUT
"""

from __future__ import annotations

import base64
import html
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import skimage
from lidcam_export.exporter import export_artifact
from rich.console import Console
from rich.table import Table

import lidcam_rt

PHOTOS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
)


def _photos() -> list[Path]:
    """Photos that the wheels of scikit-image and scikit-learn ship; those that are not there are left out."""
    places = [Path(skimage.__file__).parent / "data" / name for name in PHOTOS]
    if found := find_spec("sklearn"):
        places.append(Path(str(found.origin)).parent / "datasets" / "images" / "flower.jpg")
    return [place for place in places if place.is_file()]


def _gallery(results: list[lidcam_rt.Localization], pictures: list[Path]) -> str:
    cards = []
    for result, picture in zip(results, pictures, strict=True):
        data = base64.b64encode(picture.read_bytes()).decode()
        kind = "png" if picture.suffix == ".png" else "jpeg"
        caption = f"{html.escape(result.class_name)} {result.score:.2f}"
        cards.append(
            f'<figure><img alt="{caption}" src="data:image/{kind};base64,{data}">'
            f"<figcaption><b>{caption}</b><br>box {result.box}</figcaption></figure>"
        )
    style = (
        "body{font:16px system-ui;margin:2rem;background:#f6f6f4;color:#222}main{display:grid;gap:1.5rem;"
        "grid-template-columns:repeat(auto-fill,minmax(20rem,1fr))}figure{margin:0;background:#fff;padding:.7rem;"
        "border-radius:.5rem;box-shadow:0 1px 4px #0003}img{width:100%;border-radius:.3rem}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>lidcam_rt demo</title><style>{style}</style>'
        "<h1>Where the network looks</h1><p>EfficientNet-Lite0 with ImageNet weights, trained on class labels alone: "
        "localization map, mask and box from its class activation map (NWC and PaS). It is not the talk's ResNet50-SE, "
        "and it is not always right: the astronaut, the rocket and the flower have no class of their own.</p>"
        f"<main>{''.join(cards)}</main></html>"
    )


def main(out: Path) -> None:
    """Export, localize, and write the gallery to `out`."""
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    model = out / "efficientnet_lite0.onnx"
    if model.exists():
        console.print(f"using {model}, exported before", soft_wrap=True)
    else:
        console.print("exporting EfficientNet-Lite0 (about half a minute, once) ...")
        _, agreement = export_artifact("zoo:efficientnet_lite0", model)
        console.print(
            f"agrees with PyTorch on {agreement.pictures}: logits {agreement.logits:.0e}, CAM {agreement.cam:.0e}, "
            f"mask {agreement.mask_flipped:.0e} of the pixels",
            soft_wrap=True,
        )
    table = Table("photo", "class", "score", "box", title="lidcam_rt demo")
    records, results, pictures = [], [], []
    with lidcam_rt.load(model) as localizer:
        for photo in _photos():
            result = localizer(photo)
            files = result.save(out, name=photo.stem)
            names = {kind: path.name for kind, path in files.items()}
            records.append({**result.to_dict(), "image": photo.name, "files": names})
            results.append(result)
            pictures.append(files["overlay"])
            table.add_row(photo.name, result.class_name, f"{result.score:.2f}", str(result.box))
    (out / "results.json").write_text(json.dumps(records, indent=1))
    (out / "index.html").write_text(_gallery(results, pictures), encoding="utf-8")
    console.print(table)
    console.print(f"look at {out / 'index.html'}", soft_wrap=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
