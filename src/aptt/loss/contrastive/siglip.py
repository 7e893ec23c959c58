"""Sigmoid contrastive loss: of every pair of a batch, whether it belongs together.

    z[i, j]  = scale * cos(a[i], b[j]) + bias
    loss[i]  = softplus(-z[i, i]) + sum_{j != i} softplus(z[i, j])

Axes: anchors ``(N, D)``; candidates ``(M, D)``; ids ``(N,)``.
From: Zhai et al. 2023 (SigLIP), arXiv:2303.15343, section 3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    check_choice,
    check_chunk,
    check_flags,
    check_floating,
    check_number,
)
from aptt.core.module import LossModule
from aptt.core.pairs import QUESTIONS, Sides, evaluate_pairs
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.contrastive.batch import (
    Duplicates,
    GatherRows,
    as_number,
    averaged,
    check_gather,
    check_scale,
    offset_of,
    pairs_of,
)

__all__ = ["SigLIPLoss", "siglip_loss"]


def siglip_loss(
    anchors: Tensor,
    candidates: Tensor,
    *,
    ids: Numbers | None = None,
    candidate_ids: Numbers | None = None,
    weight: Numbers | None = None,
    scale: float | Tensor = 10.0,
    bias: float | Tensor = -10.0,
    duplicates: Duplicates = "mask",
    cosine: bool = True,
    chunk: int | None = None,
    gather: GatherRows | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Sigmoid contrastive loss of pairs: does each anchor belong to each candidate, or not.

        z[i, j]  = scale * cos(a[i], b[j]) + bias
        loss[i]  = softplus(-z[i, i]) + sum_{j != i} softplus(z[i, j])

    Args:
        anchors: ``(N, D)``, any floating dtype.
        candidates: ``(M, D)``: the first N belong to the anchors, row by row; those below are
            negatives more.
        ids: ``(N,)``, any integers: candidates of the same id are one and the same thing.
        candidate_ids: ``(M,)``; None: as the anchors', where there are as many.
        weight: ``(N,)``, one a pair; multiplies and is counted. 0 removes the pair, its candidate
            too.
        scale: multiplies the similarities; a tensor of one number may learn. A module holds it,
            a parameter too; where ``log_scale.exp()`` changes with each step, call the function.
        bias: added to them: the log-odds of a pair at similarity 0. Of N candidates 1 is right:
            ``-log(N - 1)``, and -10 for 22,000 of them. A tensor of one number may learn.
        duplicates: what candidates with the id of the anchor are, besides its own: ``"mask"``, not
            asked for; ``"positive"``, positives.
        cosine: compare directions; False: dot products, as they are.
        chunk: anchors that are multiplied out at once; None: so many that memory does not grow
            with N times M.
        gather: puts the rows of all ranks one after another, :data:`aptt.parallel.gather`; each
            rank compares its anchors with the candidates of all.
        reduction: ``"mean"`` over the sum of the weights of the anchors, not over pairs,
            ``"sum"``,
            ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value an anchor. float32 for half
        types.

    Raises:
        ValueError: shapes that do not fit, fewer candidates than anchors, an unknown option.
        TypeError: embeddings that are not floating, ids that are not integers.

    The gradient goes to ``anchors``, ``candidates``, and to a ``scale``, ``bias`` or ``weight``
    that asks for it. A vector of zeros has the similarity 0 to all, and no gradient.

    An anchor's loss depends on all candidates: over micro-batches it is that of smaller batches.
    Over ranks it is exact, with shards of any size: ``gather=aptt.parallel.gather`` and
    ``reduction=global_mean()``.

    Use when:
        As :func:`contrastive_loss`, with batches so large, or so noisy, that a softmax over all
        candidates asks too much.

    Elsewhere:
        open_clip ``SigLipLoss``, big_vision ``sigmoid_loss``.

    Differs from:
        open_clip: the largest of the terms does not cancel against the others; the matrix of all
            pairs never exists; shards may differ in size.

    Example:
        >>> import torch
        >>> pairs = torch.eye(2)
        >>> round(siglip_loss(pairs, pairs).item(), 6)
        0.693193
    """
    check_flags(cosine=cosine)
    _check_options(scale, bias, duplicates, chunk, gather, reduction)
    a, b, weights = pairs_of(anchors, candidates, None, ids, candidate_ids, weight, cosine=cosine)
    every = b.everywhere(gather)
    at = torch.arange(len(a.values), device=a.values.device) + offset_of(gather, b.values)
    (values,) = evaluate_pairs(
        QUESTIONS,
        a.values,
        every.values,
        Sides(at, a.ids, every.ids, None, every.open),
        scale=as_number("scale", scale, a.values),
        bias=as_number("bias", bias, a.values),
        many=duplicates == "positive",
        chunk=chunk,
    )
    return averaged(values, weights, None, reduction, term="siglip", splits=gather is not None)


def _check_options(
    scale: float | Tensor,
    bias: float | Tensor,
    duplicates: str,
    chunk: int | None,
    gather: GatherRows | None,
    reduction: Reduction,
) -> None:
    check_scale(scale)
    if isinstance(bias, Tensor):
        check_floating(bias=bias)
        if bias.numel() != 1:
            raise ValueError(f"bias: got shape {tuple(bias.shape)}, wanted one number")
    else:
        check_number("bias", bias, -math.inf)
    check_choice("duplicates", duplicates, ("mask", "positive"))
    check_chunk(chunk)
    check_gather(gather)
    check_reduction(reduction)


class SigLIPLoss(LossModule):
    """Module form of :func:`siglip_loss`; same options, same defaults.

    A scale and a bias that are ``nn.Parameter`` learn with the model.
    """

    def __init__(
        self,
        scale: float | Tensor = 10.0,
        bias: float | Tensor = -10.0,
        duplicates: Duplicates = "mask",
        cosine: bool = True,
        chunk: int | None = None,
        gather: GatherRows | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_flags(cosine=cosine)
        _check_options(scale, bias, duplicates, chunk, gather, reduction)
        super().__init__(
            scale=scale,
            bias=bias,
            duplicates=duplicates,
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
        ids: Numbers | None = None,
        candidate_ids: Numbers | None = None,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``anchors`` against ``candidates``."""
        return siglip_loss(
            anchors,
            candidates,
            ids=ids,
            candidate_ids=candidate_ids,
            weight=weight,
            **self.options(),
        )
