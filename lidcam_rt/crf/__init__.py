"""Dense CRF (Krahenbuhl and Koltun, NIPS 2011) on the permutohedral lattice."""

from lidcam_rt.crf.dense import DenseCRF, from_logits, refine
from lidcam_rt.crf.localization import Refine, foreground_probability
from lidcam_rt.crf.options import PRESETS, BilateralTerm, CrfOptions, GaussianTerm, preset

__all__ = [
    "PRESETS",
    "BilateralTerm",
    "CrfOptions",
    "DenseCRF",
    "GaussianTerm",
    "Refine",
    "foreground_probability",
    "from_logits",
    "preset",
    "refine",
]
