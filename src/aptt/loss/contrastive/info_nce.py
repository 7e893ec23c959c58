"""Contrastive losses of pairs: InfoNCE, one-sided and two-sided, NT-Xent.

    s[i, j]  = scale * cos(a[i], b[j])
    loss[i]  = log sum_j exp(s[i, j]) - s[i, t]        t: the candidate of anchor i
    both     = (loss of a against b + loss of b against a) / 2

Axes: anchors ``(N, D)``; candidates ``(M, D)``; target ``(N,)``; ids ``(N,)``.
From: InfoNCE, van den Oord et al. 2018, arXiv:1807.03748, eq. 4; symmetric, Radford et al. 2021
(CLIP), arXiv:2103.00020, fig. 3; within, Chen et al. 2020 (NT-Xent, SimCLR), arXiv:2002.05709,
eq. 1; several positives as Khosla et al. 2020 (SupCon), arXiv:2004.11362, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_chunk, check_flags
from aptt.core.module import LossModule
from aptt.core.pairs import NEGATIVES, POSITIVES, Sides, evaluate_pairs
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.softmax import Against
from aptt.core.vectors import picked
from aptt.loss.contrastive.batch import (
    Duplicates,
    GatherRows,
    Rows,
    as_number,
    averaged,
    check_gather,
    check_scale,
    columns_of,
    of_positives,
    offset_of,
    pairs_of,
)

__all__ = ["ContrastiveLoss", "contrastive_loss"]


def contrastive_loss(
    anchors: Tensor,
    candidates: Tensor,
    *,
    target: Numbers | None = None,
    ids: Numbers | None = None,
    candidate_ids: Numbers | None = None,
    weight: Numbers | None = None,
    scale: float | Tensor = 20.0,
    duplicates: Duplicates = "mask",
    symmetric: bool = False,
    within: bool = False,
    cosine: bool = True,
    chunk: int | None = None,
    gather: GatherRows | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Contrastive loss of pairs: each anchor finds its candidate among all.

        s[i, j]  = scale * cos(a[i], b[j])
        loss[i]  = log sum_j exp(s[i, j]) - s[i, t[i]]

    Args:
        anchors: ``(N, D)``, any floating dtype.
        candidates: ``(M, D)``: the first N belong to the anchors, row by row; those below are
            negatives more.
        target: ``(N,)``, the row of candidates that belongs to each anchor, where it is another;
            with ``gather`` a row of this rank's own.
        ids: ``(N,)``, any integers: candidates of the same id are one and the same thing.
        candidate_ids: ``(M,)``; None: as the anchors', where there are as many.
        weight: ``(N,)``, one a pair; multiplies and is counted. 0 removes the pair, its candidate
            too; with ``target`` the anchor alone, for its candidate may be another's.
        scale: multiplies the similarities: 1 / temperature; a tensor of one number may learn.
        duplicates: what candidates with the id of the anchor are, besides its own: ``"mask"``,
            neither positive nor negative; ``"positive"``, positives, over which the loss is a mean.
        symmetric: the mean of both ways, anchors among candidates and candidates among anchors.
        within: the other anchors are negatives too.
        cosine: compare directions; False: dot products, as they are.
        chunk: anchors that are multiplied out at once; None: so many that memory does not grow
            with N times M.
        gather: puts the rows of all ranks one after another, :data:`aptt.parallel.gather`; each
            rank compares its anchors with the candidates of all.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value an anchor. float32 for half
        types.

    Raises:
        ValueError: shapes that do not fit, fewer candidates than anchors without ``target``, a
            target out of range (on CPU), ``symmetric`` with ``target``, an unknown option.
        TypeError: embeddings that are not floating, ids that are not integers.

    The gradient goes to ``anchors``, ``candidates``, and to a ``scale`` or ``weight`` that asks
    for it. A vector of zeros has the similarity 0 to all, and no gradient.

    A pair's loss depends on the whole batch: over micro-batches it is that of smaller batches, but
    where each is given all candidates, with ``target``. Over ranks it is exact, with shards of any
    size: ``gather=aptt.parallel.gather`` and ``reduction=global_mean()``.

    Use when:
        Pairs are known to belong together, and nothing else is: retrieval, text and image
        (``symmetric=True``), two views of one picture (``symmetric=True, within=True``: NT-Xent).
        A temperature that learns is ``scale=log_scale.exp()``; bound the parameter after a step,
        ``log_scale.data.clamp_(max=4.6)``, not in the graph, where the bound would keep it.

    Elsewhere:
        open_clip ``ClipLoss``, sentence-transformers ``MultipleNegativesRankingLoss``,
        pytorch-metric-learning ``NTXentLoss``, info-nce-pytorch ``InfoNCE``.

    Differs from:
        open_clip: over ranks both gradients are exact, and shards may differ in size; the matrix
            of all pairs never exists.
        sentence-transformers: duplicates of a positive can be masked or counted.
        pytorch-metric-learning: a confidently wrong pair keeps its gradient, which there ends in
            the logarithm of the smallest number.

    Example:
        >>> import torch
        >>> pairs = torch.eye(2)
        >>> round(contrastive_loss(pairs, pairs, scale=2.0).item(), 6)
        0.126928
    """
    check_flags(symmetric=symmetric, within=within, cosine=cosine)
    _check_options(scale, duplicates, chunk, gather, reduction)
    if symmetric and target is not None:
        raise ValueError("symmetric: got True with target, wanted pairs, row by row")
    a, b, weights = pairs_of(anchors, candidates, target, ids, candidate_ids, weight, cosine=cosine)
    at = None if target is None else columns_of(target, anchors, len(candidates))
    how = _How(as_number("scale", scale, a.values), duplicates == "positive", within, chunk, gather)
    values = how(a, b, at)
    if symmetric:
        values = (values + how(b.first(len(a.values)), a, None, more=b)) / 2
    splits = gather is not None or target is not None
    return averaged(values, weights, None, reduction, term="contrastive", splits=splits)


class _How:
    """How rows are compared with others, given which."""

    def __init__(
        self,
        scale: Tensor,
        many: bool,
        within: bool,
        chunk: int | None,
        gather: GatherRows | None,
    ) -> None:
        self.scale, self.many, self.within = scale, many, within
        self.chunk, self.gather = chunk, gather

    def __call__(self, x: Rows, y: Rows, at: Tensor | None, *, more: Rows | None = None) -> Tensor:
        """The loss of each row of ``x`` among those of ``y``; ``more`` is all that x is part of."""
        n, gather = len(x.values), self.gather
        every = y.everywhere(gather)
        if at is None:
            at = torch.arange(n, device=x.values.device)
        at = at.long() + offset_of(gather, y.values)
        itself = None
        if self.within:
            own = x if more is None else more
            itself = torch.arange(n, device=at.device) + offset_of(gather, own.values)
            itself = itself + len(every.values)
            every = every.beside(own.everywhere(gather))
        sides = Sides(at, x.ids, every.ids, itself, every.open)
        several = self.many and x.ids is not None
        stats = evaluate_pairs(
            POSITIVES if several else NEGATIVES,
            x.values,
            every.values,
            sides,
            scale=self.scale,
            chunk=self.chunk,
        )
        if several:
            return of_positives(stats)
        top, rest = stats
        mine = self.scale * (x.values * picked(every.values, at)).sum(1)
        return Against.of(top.detach(), rest, mine).nll


def _check_options(
    scale: float | Tensor,
    duplicates: str,
    chunk: int | None,
    gather: GatherRows | None,
    reduction: Reduction,
) -> None:
    check_scale(scale)
    check_choice("duplicates", duplicates, ("mask", "positive"))
    check_chunk(chunk)
    check_gather(gather)
    check_reduction(reduction)


class ContrastiveLoss(LossModule):
    """Module form of :func:`contrastive_loss`; same options, same defaults.

    A scale that is an ``nn.Parameter`` learns with the model.
    """

    def __init__(
        self,
        scale: float | Tensor = 20.0,
        duplicates: Duplicates = "mask",
        symmetric: bool = False,
        within: bool = False,
        cosine: bool = True,
        chunk: int | None = None,
        gather: GatherRows | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_flags(symmetric=symmetric, within=within, cosine=cosine)
        _check_options(scale, duplicates, chunk, gather, reduction)
        super().__init__(
            scale=scale,
            duplicates=duplicates,
            symmetric=symmetric,
            within=within,
            cosine=cosine,
            chunk=chunk,
            gather=gather,
            reduction=reduction,
        )

    def forward(
        self,
        anchors: Tensor,
        candidates: Tensor,
        *,
        target: Numbers | None = None,
        ids: Numbers | None = None,
        candidate_ids: Numbers | None = None,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``anchors`` among ``candidates``."""
        return contrastive_loss(
            anchors,
            candidates,
            target=target,
            ids=ids,
            candidate_ids=candidate_ids,
            weight=weight,
            **self.options(),
        )
