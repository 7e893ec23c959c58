"""Cross-entropy of the hardest positions: top-k, online hard example mining, bootstrapping.

    k     = ceil(fraction n) of n positions that count, at least 1
    loss  = mean of the k largest l = 1/k (sum of l > q + (k - number of l > q) q)

with q the k-th largest. Positions that are equally hard share what is left for them, so value and
gradient do not depend on the order of a sort: it is the conditional value at risk at this fraction.

Axes: logits ``(N, C, ...)`` or ``(..., C)``.
From: OHEM, Shrivastava et al. 2016, arXiv:1604.03540, section 4; bootstrapped, Pohlen et al. 2017
(FRRN), arXiv:1611.08323, section 4; as conditional value at risk, Fan et al. 2017 (average top-k),
arXiv:1705.08826, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.axes import align_classes
from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_choice,
    check_floating,
    check_index,
    check_number,
    kept,
)
from aptt.core.module import LossModule, per_class
from aptt.core.precision import widest
from aptt.core.reduction import Kind, Normalizer, Reduction, begin, check_reduction, hear
from aptt.core.shapes import check_sample_weight, check_vector
from aptt.core.vocabulary import checked_form
from aptt.loss.classification.categorical import cross_entropy

__all__ = ["TopKCrossEntropyLoss", "top_k_cross_entropy_loss"]

Pool = Literal["batch", "sample"]


def top_k_cross_entropy_loss(
    logits: Tensor,
    target: Numbers,
    *,
    sample_weight: Numbers | None = None,
    fraction: float = 0.1,
    threshold: float | None = None,
    class_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_adjustment: Numbers | None = None,
    class_dim: int | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of the hardest positions, from logits.

        loss = mean of the k largest -log p[y]      k = ceil(fraction n), at least 1

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        target: class indices of any integer dtype, shaped like the logits without the class axis;
            or soft targets, floating and shaped like the logits.
        sample_weight: shaped like class indices; multiplies before the hardest are found, and is
            counted; 0 removes, from n too.
        fraction: the share of the positions that count, from 0 (the single hardest) to 1 (all).
        threshold: a probability: all positions with ``p[y]`` below it are taken, and k is the
            least. Where there are weights, smoothing or a z-loss, it is the loss with them that is
            compared, with ``-log threshold``.
        class_weight: ``(C,)``, one weight per class, which multiplies before the hardest are found;
            it is counted.
        ignore_index: the class index that removes its position, from n too; None: none is ignored.
        label_smoothing: the share of the target's mass spread evenly over the classes. It and the
            next three are as in :func:`cross_entropy`.
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits to ``(-softcap, softcap)``.
        logit_adjustment: ``(C,)``, added to the logits in training.
        class_dim: the class axis, where shapes leave it open.
        pool: among which positions the hardest are found: those of the ``"batch"``, or of each
            ``"sample"``.
        reduction: ``"mean"`` over the k, ``"sum"``, ``"none"`` for the shape of the target, with 0
            for what is not among them, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0. float32 for half types. Of no positions 0.

    Raises:
        ValueError: shapes that do not fit, classes out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to soft targets, weights and adjustment that want it. The
    hardest of a batch are not those of its parts: micro-batches and ranks are exact with
    ``pool="sample"``.

    Use when:
        Most pixels are easy, and the mean of all says little about the rest; late in training, or
        beside Dice. Wrong labels are hard too, and are then all that is learnt.

    Elsewhere:
        nnU-Net ``TopKLoss``, mmsegmentation ``OHEMPixelSampler``, PaddleSeg
        ``OhemCrossEntropyLoss``; bootstrapped cross-entropy.

    Differs from:
        nnU-Net: k is a share of all voxels there, the ignored ones included.
        mmsegmentation, PaddleSeg: ``threshold`` and a least number of pixels, for all samples of a
            batch; where all are equally hard, their strict comparison keeps none.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.4, 0.0], [0.4, 0.0], [1.4, 0.0], [0.4, 0.0]])
        >>> target = torch.tensor([0, 0, 0, 0])
        >>> round(top_k_cross_entropy_loss(logits, target, fraction=0.5).item(), 4)
        0.513
    """
    _check(fraction, threshold, ignore_index, pool, reduction)
    options: dict[str, Any] = {
        "weight": class_weight,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "softcap": softcap,
        "logit_adjustment": logit_adjustment,
        "class_dim": class_dim,
    }
    check_floating(logits=logits)
    target = as_tensor("target", target, logits)
    if class_weight is not None:
        x = align_classes(logits, target, class_dim).logits
        class_weight = check_vector("class_weight", class_weight, x)
    weight = None
    if sample_weight is not None:
        positions = align_classes(logits, target, class_dim).shape
        weight = check_sample_weight(sample_weight, positions, logits=logits)
    with torch.no_grad():
        losses = cross_entropy(logits, target, sample_weight=weight, reduction="none", **options)
        known = None
        if ignore_index is not None and target.shape == losses.shape:
            known = kept(target, ignore_index)
        if weight is not None:
            known = weight != 0 if known is None else known & (weight != 0)
        share = _shares(losses, known, fraction, threshold, pool)
    if weight is not None:
        share = torch.where(share != 0, share * weight.to(share.dtype), 0.0)
    told = _Told(reduction, pool == "sample") if callable(reduction) else reduction
    return cross_entropy(logits, target, sample_weight=share, reduction=told, **options)


def _shares(
    losses: Tensor, known: Tensor | None, fraction: float, threshold: float | None, pool: Pool
) -> Tensor:
    """How much of each position is among the hardest: 1, 0, or a part where it is tied."""
    if losses.numel() == 0:
        return torch.ones_like(losses)
    rows = losses.reshape(len(losses) if pool == "sample" and losses.ndim else 1, -1)
    rows = torch.where(rows.isnan(), torch.inf, rows)  # which is to be seen
    n = rows.new_full((len(rows), 1), rows.shape[1])
    if known is not None:
        known = known.reshape(rows.shape)
        rows, n = torch.where(known, rows, -torch.inf), known.sum(1, keepdim=True)
    k = (n.to(widest(rows)) * (fraction * (1 - 1e-12))).ceil().clamp(min=1).long()
    if threshold is not None:
        above = (rows > -math.log(threshold)).sum(1, keepdim=True) if threshold else k
        k = torch.maximum(k, above)
    least = rows.sort(1, descending=True).values.gather(1, k - 1)
    harder, tied = rows > least, rows == least
    left = (k - harder.sum(1, keepdim=True)).to(rows.dtype) / tied.sum(1, keepdim=True)
    share = torch.where(harder, 1.0, torch.where(tied, left, 0.0))
    return share.reshape(losses.shape)


@dataclass(frozen=True)
class _Told:
    """A normalizer that is told whether the hardest can be found in parts."""

    reduction: Normalizer
    splits: bool

    def begin(self, count: Tensor, *, term: str) -> Any:
        return begin(self.reduction, count, "top_k_cross_entropy")

    def hear(self, kind: Kind, *, term: str, splits: bool = True) -> None:
        hear(self.reduction, kind, "top_k_cross_entropy", splits=self.splits)

    def __call__(self, total: Tensor, count: Any, *, term: str) -> Tensor:
        return self.reduction(total, count, term="top_k_cross_entropy")


def _check(
    fraction: float,
    threshold: float | None,
    ignore_index: int | None,
    pool: str,
    reduction: Reduction,
) -> None:
    check_number("fraction", fraction, 0.0, 1.0)
    if threshold is not None:
        check_number("threshold", threshold, 0.0, 1.0)
    check_index(ignore_index=ignore_index)
    check_choice("pool", pool, ("batch", "sample"))
    check_reduction(reduction)


class TopKCrossEntropyLoss(LossModule):
    """Module form of :func:`top_k_cross_entropy_loss`; same options, same defaults."""

    def __init__(
        self,
        fraction: float = 0.1,
        threshold: float | None = None,
        class_weight: Numbers | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_adjustment: Numbers | None = None,
        class_dim: int | None = None,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check(fraction, threshold, ignore_index, pool, reduction)
        checked_form(label_smoothing, z_loss, softcap, reduction)
        check_index(class_dim=class_dim)
        super().__init__(
            fraction=fraction,
            threshold=threshold,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            logit_adjustment=per_class(logit_adjustment, "logit_adjustment", signed=True),
            class_dim=class_dim,
            pool=pool,
            reduction=reduction,
        )

    def forward(
        self, logits: Tensor, target: Numbers, *, sample_weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return top_k_cross_entropy_loss(
            logits, target, sample_weight=sample_weight, **self.options()
        )
