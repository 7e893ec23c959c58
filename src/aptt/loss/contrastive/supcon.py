"""Supervised contrastive loss: samples of one class are each other's positives.

    s[i, j]  = scale * cos(x[i], x[j]),    A: all but i,    P: those of them of its class
    out[i]   = log sum_A exp(s[i, a]) - mean_P s[i, p]
    in[i]    = log sum_A exp(s[i, a]) - log mean_P exp(s[i, p])

Axes: embeddings ``(N, D)``; target ``(N,)``.
From: Khosla et al. 2020, arXiv:2004.11362, eq. 2 (out) and 3 (in).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_chunk, check_flags
from aptt.core.module import LossModule
from aptt.core.pairs import POSITIVES, Sides, evaluate_pairs
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.contrastive.batch import (
    GatherRows,
    as_number,
    averaged,
    check_gather,
    check_scale,
    labelled,
    of_positives,
    offset_of,
)

__all__ = ["SupConLoss", "supcon_loss"]


def supcon_loss(
    embeddings: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    scale: float | Tensor = 10.0,
    kind: Literal["out", "in"] = "out",
    cosine: bool = True,
    chunk: int | None = None,
    gather: GatherRows | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Supervised contrastive loss: samples of one class find each other among all.

        out[i]  = log sum_{a != i} exp(s[i, a]) - mean_P s[i, p],    s = scale * cos
        in[i]   = log sum_{a != i} exp(s[i, a]) - log mean_P exp(s[i, p])

    Args:
        embeddings: ``(N, D)``, any floating dtype; views of one sample are rows of one class.
        target: ``(N,)``, the class of each, any integers.
        weight: ``(N,)``, one a sample; multiplies its loss and is counted. 0 removes the sample,
            from the others' sums too.
        scale: multiplies the similarities: 1 / temperature; a tensor of one number may learn.
        kind: where the mean over the positives is, ``"out"`` of the logarithm or ``"in"`` it.
        cosine: compare directions; False: dot products, as they are.
        chunk: samples that are multiplied out at once; None: so many that memory does not grow
            with N times N.
        gather: puts the rows of all ranks one after another, :data:`aptt.parallel.gather`.
        reduction: ``"mean"`` over the sum of the weights of the samples with a positive,
            ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, and at least the logarithm of the number of positives: a scalar, or
        with ``"none"`` one value a sample. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, an unknown option.
        TypeError: embeddings that are not floating, a target that is not integer.

    The gradient goes to ``embeddings``, and to a ``scale`` or ``weight`` that asks for it. A
    sample that is alone in its class has no loss, and is not counted; it is a negative of others.

    A sample's loss depends on the whole batch: over micro-batches it is that of smaller batches.
    Over ranks it is exact, with shards of any size: ``gather=aptt.parallel.gather`` and
    ``reduction=global_mean()``.

    Use when:
        There are classes, and embeddings are wanted: pretraining a classifier, few-shot, retrieval.

    Elsewhere:
        SupContrast ``SupConLoss``, pytorch-metric-learning ``SupConLoss``.

    Differs from:
        SupContrast: exact at any temperature, where a sample's similarity to itself and 1e-9 hide
            the negatives from .05 down; not multiplied by temperature / .07; samples without a
            positive are left out, not averaged in as 0.
        pytorch-metric-learning: the mean counts all samples with a positive, not those whose loss
            is above 0.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(supcon_loss(x, torch.tensor([0, 0, 1]), scale=1.0).item(), 4)
        0.3133
    """
    check_flags(cosine=cosine)
    _check_options(scale, kind, chunk, gather, reduction)
    x, weights = labelled(embeddings, target, weight, cosine=cosine)
    every, start = x.everywhere(gather), offset_of(gather, x.values)
    itself = torch.arange(len(x.values), device=x.values.device) + start
    stats = evaluate_pairs(
        POSITIVES,
        x.values,
        every.values,
        Sides(None, x.ids, every.ids, itself, every.open),
        scale=as_number("scale", scale, x.values),
        chunk=chunk,
    )
    values, found = of_positives(stats, inside=kind == "in"), stats[5].detach() > 0
    return averaged(values, weights, found, reduction, term="supcon", splits=gather is not None)


def _check_options(
    scale: float | Tensor,
    kind: str,
    chunk: int | None,
    gather: GatherRows | None,
    reduction: Reduction,
) -> None:
    check_scale(scale)
    check_choice("kind", kind, ("out", "in"))
    check_chunk(chunk)
    check_gather(gather)
    check_reduction(reduction)


class SupConLoss(LossModule):
    """Module form of :func:`supcon_loss`; same options, same defaults."""

    def __init__(
        self,
        scale: float | Tensor = 10.0,
        kind: Literal["out", "in"] = "out",
        cosine: bool = True,
        chunk: int | None = None,
        gather: GatherRows | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_flags(cosine=cosine)
        _check_options(scale, kind, chunk, gather, reduction)
        super().__init__(
            scale=scale,
            kind=kind,
            cosine=cosine,
            chunk=chunk,
            gather=gather,
            reduction=reduction,
        )

    def forward(
        self, embeddings: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``embeddings`` of the classes ``target``."""
        return supcon_loss(embeddings, target, weight=weight, **self.options())
