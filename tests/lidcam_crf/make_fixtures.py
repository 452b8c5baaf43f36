"""Writes fixtures/pydensecrf2.npz, what pydensecrf2 answers to the problems of crf_cases.py:

    pip install 'lidcam-rt[crf-oracle]' scikit-image
    python tests/lidcam_crf/make_fixtures.py

Per case and number of steps: Q in float32 at a sample of the pixels, and the most probable label of every pixel (255
where the two best are closer than 2e-5, so that rounding may choose either).
"""

from __future__ import annotations

import io
import json
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pydensecrf.densecrf as oracle
import skimage
from crf_cases import CASES

FIXTURE = Path(__file__).parent / "fixtures" / "pydensecrf2.npz"
TIE = 255


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    about = {"pydensecrf2": version("pydensecrf2"), "skimage": skimage.__version__, "digests": {}}
    for case in CASES:
        field, pixels = case.build(oracle), case.pixels()
        about["digests"][case.name] = case.digest()
        for steps in case.steps:
            q = np.array(field.inference(steps))
            best = np.partition(q, -2, axis=0)[-2:]
            arrays[f"{case.name}/{steps}/q"] = np.ascontiguousarray(q[:, pixels])
            labels = q.argmax(0).astype(np.uint8)
            labels[best[1] - best[0] < 2e-5] = TIE
            arrays[f"{case.name}/{steps}/labels"] = labels
        print(case.name, flush=True)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with zipfile.ZipFile(FIXTURE, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)
    print(f"{FIXTURE.name}: {FIXTURE.stat().st_size / 1000:.0f} kB, {len(CASES)} cases")


if __name__ == "__main__":
    main()
