"""Keypoint loss: object keypoint similarity, and two forms of it that pull from afar.

    e        = d**2 / (8 sigma**2 area)              d: distance of a point from its target
    OKS      = mean over visible points of exp(-e)   object keypoint similarity, from 0 to 1
    oks      loss = 1 - OKS
    log      loss = -log OKS
    cauchy   loss = mean over visible points of log(1 + e)

Axes: points ``(*N, K, D)``: instances, points of one, coordinates.
From: the COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval; as a loss, Maji et
al., "YOLO-Pose", CVPR workshops 2022, arXiv:2204.06806, eq. 4 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Literal, cast

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_tensor,
    as_weight,
    check_choice,
    check_floating,
    check_positive,
    check_weight,
)
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import check_shapes
from aptt.loss.keypoint.sigmas import SIGMAS, check_sigmas, sigmas_of
from aptt.loss.keypoint.similarity import OKS

__all__ = ["KeypointLoss", "keypoint_loss"]

Kind = Literal["oks", "log", "cauchy"]


def keypoint_loss(
    prediction: Tensor,
    target: Numbers,
    visibility: Numbers,
    area: Numbers,
    *,
    weight: Numbers | None = None,
    point_weight: Numbers | None = None,
    sigmas: str | float | Numbers = "coco",
    kind: Kind = "oks",
    area_scale: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Object keypoint similarity as a loss, one value per instance.

        e = |prediction - target|**2 / (8 sigma**2 area)
        oks: 1 - mean of exp(-e)    log: -log of that mean    cauchy: mean of log(1 + e)

    Args:
        prediction: ``(*N, K, D)``, any floating dtype, in any unit.
        target: the same shape, of any real dtype. What hidden points hold is of no account, NaN
            included.
        visibility: ``(*N, K)``: 2 visible, 1 labelled though occluded, both count alike; 0 not
            labelled, or less for known to be absent: neither has a place to learn.
        area: ``(*N)``, of each instance, above 0, in the square of the points' unit. COCO means
            the area of the segment; from a box, take ``area_scale=0.53``.
        weight: ``(*N)``, one per instance; multiplies and is counted, and 0 removes it.
        point_weight: ``(*N, K)``, such as the confidence of each annotation: the means over points
            are weighted by it, and 0 hides a point.
        sigmas: ``"coco"`` (17 points), ``"crowdpose"`` (14), one number for all, or ``(K,)``.
        kind: ``"oks"``, ``"log"`` or ``"cauchy"``.
        area_scale: multiplies the area; 0.53 is COCO's rule for a box without a segment.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss: a scalar, or with ``"none"`` one value per instance ``(*N)``: in [0, 1] for oks,
        at least 0 for the others, exactly 0 at the target. An instance without a visible point
        is 0 and not counted. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, a number of points that the sigmas are not for, areas
            that are not above 0 (on CPU), an unknown option.

    The gradient goes to ``prediction``, and to targets, areas, sigmas and weights that ask for it.
    Of ``"oks"`` it is that of the metric, and vanishes a few sigmas away: 1e-9 for an eye 30 px off
    on an object of 100 x 100. ``"cauchy"`` keeps ``2 / d`` however far each point is. ``"log"``
    grows with ``d``, but goes to the nearest points of an instance first.

    Use when:
        Regressing points of objects of any size: ``"cauchy"`` to train from scratch, ``"oks"`` to
        finish on the metric.

    Elsewhere:
        mmpose ``OKSLoss``, ultralytics ``KeypointLoss`` (both ``"oks"``).

    Differs from:
        ultralytics: area says which area; NaN in hidden points is harmless; there is a kind whose
            gradient does not vanish. Skeletons of its own have sigmas ``1 / K`` there.
        mmpose: the mean is over visible points, not all; all invisible is 0, not infinity.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 2, 2)
        >>> prediction = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
        >>> two, area = torch.tensor([[2, 2]]), torch.tensor([2500.0])
        >>> round(keypoint_loss(prediction, target, two, area, sigmas=0.05).item(), 4)
        0.1967
    """
    _check_options(sigmas, kind, area_scale, reduction)
    check_floating(prediction=prediction)
    target, area = as_floats("target", target, prediction), as_floats("area", area, prediction)
    visibility = as_tensor("visibility", visibility, prediction)
    check_shapes(prediction=(prediction, "*N K D"), target=(target, "*N K D"))
    check_shapes(prediction=(prediction, "*N K D"), visibility=(visibility, "*N K"))
    check_shapes(visibility=(visibility, "*N K"), area=(area, "*N"))
    points, places = prediction.shape[-2:]
    instances = area.numel()
    seen = (visibility > 0).reshape(instances, points)
    share = None
    if weight is not None:
        weight = as_weight("weight", weight, prediction)
        check_shapes(area=(area, "*N"), weight=(weight, "*N"))
        seen = seen & (weight != 0).reshape(instances, 1)
    if point_weight is not None:
        share = as_weight("point_weight", point_weight, prediction)
        check_shapes(visibility=(visibility, "*N K"), point_weight=(share, "*N K"))
        share = torch.where(seen, share.reshape(instances, points), 0)
        check_weight("point_weight", share)
        seen = share != 0
    w = counts = seen.any(1)
    if weight is not None:
        w = torch.where(counts, weight.reshape(-1), 0)
    _check_areas(area.reshape(-1), w)
    loss = reduce(
        OKS,
        prediction.reshape(instances, points * places),
        target.reshape(instances, points * places),
        seen,
        area.reshape(-1),
        share,
        weight=w,
        count=lambda: count_of(w, w),
        reduction=reduction,
        term="keypoint",
        sigmas=sigmas_of(sigmas, prediction),
        form=kind,
        area_scale=area_scale,
    )
    return loss.reshape(area.shape) if reduction == "none" else loss


def _check_areas(area: Tensor, weight: Tensor) -> None:
    if not is_readable(area):
        return
    wrong = (weight != 0) & ~(area > 0)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise ValueError(f"area: instance {at} has {area[at].item():g}, wanted above 0")


def _check_options(
    sigmas: str | float | Numbers,
    kind: str,
    area_scale: float,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    check_choice("kind", kind, ("oks", "log", "cauchy"))
    check_positive("area_scale", area_scale)
    if isinstance(sigmas, str):
        check_choice("sigmas", sigmas, tuple(SIGMAS), also="numbers, one per point")
    elif isinstance(sigmas, Real):
        check_positive("sigmas", float(sigmas))


class KeypointLoss(LossModule):
    """Module form of :func:`keypoint_loss`; same options, same defaults."""

    def __init__(
        self,
        sigmas: str | float | Numbers = "coco",
        kind: Kind = "oks",
        area_scale: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        if isinstance(sigmas, Real):
            sigmas = float(sigmas)
        elif not isinstance(sigmas, str | Tensor):
            check_sigmas(as_tensor("sigmas", sigmas))
            sigmas = tuple(map(float, cast("Sequence[float]", sigmas)))  # a buffer would cut digits
        elif isinstance(sigmas, Tensor):
            check_sigmas(sigmas)
        _check_options(sigmas, kind, area_scale, reduction)
        super().__init__(sigmas=sigmas, kind=kind, area_scale=area_scale, reduction=reduction)

    def forward(
        self,
        prediction: Tensor,
        target: Numbers,
        visibility: Numbers,
        area: Numbers,
        *,
        weight: Numbers | None = None,
        point_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of points ``prediction`` against ``target``."""
        return keypoint_loss(
            prediction,
            target,
            visibility,
            area,
            weight=weight,
            point_weight=point_weight,
            **self.options(),
        )
