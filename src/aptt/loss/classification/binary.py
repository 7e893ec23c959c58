"""Binary cross-entropy: independent yes-or-no questions.

    bce   = -(pos_weight * t * log sigmoid(x) + (1 - t) * log sigmoid(-x))

Axes: logits of any shape; target the same.
From: Bishop 2006, "Pattern Recognition and Machine Learning", eq. 4.90.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.axes import align_elements
from aptt.core.checks import (
    Numbers,
    as_factor,
    check_floating,
    check_index,
    check_label,
    check_number,
    check_range,
    kept,
)
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import (
    answer,
    finite,
    infinite_,
    nll,
    sign,
    softplus,
    softplus_slope,
    times,
)
from aptt.core.module import LossModule
from aptt.core.precision import wide
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import check_vector, one_or_each
from aptt.core.softmax import on_class_axis

__all__ = ["BINARY", "BinaryCrossEntropyLoss", "binary_cross_entropy"]


def binary_cross_entropy(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    pos_weight: float | Numbers | None = None,
    ignore_index: float | None = None,
    label_smoothing: float = 0.0,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross-entropy of independent yes-or-no questions, from logits.

        loss = -(pos_weight * t * log sigmoid(x) + (1 - t) * log sigmoid(-x))

    Args:
        logits: any shape, any floating dtype.
        target: the same shape, in [0, 1]: bool, integer or floating.
        weight: the same shape; multiplies and is counted, and 0 removes the element.
        pos_weight: factor of the positive part, at least 0; only multiplies. One number for all,
            in a tensor or not, or ``(C,)`` along the class axis, the last one of a matrix.
        ignore_index: the target value that removes its element.
        label_smoothing: moves targets towards 1/2: ``t (1 - e) + e / 2``. In [0, 1].
        class_dim: the class axis that ``pos_weight`` runs along, where there are over two axes.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the logits. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, targets out of [0, 1] or weights that are negative or
            infinite (both on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        Labels do not exclude each other, or there is one: multilabel tagging, masks, matching.

    Elsewhere:
        torch ``F.binary_cross_entropy_with_logits``, ``nn.BCEWithLogitsLoss``; optax
        ``sigmoid_binary_cross_entropy``.

    Differs from:
        torch: ``weight`` is counted in the mean; integer and bool targets are taken; exact for
            confident answers in float32, where torch's form cancels.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 2.0, -2.0])
        >>> round(binary_cross_entropy(logits, torch.tensor([1, 1, 0])).item(), 4)
        0.3157
    """
    _check_binary_options(ignore_index, label_smoothing, class_dim, reduction)
    if pos_weight is not None:
        check_floating(logits=logits)
        pos_weight = one_or_each("pos_weight", pos_weight, logits)
        if isinstance(pos_weight, Tensor):
            pos_weight = pos_weight.to(wide(logits.dtype))
    classes = isinstance(pos_weight, Tensor) and pos_weight.ndim > 0
    x, t, w = align_elements(logits, target, weight, by_class=classes, class_dim=class_dim)
    if isinstance(pos_weight, Tensor) and classes:
        pos_weight = on_class_axis(check_vector("pos_weight", pos_weight, x, signed=True), x)
    if ignore_index is not None:
        keep = kept(t, ignore_index)
        t = torch.where(keep, t, 0)
        w = keep if w is None else torch.where(keep, w, 0)
    check_range(t, 0, 1, keep=None if w is None else w != 0)
    loss = reduce(
        BINARY,
        x,
        t,
        weight=w,
        count=lambda: count_of(t, w),
        reduction=reduction,
        term="binary_cross_entropy",
        pos_weight=pos_weight,
        smoothing=label_smoothing or None,
    )
    return loss.reshape(logits.shape) if reduction == "none" else loss


def _binary_result(
    x: Tensor, kept: Kept, t: Tensor, *, pos_weight: Tensor | float | None, smoothing: float | None
) -> Tensor:
    yes = _yes(t, x, smoothing)
    if pos_weight is not None:
        # of softplus(-x) = softplus(x) - x the smaller one is taken twice: then the slope along t
        # has no difference of the two
        yes, one, high = yes.to(x.dtype), x.new_ones(()), x > 0
        far = times(torch.where(high, 1 - yes, -pos_weight * yes), x)
        price = torch.lerp(one, pos_weight * one, yes)
        return far + price * softplus(torch.where(high, -x, x))
    if yes.is_floating_point():
        return nll(x, yes)
    return softplus(sign(yes.to(x.dtype)) * x)


def _binary_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    pos_weight: Tensor | float | None,
    smoothing: float | None,
) -> tuple[Tensor, Tensor]:
    yes = _yes(t, x, smoothing)
    if pos_weight is not None:
        # (1 - t) sigmoid(x) - pos_weight t sigmoid(-x): no difference of numbers near 1
        v = _binary_result(x, kept, t, pos_weight=pos_weight, smoothing=smoothing)
        yes = yes.to(x.dtype)
        no = (1 - yes) * torch.sigmoid(x)
        return v, scaled_(no.sub_(pos_weight * yes * torch.sigmoid(-x)), up)
    if yes.is_floating_point():
        said = answer(x, yes)
        return infinite_(said.nll), scaled_(said.error, up)
    turn = sign(yes.to(x.dtype))
    wrong = turn * x
    return softplus(wrong), scaled_(turn.mul_(torch.sigmoid(wrong)), up)


def _binary_step_in_one(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    pos_weight: Tensor | float | None,
    smoothing: float | None,
) -> tuple[Tensor, Tensor]:
    # by exponentials and logarithms as they come, which cost no memory traffic
    if pos_weight is not None:
        return _binary_step(x, up, kept, t, pos_weight=pos_weight, smoothing=smoothing)
    if smoothing is None and not t.is_floating_point():
        turn = x.new_ones(()).add(t, alpha=-2)
        wrong = turn * x
        return softplus(wrong), scaled_(softplus_slope(wrong, turn), up)
    v, dx = _between(finite(x), _yes(t, x, smoothing), up)
    return infinite_(v), dx


def _binary_step_of_few(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    pos_weight: Tensor | float | None,
    smoothing: float | None,
) -> tuple[Tensor, Tensor]:
    # the same; an infinite logit gives NaN
    if pos_weight is None and (smoothing is not None or t.is_floating_point()):
        return _between(x, _yes(t, x, smoothing), up)
    return _binary_step_in_one(x, up, kept, t, pos_weight=pos_weight, smoothing=smoothing)


def _between(x: Tensor, yes: Tensor, up: Tensor | float) -> tuple[Tensor, Tensor]:
    """What lies between a no and a yes: the loss of finite logits, and its gradient."""
    no = -x
    v = torch.lerp(softplus(x), softplus(no), yes)
    return v, scaled_(torch.lerp(x.sigmoid(), no.sigmoid_().neg_(), yes), up)


def _yes(t: Tensor, x: Tensor, smoothing: float | None) -> Tensor:
    """The share of yes in each answer; an answer that is an integer or a bool stays one."""
    return t if smoothing is None else t.to(x.dtype) * (1 - smoothing) + smoothing / 2


BINARY = Formula(
    _binary_result,
    _binary_step,
    ahead=True,
    block=2**17,
    in_one=Formula(_binary_result, _binary_step_in_one, ahead=True),
    few=Formula(_binary_result, _binary_step_of_few, ahead=True),
)


def _check_binary_options(
    ignore_index: float | None, label_smoothing: float, class_dim: int | None, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_label(ignore_index)
    check_index(class_dim=class_dim)
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)


class BinaryCrossEntropyLoss(LossModule):
    """Module form of :func:`binary_cross_entropy`; same options, same defaults."""

    def __init__(
        self,
        pos_weight: float | Numbers | None = None,
        ignore_index: float | None = None,
        label_smoothing: float = 0.0,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_binary_options(ignore_index, label_smoothing, class_dim, reduction)
        if pos_weight is not None:
            pos_weight = as_factor("pos_weight", pos_weight)
        super().__init__(
            pos_weight=pos_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return binary_cross_entropy(logits, target, weight=weight, **self.options())
