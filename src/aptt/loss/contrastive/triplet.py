"""Triplet loss: a sample lies nearer to its own class than to others, by a margin.

    d[i, j]  = |x[i] - x[j]|,    P: the others of i's class,    N: those of other classes
    hard[i]  = max(0, margin + max_P d[i, p] - min_N d[i, n])
    all[i]   = mean_{p, n} max(0, margin + d[i, p] - d[i, n])

Axes: embeddings ``(N, D)``; target ``(N,)``.
From: Hermans et al. 2017, arXiv:1703.07737, eq. 5 (hard) and 6 (all), section 2 (soft margin);
Schroff et al. 2015 (FaceNet), arXiv:1503.03832, eq. 3 (squared distances).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aptt.core.checks import Numbers, check_choice, check_chunk, check_flags, check_number
from aptt.core.logistic import softplus
from aptt.core.mining import hardest
from aptt.core.module import LossModule
from aptt.core.ordinary import inside_functorch, ordinary
from aptt.core.pairs import Sides, marks
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.vectors import length, picked
from aptt.loss.contrastive.batch import (
    GatherRows,
    averaged,
    check_gather,
    labelled,
    offset_of,
)

__all__ = ["TripletLoss", "triplet_loss"]

Margin = float | Literal["soft"]
_NUMBERS = 2**22  # of differences, or triplets, in a chunk


def triplet_loss(
    embeddings: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    margin: Margin = 0.3,
    mining: Literal["hard", "all"] = "hard",
    squared: bool = False,
    cosine: bool = False,
    chunk: int | None = None,
    gather: GatherRows | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Triplet loss: nearer to one's own class than to others, by a margin.

        hard[i]  = max(0, margin + max_P d[i, p] - min_N d[i, n])
        all[i]   = mean_{p, n} max(0, margin + d[i, p] - d[i, n])

    Args:
        embeddings: ``(N, D)``, any floating dtype.
        target: ``(N,)``, the class of each, any integers.
        weight: ``(N,)``, one a sample; multiplies its loss and is counted. 0 removes the sample,
            for the others too.
        margin: how much nearer, at least 0; ``"soft"``: ``softplus(d[i, p] - d[i, n])``.
        mining: of each sample the ``"hard"`` triplet, its farthest positive and its nearest
            negative, or the mean over ``"all"``, of which there are up to N**3.
        squared: squared distances.
        cosine: distances of directions, embeddings of length 1.
        chunk: samples that are compared with the others at once; None: so many that memory does
            not grow with N times N (``"all"``: N times N times N).
        gather: puts the rows of all ranks one after another, :data:`aptt.parallel.gather`.
        reduction: ``"mean"`` over the sum of the weights of the samples with a positive and a
            negative, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value a sample. float32 for half
        types.

    Raises:
        ValueError: shapes that do not fit, an unknown option.
        TypeError: embeddings that are not floating, a target that is not integer.

    The gradient goes to ``embeddings``, and to a ``weight`` that asks for it; between two samples
    in one place a distance has none. A sample without a positive, or without a negative, has no
    loss and is not counted. Where all embeddings are one, the loss is the margin, without a
    gradient.

    A sample's loss depends on the whole batch: over micro-batches it is that of smaller batches.
    Over ranks it is exact, with shards of any size: ``gather=aptt.parallel.gather`` and
    ``reduction=global_mean()``.

    Use when:
        Distances are what is used later: verification, re-identification. Batches of P classes
        with K samples each.

    Elsewhere:
        torch ``F.triplet_margin_loss`` (of given triplets), pytorch-metric-learning
        ``TripletMarginLoss``, sentence-transformers ``BatchHardTripletLoss``.

    Differs from:
        pytorch-metric-learning: the mean counts all samples, not the triplets whose loss is above
            0, a number that jumps.
        Hermans: ``"all"`` is a mean over the triplets of a sample first, so that classes with many
            samples do not count more than once.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0], [0.0, 1.5]])
        >>> round(triplet_loss(x, torch.tensor([0, 0, 1, 1]), margin=0.6).item(), 4)
        0.05
    """
    check_flags(squared=squared, cosine=cosine)
    _check_options(margin, mining, chunk, gather, reduction)
    x, weights = labelled(embeddings, target, weight, cosine=cosine)
    every, start = x.everywhere(gather), offset_of(gather, x.values)
    itself = torch.arange(len(x.values), device=x.values.device) + start
    sides = Sides(None, x.ids, every.ids, itself, every.open)
    if mining == "hard":
        found = hardest(x.values, every.values, sides, chunk)
        to_negative, to_positive = (
            _apart(x.values, picked(every.values, at), squared)
            for at in (found.negative, found.positive)
        )
        values = _cost(to_positive - to_negative, margin)
        there = found.has_positive & found.has_negative
    else:
        values, there = _over_all(x.values, every.values, sides, chunk, margin, squared)
    values = torch.where(there, values, 0.0)
    return averaged(values, weights, there, reduction, term="triplet", splits=gather is not None)


def _apart(x: Tensor, y: Tensor, squared: bool) -> Tensor:
    difference = x - y
    return difference.square().sum(-1) if squared else length(difference)


def _cost(gap: Tensor, margin: Margin) -> Tensor:
    return softplus(gap) if margin == "soft" else torch.relu(gap + margin)


def _over_all(
    x: Tensor, y: Tensor, sides: Sides, chunk: int | None, margin: Margin, squared: bool
) -> tuple[Tensor, Tensor]:
    """The mean over the triplets of each sample, and whether it has one."""

    def values(x: Tensor, y: Tensor, some: Sides) -> tuple[Tensor, Tensor]:
        apart = _apart(x.unsqueeze(1), y, squared)
        positive, negative = marks(some, len(y), many=True, like=x)
        triplet = positive.unsqueeze(2) & negative.unsqueeze(1)
        count = positive.sum(1) * negative.sum(1)
        cost = _cost(apart.unsqueeze(2) - apart.unsqueeze(1), margin)
        total = torch.where(triplet, cost, 0.0).sum((1, 2))
        return total / count.clamp(min=1), count > 0

    n, step = len(x), chunk or max(_NUMBERS // max(len(y) * max(len(y), x.shape[1]), 1), 1)
    whole = torch.compiler.is_compiling() or inside_functorch() or not ordinary(x)
    if whole or n <= step:
        return values(x, y, sides)
    cuts = [slice(i, i + step) for i in range(0, n, step)]
    found = [checkpoint(values, x[i], y, sides.rows(i), use_reentrant=False) for i in cuts]
    total, there = (torch.cat(parts) for parts in zip(*found, strict=True))
    return total, there


def _check_options(
    margin: Margin,
    mining: str,
    chunk: int | None,
    gather: GatherRows | None,
    reduction: Reduction,
) -> None:
    if margin != "soft":
        if isinstance(margin, str):
            raise ValueError(f"margin: got {margin!r}, wanted a number of at least 0, or 'soft'")
        check_number("margin", margin)
    check_choice("mining", mining, ("hard", "all"))
    check_chunk(chunk)
    check_gather(gather)
    check_reduction(reduction)


class TripletLoss(LossModule):
    """Module form of :func:`triplet_loss`; same options, same defaults."""

    def __init__(
        self,
        margin: Margin = 0.3,
        mining: Literal["hard", "all"] = "hard",
        squared: bool = False,
        cosine: bool = False,
        chunk: int | None = None,
        gather: GatherRows | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_flags(squared=squared, cosine=cosine)
        _check_options(margin, mining, chunk, gather, reduction)
        super().__init__(
            margin=margin,
            mining=mining,
            squared=squared,
            cosine=cosine,
            chunk=chunk,
            gather=gather,
            reduction=reduction,
        )

    def forward(
        self, embeddings: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``embeddings`` of the classes ``target``."""
        return triplet_loss(embeddings, target, weight=weight, **self.options())
