"""Training methods that the talk compares against, on the same classifier: one file and one METHODS entry each."""

from lidcam_training.methods.acol import ComplementaryLearning
from lidcam_training.methods.adl import AttentionDropout
from lidcam_training.methods.ae import AdversarialErasing
from lidcam_training.methods.has import HideAndSeek
from lidcam_training.methods.method import Method
from lidcam_training.methods.options import MethodOptions

__all__ = ["METHODS", "Method", "MethodOptions"]

#: By the name used in recipes.
METHODS: dict[str, Method] = {
    "none": Method(),
    "has": HideAndSeek(),
    "adl": AttentionDropout(),
    "acol": ComplementaryLearning(),
    "ae": AdversarialErasing(),
}
