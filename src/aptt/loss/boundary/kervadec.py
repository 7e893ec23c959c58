"""Boundary loss: what is wrong, each pixel by its distance from the boundary.

    phi    distance to the boundary of the target: above 0 outside, below 0 inside
    loss   mean over pixels and classes of |phi| |p - t|

For hard targets that is ``sum phi (p - t)``: the published ``sum phi p`` plus a constant, with the
same gradient; never below 0, and 0 where the prediction is perfect.

Axes: logits ``(N, C, *S)``; target ``(N, *S)`` class indices, or like the logits.
From: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019,
arXiv:1812.07032, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from aptt.core.checks import IgnoreIndex, check_choice, ignored
from aptt.core.distance import Rim
from aptt.core.masks import Mode, check_class_weight
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.loss.boundary.misses import Spacing, boundary_of, check_maps, masks, missed

__all__ = ["BoundaryLoss", "boundary_loss"]


def boundary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    distance_map: Tensor | None = None,
    spacing: Spacing | None = None,
    rim: Rim = "zero",
    cap: float | None = None,
    mode: Mode = "multiclass",
    class_weight: Tensor | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    reduction: Reduction = "mean",
) -> Tensor:
    """Boundary loss from logits: mistakes weighed by their distance from the boundary.

        loss = mean of |phi| |p - t|

    Args:
        logits: ``(N, C, *S)``, an image of any number of axes; binary also ``(N, *S)``. Any
            floating dtype.
        target: multiclass: class indices ``(N, *S)``, or one-hot ``(N, C, *S)`` of an integer
            dtype; multilabel: 0 and 1, like the logits; binary: like the logits, with or without
            their single channel.
        weight: ``(N, *S)``, one weight per pixel; multiplies and is counted, and 0 removes it.
            Multilabel: also ``(N, C, *S)``, for each class; 1 for an axis along which it is the
            same.
        distance_map: phi, of the shape of the logits, from :func:`signed_distance` or elsewhere;
            its sign does not matter. None: computed here from the target, without a host sync.
        spacing: the size of a pixel: one length, ``(D,)`` for the axes of an image, or ``(N, D)``
            where samples differ. None: 1.
        rim: ``"zero"``: phi is 0 on the outermost pixels of a class, as the authors have it, and
            they are free; ``"centre"``: it is the distance to the nearest pixel of the other side,
            so that no pixel is free and the perfect prediction is the only minimum.
        cap: the largest distance, in the units of ``spacing``: a bound of the gradient.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one weight per class; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax takes part.
        absent: what a class costs in a sample that has none of it, or nothing else, and so no
            boundary: ``"skip"``, it is not counted; ``"zero"``, nothing, and it is counted;
            ``"penalize"``, phi is 1, its mean probability (or, where there is nothing else, what
            is missing from 1).
        reduction: over pixels and classes: ``"mean"`` by weight, ``"sum"``, ``"none"`` for the
            shape of the logits, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of ``spacing``; 0 for a perfect prediction. float32 for
        half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to weights and maps that ask for it. Removed
    pixels belong to no side: phi is the distance to the nearest *known* pixel of the other one. It
    is a total: micro-batches and ranks add up to the whole batch. phi has the size of a distance,
    some 100 in an image of 512 x 512, where Dice is of the order of 1.

    Use when:
        Regions are thin or few and Dice alone leaves stray islands far away, or the surface
        distance is the metric. Beside Dice or cross-entropy, never alone, with a weight that
        grows: ``aptt.compose.Ramp(0.01, 1.0, over=100)`` adds 0.01 an epoch, as the authors do.

    Elsewhere:
        The authors' ``SurfaceLoss``; MONAI ``BoundaryLoss``; SegLossOdyssey ``BDLoss``.

    Differs from:
        The authors, MONAI: higher by the mean of ``-phi`` over the mask, which no prediction can
            change: theirs may be negative. The gradient is the same, but that theirs is divided by
            all pixels where some are ignored.
        The authors: inside, their phi is 1 less than the distance to the other side; here that to
            the nearest outermost pixel, which is the same along an axis and up to 0.4 pixels more
            along a diagonal, and which is 0 on the rim at any ``spacing``.
        MONAI: no spacing, no map from outside, ignored pixels are background.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 5)
        >>> round(boundary_loss(logits, torch.tensor([[0, 1, 1, 1, 0]]), mode="binary").item(), 4)
        0.3
    """
    _check(mode, background, absent, reduction, rim, cap, spacing, distance_map)
    m = masks(logits, target, mode, weight, ignore_index)
    phi = m.field(spacing, rim, cap) if distance_map is None else m.given(distance_map, cap)
    return missed(
        m,
        phi,
        boundary_of(phi),
        class_weight,
        background=background,
        absent=absent,
        reduction=reduction,
        square=False,
        term="boundary",
    )


def _check(
    mode: str,
    background: bool,
    absent: str,
    reduction: Reduction,
    rim: str,
    cap: float | None,
    spacing: Spacing | None,
    distance_map: Tensor | None,
) -> None:
    check_choice("rim", rim, ("zero", "centre"))
    check_maps(mode, background, absent, reduction, cap, spacing, distance_map)


class BoundaryLoss(LossModule):
    """Module form of :func:`boundary_loss`; same options, same defaults."""

    def __init__(
        self,
        rim: Rim = "zero",
        cap: float | None = None,
        mode: Mode = "multiclass",
        class_weight: Tensor | Sequence[float] | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        reduction: Reduction = "mean",
    ) -> None:
        _check(mode, background, absent, reduction, rim, cap, None, None)
        check_class_weight(by := per_class(class_weight, "class_weight"), mode)
        ignored(ignore_index, indexed=True)
        super().__init__(
            rim=rim,
            cap=cap,
            mode=mode,
            class_weight=by,
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            reduction=reduction,
        )

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        distance_map: Tensor | None = None,
        spacing: Spacing | None = None,
    ) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        given: dict[str, Any] = {"weight": weight, "distance_map": distance_map, "spacing": spacing}
        return boundary_loss(logits, target, **given, **self.options())
