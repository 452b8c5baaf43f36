"""Percentile as a standard (PaS): from activation maps to localization maps and masks."""

from lidcam_rt.pas.kernel import pas
from lidcam_rt.pas.library import ops_library
from lidcam_rt.pas.options import PasOptions
from lidcam_rt.pas.reference import PaSResult, pas_reference, resize_reference

__all__ = ["PaSResult", "PasOptions", "ops_library", "pas", "pas_reference", "resize_reference"]
