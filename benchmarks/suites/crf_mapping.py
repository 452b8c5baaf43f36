"""Which probabilities to give the CRF: mean mask IoU for several forms of the unary, and for both sizes.

    lidcam data make stamps data/stamps
    lidcam export zoo:efficientnet_lite0 -o lite0.onnx
    python benchmarks/suites/crf_mapping.py lite0.onnx stamps:data/stamps -o out/crf_mapping.json

`--crop 0.2` cuts each picture to its object and a margin of a fifth of it, so that objects fill the picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from lidcam_bench.data import open_data

import lidcam_rt
from lidcam_rt.crf import PRESETS, DenseCRF, foreground_probability
from lidcam_rt.image import network_pixels, to_original_size

M = np.arange(256) / 255


def _linear(level: int) -> np.ndarray:
    tie = level + 0.5
    return np.interp(np.arange(256), (0, tie, 255), (0, 0.5, 1))


#: level -> probability of the foreground for each map value; all but the fixed alpha tie at the PaS threshold
FORMS = {
    "background (1 - m)^alpha, tied": foreground_probability,
    "background (1 - m)^4 (psa)": lambda level: M / (M + (1 - M) ** 4),
    "linear on both sides": _linear,
    "logistic, slope 10": lambda level: 1 / (1 + np.exp(-10 * (M - (level + 0.5) / 255))),
    "labels, 0.7": lambda level: np.where(np.arange(256) > level, 0.7, 0.3),
}


def cut(picture: np.ndarray, mask: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The part around the mask's object."""
    rows, columns = np.nonzero(mask)
    more = [2 + round(margin * (v.max() + 1 - v.min())) for v in (rows, columns)]
    part = np.s_[max(0, rows.min() - more[0]) : rows.max() + 1 + more[0],
                 max(0, columns.min() - more[1]) : columns.max() + 1 + more[1]]  # fmt: skip
    return np.ascontiguousarray(picture[part]), mask[part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--crop", type=float)
    parser.add_argument("--presets", default="psa,irn")
    given = parser.parse_args()
    ious: dict[str, list[float]] = {}
    with lidcam_rt.load(given.model) as localizer:
        spec = localizer.manifest.input
        for record in open_data(given.data, "test").records[: given.limit]:
            truth = record.truth().object_mask() == 1
            picture = localizer.pipeline.prepare(record.image).picture
            if given.crop is not None:
                picture, truth = cut(picture, truth, given.crop)
            entry = localizer.pipeline.prepare(picture)
            outputs = localizer.pipeline.run([entry])
            small, level = outputs["map8"][0, 0], int(outputs["threshold"][0, 0])
            full = to_original_size(small, entry.size, spec)

            def count(name: str, mask: np.ndarray, truth: np.ndarray = truth) -> None:
                ious.setdefault(name, []).append(float((mask & truth).sum() / max(1, (mask | truth).sum())))

            count("no CRF", full > level)
            inputs = {"network": (network_pixels(entry.array, spec), small), "original": (picture, full)}
            for name in given.presets.split(","):
                crf = DenseCRF(PRESETS[name])
                for form, mapping in FORMS.items():
                    p = np.clip(mapping(level), 1e-5, 1 - 1e-5).astype(np.float32)
                    for size, (pixels, map8) in inputs.items():
                        q = crf.refine(np.ascontiguousarray(pixels), np.stack([1 - p[map8], p[map8]]))[1]
                        map8q = np.rint(255 * q).astype(np.uint8)
                        refined = to_original_size(map8q, entry.size, spec) if size == "network" else map8q
                        count(f"{name} | {form} | {size}", refined > 127)
    plain = np.array(ious["no CRF"])
    rows = {
        name: {
            "mean_iou": round(float(np.mean(v)), 3),
            "share_better_by_0.05": round(float(np.mean(np.array(v) > plain + 0.05)), 3),
            "share_worse_by_0.05": round(float(np.mean(np.array(v) < plain - 0.05)), 3),
        }
        for name, v in ious.items()
    }
    for name, row in rows.items():
        print(f"{name:58s} {row['mean_iou']:.3f}  better {row['share_better_by_0.05']:.0%}  worse "
              f"{row['share_worse_by_0.05']:.0%}")  # fmt: skip
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        about = {"data": given.data, "pictures": len(plain), "crop": given.crop}
        given.output.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
