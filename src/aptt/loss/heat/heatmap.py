"""Heat-map loss: where on a grid a point or a centre lies.

    mse      loss = (x - y)**2                                     x: value, y: target from 0 to 1
    focal    loss = (1 - p)**alpha * -log p                        at a peak, p = sigmoid(x)
                  = (1 - y)**beta * p**alpha * -log(1 - p)         elsewhere
    awing    loss = omega * log(1 + |(x - y) / epsilon|**(2.1 - y))  below theta, then linear

Axes: prediction and target ``(N, K, *S)``: samples, maps (points or classes), any grid.
From: focal, Law and Deng, "CornerNet", ECCV 2018, arXiv:1808.01244, eq. 1, and Zhou et al.,
"Objects as Points", 2019, arXiv:1904.07850, eq. 1; awing, Wang et al., "Adaptive Wing Loss", ICCV
2019, arXiv:1904.07399, eq. 3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_tensor,
    as_weight,
    check_choice,
    check_floating,
    check_number,
    check_range,
)
from aptt.core.module import LossModule
from aptt.core.reduction import Count, Reduction, check_reduction, count_found, count_of, reduce
from aptt.core.shapes import check_shapes
from aptt.loss.heat.formulas import FORMULAS, OPTIONS

__all__ = ["HeatmapLoss", "heatmap_loss"]

Kind = Literal["mse", "focal", "awing"]


def heatmap_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    visibility: Numbers | None = None,
    weight: Numbers | None = None,
    positive: Numbers | None = None,
    kind: Kind = "mse",
    alpha: float = 2.0,
    beta: float = 4.0,
    normalize: Literal["elements", "positives"] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Loss of predicted heat maps: squared error, penalty-reduced focal, or adaptive wing.

        mse      (x - y)**2
        focal    -(1 - p)**alpha log p at peaks, -(1 - y)**beta p**alpha log(1 - p) elsewhere
        awing    14 log(1 + |x - y|**(2.1 - y)) below 0.5, then linear

    Args:
        prediction: ``(N, K, *S)``, any floating dtype: values for mse and awing, logits for focal.
        target: the same shape, of any real dtype, from 0 to 1 for focal and awing.
        visibility: ``(N, K)``, as COCO has it: a map with 0 (not labelled) is removed, any other
            number counts once. A point known to be absent has -1 here and a map of zeros.
        weight: shaped like the target, or ``(N, K)``, one for each map; multiplies and is counted,
            and 0 removes.
        positive: focal: bool, shaped like the target, where the peaks are. None: where the target
            is exactly 1, which no resized, blurred or sub-pixel map is.
        kind: ``"mse"``, ``"focal"`` or ``"awing"``.
        alpha: focal: how fast pixels fade that the model gets right, at least 0.
        beta: focal: how fast the penalty fades towards a peak, at least 0.
        normalize: what ``"mean"`` counts: elements, or peaks (at least 1, so that a batch without
            peaks is summed, as published). None: peaks for focal, elements otherwise.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, targets out of range (on CPU), an unknown option, a
            ``positive`` or ``normalize="positives"`` for a kind that has no peaks.

    The gradient goes to ``prediction``, and to targets and weights that ask for it. Focal: a
    confidently wrong pixel has a gradient of -1 on a peak and ``(1 - y)**beta`` elsewhere, however
    far its logit is off. The least focal loss, 0, is at 1 on peaks and 0 elsewhere, not at
    ``p = y``.

    Use when:
        Points or centres are found on a grid: focal where a map has few of them among much
        background, mse or awing for one smooth peak per map.

    Elsewhere:
        mmpose ``KeypointMSELoss``, ``AdaptiveWingLoss``, ``FocalHeatmapLoss``; mmdetection
        ``GaussianFocalLoss`` (beta is called gamma there); CenterNet ``FocalLoss``.

    Differs from:
        CenterNet: from logits, where clamped probabilities have no gradient beyond a logit of
            9.2 and are infinite in half precision.
        mmpose: a weight multiplies the loss; there it multiplies prediction and target inside the
            square or the logarithm. Hidden maps are not counted in the mean.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, -1.0, -3.0]]])
        >>> target = torch.tensor([[[1.0, 0.5, 0.0]]])
        >>> round(heatmap_loss(logits, target, kind="focal").item(), 5)
        0.00333
    """
    _check_options(kind, alpha, beta, normalize, reduction)
    check_floating(prediction=prediction)
    target = as_floats("target", target, prediction)
    check_shapes(prediction=(prediction, "N K *S"), target=(target, "N K *S"))
    if positive is not None:
        if kind != "focal":
            raise ValueError(f"positive: got a mask with kind={kind!r}, wanted kind='focal'")
        positive = as_tensor("positive", positive, prediction)
        check_shapes(target=(target, "N K *S"), positive=(positive, "N K *S"))
        if positive.dtype != torch.bool:
            raise TypeError(f"positive: got {positive.dtype}, wanted bool")
    w = _weights(prediction, target, visibility, weight)
    x, y = prediction.reshape(-1), target.reshape(-1)
    peaks = None if positive is None else positive.reshape(-1)
    w = None if w is None else w.reshape(-1)
    if kind != "mse":
        check_range(y, 0, 1, keep=None if w is None else w != 0)

    def count() -> Count:
        if kind != "focal" or normalize == "elements":
            return count_of(y, w)
        return count_found(y == 1 if peaks is None else peaks, w, reduction)

    sides = (y, peaks) if kind == "focal" else (y,)
    options: dict[str, Any] = {"alpha": alpha, "beta": beta} if kind == "focal" else OPTIONS[kind]
    loss = reduce(
        FORMULAS[kind],
        x,
        *sides,
        weight=w,
        count=count,
        reduction=reduction,
        term="heatmap",
        kind="values" if kind != "focal" or normalize == "elements" else "positives",
        **options,
    )
    return loss.reshape(target.shape) if reduction == "none" else loss


def _weights(
    prediction: Tensor, target: Tensor, visibility: Numbers | None, weight: Numbers | None
) -> Tensor | None:
    if weight is not None:
        weight = as_weight("weight", weight, prediction)
        if weight.ndim == 2 < target.ndim:  # of each map
            check_shapes(target=(target, "N K *S"), weight=(weight, "N K"))
            weight = weight.reshape(*weight.shape, *[1] * (target.ndim - 2)).expand(target.shape)
        check_shapes(target=(target, "N K *S"), weight=(weight, "N K *S"))
    if visibility is None:
        return weight
    visibility = as_tensor("visibility", visibility, target)
    check_shapes(target=(target, "N K *S"), visibility=(visibility, "N K"))
    maps = (*visibility.shape, *[1] * (target.ndim - 2))
    seen = (visibility != 0).reshape(maps).expand(target.shape)
    return seen if weight is None else torch.where(seen, weight, 0.0)


def _check_options(
    kind: str, alpha: float, beta: float, normalize: str | None, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_choice("kind", kind, tuple(FORMULAS))
    check_number("alpha", alpha)
    check_number("beta", beta)
    if normalize is not None:
        check_choice("normalize", normalize, ("elements", "positives"))
        if normalize == "positives" and kind != "focal":
            raise ValueError(f"normalize: got 'positives' with kind={kind!r}, wanted kind='focal'")


class HeatmapLoss(LossModule):
    """Module form of :func:`heatmap_loss`; same options, same defaults."""

    def __init__(
        self,
        kind: Kind = "mse",
        alpha: float = 2.0,
        beta: float = 4.0,
        normalize: Literal["elements", "positives"] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(kind, alpha, beta, normalize, reduction)
        super().__init__(
            kind=kind, alpha=alpha, beta=beta, normalize=normalize, reduction=reduction
        )

    def forward(
        self,
        prediction: Tensor,
        target: Numbers,
        *,
        visibility: Numbers | None = None,
        weight: Numbers | None = None,
        positive: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return heatmap_loss(
            prediction,
            target,
            visibility=visibility,
            weight=weight,
            positive=positive,
            **self.options(),
        )
