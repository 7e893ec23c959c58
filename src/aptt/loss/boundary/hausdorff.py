"""Hausdorff distance loss: squared mistakes, each by its squared distance from the boundary.

    d_t, d_p     distance to the boundary of the target, and of the prediction, p > 1/2: a constant
    one-sided    mean over pixels and classes of (p - t)**2 d_t**a
    both         mean of (p - t)**2 (d_t**a + d_p**a)

with a = 2. The Hausdorff distance itself is the largest of these distances; a mean of their squares
is its smooth stand-in.

Axes: logits ``(N, C, *S)``; target ``(N, *S)`` class indices, or like the logits.
From: Karimi and Salcudean, "Reducing the Hausdorff Distance in Medical Image Segmentation with
Convolutional Neural Networks", IEEE TMI 2019, arXiv:1904.10030, section II.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import IgnoreIndex, check_flags, check_positive, ignored
from aptt.core.masks import Mode, check_class_weight
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.loss.boundary.misses import Masks, Spacing, boundary_of, check_maps, masks, missed

__all__ = ["HausdorffLoss", "hausdorff_loss"]


def hausdorff_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    distance_map: Tensor | None = None,
    spacing: Spacing | None = None,
    one_sided: bool = True,
    distance_power: float = 2.0,
    cap: float | None = None,
    mode: Mode = "multiclass",
    class_weight: Tensor | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    reduction: Reduction = "mean",
) -> Tensor:
    """Hausdorff distance loss from logits, by distance transforms.

        loss = mean of (p - t)**2 d_t**distance_power                          one-sided
             = mean of (p - t)**2 (d_t**distance_power + d_p**distance_power)        both

    Args:
        logits: ``(N, C, *S)``, an image of any number of axes; binary also ``(N, *S)``. Any
            floating dtype.
        target: multiclass: class indices ``(N, *S)``, or one-hot ``(N, C, *S)`` of an integer
            dtype; multilabel: 0 and 1, like the logits; binary: like the logits, with or without
            their single channel.
        weight: ``(N, *S)``, one weight per pixel; multiplies and is counted, and 0 removes it.
            Multilabel: also ``(N, C, *S)``, for each class; 1 for an axis along which it is the
            same.
        distance_map: d_t, of the shape of the logits, from :func:`signed_distance` with
            ``rim="centre"`` or elsewhere; its sign does not matter. None: computed here.
        spacing: the size of a pixel: one length, ``(D,)`` for the axes of an image, or ``(N, D)``
            where samples differ. None: 1.
        one_sided: whether only distances to the target's boundary weigh. Those to the prediction's
            change at every step, and cannot be computed ahead.
        distance_power: of the distances.
        cap: the largest distance, in the units of ``spacing``: far mistakes would rule the mean.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one weight per class; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax takes part.
        absent: what a class costs in a sample that has none of it, or nothing else, and so no
            boundary: ``"skip"``, it is not counted; ``"zero"``, nothing, and it is counted;
            ``"penalize"``, the mean of ``(p - t)**2``.
        reduction: over pixels and classes: ``"mean"`` by weight, ``"sum"``, ``"none"`` for the
            shape of the logits, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of ``spacing`` to the ``distance_power``; 0 for a perfect
        prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to weights and maps that ask for it; what is
    measured here is a constant.
    Removed pixels belong to no side. It is a total: micro-batches and ranks add up to the whole
    batch. A prediction that is nowhere, or everywhere, above 1/2 has no boundary, and adds nothing.

    Use when:
        The largest distance of two surfaces is the metric, and Dice has found the object. Values
        are squares of distances, thousands in an image of 512 x 512: mind the weight beside Dice,
        set ``cap``, and look at :func:`boundary_loss` first, which is linear in both.

    Elsewhere:
        MONAI ``HausdorffDTLoss``; the authors' and PatRyg99's ``HausdorffDTLoss``, which have
        both sides.

    Differs from:
        MONAI, PatRyg99: ``one_sided=False`` is theirs; where the target is empty their loss is 0,
            whatever is predicted (``absent`` says here), and ignored pixels are background.
        MONAI 1.6: of an integer target its distances are cut to whole pixels.
        kornia ``HausdorffERLoss``: erosions of the mistakes, not distances.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 5)
        >>> round(hausdorff_loss(logits, torch.tensor([[0, 1, 1, 1, 0]]), mode="binary").item(), 4)
        0.4
    """
    check_positive("distance_power", distance_power)
    check_flags(one_sided=one_sided)
    check_maps(mode, background, absent, reduction, cap, spacing, distance_map)
    m = masks(logits, target, mode, weight, ignore_index)
    far = m.given(distance_map, cap) if distance_map is not None else None
    far = m.field(spacing, "centre", cap) if far is None else far
    cost, there = far**distance_power, boundary_of(far)  # a power of a small distance may be 0
    if not one_sided:
        field = m.measured(_predicted(m), None, spacing, "centre", cap)
        cost = cost + torch.where(there.unsqueeze(-1), field**distance_power, 0.0)
    return missed(
        m,
        cost,
        there,
        class_weight,
        background=background,
        absent=absent,
        reduction=reduction,
        square=True,
        term="hausdorff",
    )


def _predicted(m: Masks) -> Tensor:
    """Where each class is likelier than not, ``(N, C, *S)``."""
    x = m.x.detach()
    likely = x.float().softmax(1) > 0.5 if m.softmax else x > 0
    return likely.view(*likely.shape[:2], *m.size)


class HausdorffLoss(LossModule):
    """Module form of :func:`hausdorff_loss`; same options, same defaults."""

    def __init__(
        self,
        one_sided: bool = True,
        distance_power: float = 2.0,
        cap: float | None = None,
        mode: Mode = "multiclass",
        class_weight: Tensor | Sequence[float] | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        reduction: Reduction = "mean",
    ) -> None:
        check_positive("distance_power", distance_power)
        check_flags(one_sided=one_sided)
        check_maps(mode, background, absent, reduction, cap, None, None)
        check_class_weight(by := per_class(class_weight, "class_weight"), mode)
        ignored(ignore_index, indexed=True)
        super().__init__(
            one_sided=one_sided,
            distance_power=distance_power,
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
        return hausdorff_loss(logits, target, **given, **self.options())
