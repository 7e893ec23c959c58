"""The softmax seen from the right class: its log-odds against all the others together.

    margin = z[y] - logsumexp of the other logits
    nll    = softplus(-margin),    1 - p[y] = sigmoid(-margin)

Formed so, both are exact however confident the row is: 1 - p[y] is never a difference of two
numbers near 1. The class axis is axis 1, as in :mod:`aptt.core.streaming`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.streaming import Work, exp_

__all__ = ["margin", "on_class_axis", "shifted", "softmax_gradient_"]


def margin(z: Tensor, y: Tensor) -> Tensor:
    """The margin of class ``y`` in each row; differentiable."""
    limits = torch.finfo(z.dtype)
    classes = on_class_axis(torch.arange(z.shape[1], device=z.device), z)
    others = z.masked_fill(classes == y.unsqueeze(1), -torch.inf)
    top = others.detach().amax(1).clamp_min(limits.min)
    rest = (others - top.unsqueeze(1)).exp().sum(1).clamp_min(limits.tiny)
    return (z.gather(1, y.unsqueeze(1)).squeeze(1) - top) - rest.log()


def shifted(z: Tensor, y: Tensor, work: Work) -> tuple[Tensor, Tensor, Tensor]:
    """By hand, per row: the largest logit ``top``, ``exp(z - top)`` of ``y`` and of the rest."""
    top, at = z.amax(1, keepdim=True), y.unsqueeze(1)
    e = exp_(torch.sub(z, top, out=work("e", z)))
    mine = e.gather(1, at)
    rest = e.scatter_(1, at, 0.0).sum(1, keepdim=True)
    return top, mine, rest


def softmax_gradient_(
    out: Tensor, z: Tensor, y: Tensor, top: Tensor, slope: Tensor, chosen: Tensor
) -> None:
    """Write ``slope * exp(z - top)`` into ``out``, and ``chosen`` at the class of each row."""
    exp_(torch.sub(z, top, out=out)).mul_(slope)
    out.scatter_(1, y.unsqueeze(1), chosen)


def on_class_axis(values: Tensor, z: Tensor) -> Tensor:
    """One number per class, shaped to multiply ``z``."""
    return values.view(-1, *[1] * (z.ndim - 2))
