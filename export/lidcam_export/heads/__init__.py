"""Heads: how logits and activation maps come from features. A CAM method is a file here and an entry of HEADS."""

from __future__ import annotations

from lidcam_export.heads.head import Head
from lidcam_export.heads.linear import LinearHead
from lidcam_export.heads.linearized import LinearizedHead

__all__ = ["HEADS", "Head"]

#: By the name in the manifest.
HEADS: dict[str, type[Head]] = {"linear": LinearHead, "linearized": LinearizedHead}
