"""Losses over several labels per picture; classes whose label is unknown are left out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["UNKNOWN", "MultilabelLoss", "multilabel_loss"]

MultilabelLoss = Literal["bce", "soft_margin", "asl"]

#: Target of a class that may be in the picture or not.
UNKNOWN = -1.0


def multilabel_loss(
    logits: Tensor,
    target: Tensor,
    name: MultilabelLoss = "bce",
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 0.0,
    shift: float = 0.05,
) -> Tensor:
    """Mean over the known labels of a batch; 0 where none is known.

    `bce`: binary cross-entropy per class. `soft_margin`: torch's MultiLabelSoftMarginLoss, whose value is the same
    where all labels are known; where some are not, every picture has the same weight instead of every known label.
    `asl`: the asymmetric loss of Ridnik et al. (ICCV 2021): focusing by separate gammas for present and absent classes,
    and the probability of absent classes shifted down by a margin, so that easy ones contribute nothing.

    Args:
        logits: float [N, K].
        target: [N, K]: 1 present, 0 absent, `UNKNOWN` neither.
        name: bce, soft_margin or asl.
        gamma_negative: asl: focusing of absent classes.
        gamma_positive: asl: focusing of present classes.
        shift: asl: the margin, 0 to 1.

    Returns:
        A scalar in float32.
    """
    logits = logits.float()
    known = (target >= 0).float()
    target = target.float().clamp(min=0)
    if name == "asl":
        p = torch.sigmoid(logits)
        q = (1 - p + shift).clamp(max=1)
        positive = functional.logsigmoid(logits) * (1 - p).pow(gamma_positive)
        negative = q.clamp(min=1e-8).log() * (1 - q).pow(gamma_negative)
        each = -(target * positive + (1 - target) * negative)
    else:
        each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if name == "soft_margin":
        return ((each * known).sum(1) / known.sum(1).clamp(min=1)).mean()
    return (each * known).sum() / known.sum().clamp(min=1)
