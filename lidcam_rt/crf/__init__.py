"""Dense CRF (Krahenbuhl and Koltun, NIPS 2011) on the permutohedral lattice."""

from lidcam_rt.crf.dense import DenseCRF, refine
from lidcam_rt.crf.options import PRESETS, CrfOptions, preset

__all__ = ["PRESETS", "CrfOptions", "DenseCRF", "preset", "refine"]
