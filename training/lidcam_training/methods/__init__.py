"""Training methods that the talk compares with, on the same classifier."""

from lidcam_training.methods.adl import attach_attention_dropout, attention_dropout
from lidcam_training.methods.erasing import erase_features, erase_regions
from lidcam_training.methods.has import hide_patches

__all__ = ["attach_attention_dropout", "attention_dropout", "erase_features", "erase_regions", "hide_patches"]
