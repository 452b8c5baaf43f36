"""Training methods that the talk compares with, on the same classifier: one file and one entry of METHODS each."""

from lidcam_training.methods.acol import ComplementaryLearning
from lidcam_training.methods.adl import AttentionDropout
from lidcam_training.methods.ae import AdversarialErasing
from lidcam_training.methods.has import HideAndSeek
from lidcam_training.methods.method import Method
from lidcam_training.methods.options import MethodOptions

__all__ = ["METHODS", "Method", "MethodOptions"]

#: By the name that recipes use.
METHODS: dict[str, Method] = {
    "none": Method(),
    "has": HideAndSeek(),
    "adl": AttentionDropout(),
    "acol": ComplementaryLearning(),
    "ae": AdversarialErasing(),
}
