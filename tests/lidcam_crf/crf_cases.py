"""Problems whose answers by pydensecrf2 are kept in fixtures/: pictures and energies that are the same to the bit
everywhere (photos of scikit-image cut and strided, whole-number arithmetic), and how to run them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

#: sxy of the Gaussian and its weight; sxy, srgb and weight of the bilateral term; steps of a whole run
SETTINGS = {
    "psa": (3, 3, 80, 13, 10, 10),
    "irn": (3, 3, 50, 5, 10, 10),
    "deeplab": (1, 3, 67, 3, 4, 10),
    "example": (3, 3, 80, 13, 10, 5),
    "per_axis": ((2.5, 4), 3, (40, 60), (9, 13, 20), 7, 10),
}


@dataclass(frozen=True)
class Case:
    """One problem; `rows` and `columns` are the photo's slices, `compat` is that of the Gaussian term."""

    name: str
    photo: str
    rows: tuple[int, int, int]
    columns: tuple[int, int, int]
    labels: int
    setting: str
    steps: tuple[int, ...]
    compat: str = "potts"
    normalization: int = 3
    samples: int = 250

    def image(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        from skimage import data

        photo = getattr(data, self.photo)()
        return np.ascontiguousarray(photo[slice(*self.rows), slice(*self.columns)])

    def unary(self) -> np.ndarray:
        """float32 [labels, H, W], 0 to 11.5: smooth in space, with the picture's own grain."""
        image = self.image()
        height, width = image.shape[:2]
        grain = image.astype(np.int64).sum(2)  # 0 to 765
        out = np.empty((self.labels, height, width), np.float32)
        for label in range(self.labels):
            knots = np.array([[_hash(label, r, c) for c in range(7)] for r in range(7)])  # 0 to 999
            energy = 100 * _bilinear(knots, height, width) + 20 * ((grain * (label + 3)) % 766)  # up to 115220
            out[label] = energy.astype(np.float32) / np.float32(10000)
        return out

    def gaussian_compat(self) -> float | np.ndarray:
        """The compatibility of the Gaussian term."""
        if self.compat == "potts":
            return float(SETTINGS[self.setting][1])
        n = self.labels
        if self.compat == "diagonal":
            return (-np.arange(1, n + 1, dtype=np.float32)).copy()
        matrix = np.array([[_hash(7, r, c) for c in range(n)] for r in range(n)], np.float32) / np.float32(500)
        return np.ascontiguousarray(matrix - np.float32(2) * np.eye(n, dtype=np.float32))

    def pixels(self) -> np.ndarray:
        """Which pixels are kept, spread over the picture."""
        height, width = self.image().shape[:2]
        count = min(self.samples, height * width)
        return (np.arange(count, dtype=np.int64) * (height * width - 1)) // max(1, count - 1)

    def digest(self) -> str:
        """Of the inputs: differs where the photos are others."""
        return hashlib.sha256(self.image().tobytes() + self.unary().tobytes()).hexdigest()[:16]

    def build(self, module: object) -> object:
        """The problem in `pydensecrf.densecrf` or the drop-in."""
        image, unary = self.image(), self.unary()
        sxy, _, wide_sxy, srgb, weight, _ = SETTINGS[self.setting]
        kind = module.NormalizationType(self.normalization)
        field = module.DenseCRF2D(image.shape[1], image.shape[0], self.labels)
        field.setUnaryEnergy(unary.reshape(self.labels, -1))
        field.addPairwiseGaussian(sxy, self.gaussian_compat(), module.DIAG_KERNEL, kind)
        field.addPairwiseBilateral(wide_sxy, srgb, image, weight, module.DIAG_KERNEL, kind)
        return field


def _hash(*numbers: int) -> int:
    state = 12345
    for number in numbers:
        state = (state * 1103515245 + number * 2654435761 + 12345) % 2**31
        state ^= state >> 13
    return state % 1000


def _bilinear(knots: np.ndarray, height: int, width: int) -> np.ndarray:
    """int64 [height, width] from a grid of knots, in whole numbers."""

    def weights(size: int) -> tuple[np.ndarray, np.ndarray]:
        position = np.arange(size) * (len(knots) - 1) * 1024 // max(1, size)
        return position // 1024, position % 1024

    (r, fr), (c, fc) = weights(height), weights(width)
    fr, fc = fr[:, None], fc[None]
    top = knots[r][:, c] * (1024 - fc) + knots[r][:, c + 1] * fc
    bottom = knots[r + 1][:, c] * (1024 - fc) + knots[r + 1][:, c + 1] * fc
    return (top * (1024 - fr) + bottom * fr) // 1024**2


_SQUARE = ("astronaut", (60, 444, 1), (64, 448, 1))  # 384x384
_VOC = ("coffee", (10, 385, 1), (60, 560, 1))  # 375x500
_ODD = ("astronaut", (0, 385, 1), (100, 483, 1))  # 385x383
_CAT = ("chelsea", (0, 300, 3), (0, 451, 3))  # 100x151
_CUP = ("coffee", (20, 340, 5), (120, 440, 5))  # 64x64
_THUMB = ("astronaut", (0, 400, 10), (100, 450, 7))  # 40x50

CASES = (
    *(Case(f"two-{s}", *_SQUARE, 2, s, (1, 5, 10)) for s in ("psa", "irn", "deeplab", "example")),
    Case("two-voc", *_VOC, 2, "psa", (10,)),
    Case("two-odd", *_ODD, 2, "psa", (5, 10)),
    Case("two-odd-deeplab", *_ODD, 2, "deeplab", (10,)),
    Case("five-voc", *_VOC, 5, "psa", (1, 10), samples=150),
    Case("five-odd", *_ODD, 5, "irn", (10,), samples=150),
    *(Case(f"five-{s}", *_CAT, 5, s, (1, 5, 10), samples=150) for s in ("psa", "irn", "deeplab", "example")),
    Case("many-voc", *_VOC, 21, "psa", (5,), samples=60),
    *(Case(f"many-{s}", *_CUP, 21, s, (1, 5, 10), samples=60) for s in ("psa", "irn", "deeplab", "example")),
    *(Case(f"all-{s}", *_THUMB, 201, s, (1, 10), samples=30) for s in ("psa", "deeplab")),
    Case("per-axis", *_CAT, 3, "per_axis", (5,)),
    Case("diagonal", *_CAT, 4, "psa", (1, 5), compat="diagonal"),
    Case("matrix", *_CAT, 4, "psa", (1, 5), compat="matrix"),
    Case("matrix-two", *_CAT, 2, "irn", (5,), compat="matrix"),
    Case("before", *_CAT, 3, "psa", (5,), normalization=1),
    Case("after", *_CAT, 3, "psa", (5,), normalization=2),
)
