"""Focal loss: cross-entropy that fades on examples the model already gets right.

    m     = margin of the right answer: x or -x (sigmoid), log-odds of the class (softmax)
    loss  = alpha * (1 - p)**gamma * -log p      with p = sigmoid(m)
          = alpha * exp(-gamma * softplus(m)) * softplus(-m)

Axes: sigmoid, logits and target ``*N``; softmax, logits ``(N, C, ...)`` or ``(..., C)``, target
the same without C.
From: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002, eq. 5.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    IgnoreIndex,
    Numbers,
    as_factor,
    as_tensor,
    as_weight,
    check_binary,
    check_choice,
    check_floating,
    check_index,
    check_number,
    ignored,
    kept,
    taken_classes,
)
from aptt.core.formula import Formula, Kept, by_row, scaled_
from aptt.core.logistic import add_product_, finite, held, power, sign, softplus, times
from aptt.core.module import LossModule
from aptt.core.reduction import Count, Reduction, check_reduction, count_found, count_of, reduce
from aptt.core.shapes import (
    align_classes,
    align_elements,
    check_shapes,
    check_vector,
    one_or_each,
)
from aptt.core.softmax import Against, against, exp_of_gaps, fading, on_class_axis, put_class_

__all__ = ["FocalLoss", "focal_loss"]

_FAR = 40.0  # an nll of which exp(-nll) is nothing beside 1, to float64's last digit


def focal_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    alpha: float | Numbers | Literal["auto"] | None = "auto",
    gamma: float = 2.0,
    ignore_index: IgnoreIndex = "auto",
    class_dim: int | None = None,
    normalize: Literal["elements", "positives"] = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss from logits: sigmoid or softmax, as the target's shape says.

        loss = -alpha * (1 - p)**gamma * log p      p: probability of the right answer

    Args:
        logits: any shape (sigmoid), or ``(N, C, ...)`` or ``(..., C)`` (softmax); floating.
        target: 0 or 1 in the logits' shape, of any real dtype: sigmoid, each element a question of
            its own. Class indices without the class axis: softmax, one class of several is right.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        alpha: sigmoid: the balance, in [0, 1]: positives weigh alpha, negatives ``1 - alpha``;
            softmax: the weight of the right class, at least 0. One number for all, ``(C,)`` of
            them, or None for 1 everywhere. ``"auto"`` is 0.25 in the sigmoid form, as published,
            and None in the softmax form, where one number would but scale the loss.
        gamma: how fast easy examples fade, at least 0; 0 is cross-entropy.
        ignore_index: the target value that removes its element; None: none does; ``"auto"``: -100
            among class indices, and else none.
        class_dim: the class axis, where the shapes leave it open.
        normalize: what ``"mean"`` counts: elements (or rows), or the positives of a sigmoid loss,
            as detectors do (at least 1, so that background alone is still penalised).
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that do not fit, a softmax over a single class, targets other than 0 and
            1 or out of range (soft labels want ``quality_focal_loss``) or weights out of theirs
            (both on CPU), an unknown option.

    The gradient goes to ``logits``, and to weights that ask for it. It is finite for any gamma.

    Use when:
        Background outnumbers the rest by orders of magnitude, as in dense detection. For a handful
        of rare classes, ``cross_entropy(logit_adjustment=...)`` is the better first try.

    Elsewhere:
        torchvision ``sigmoid_focal_loss``, kornia ``binary_focal_loss_with_logits`` and
        ``focal_loss``, MONAI and segmentation-models-pytorch ``FocalLoss``.

    Differs from:
        torchvision: the mean of nothing is 0, not NaN; finite gradients for gamma below 1; classes
            too; alpha=-1 there is None here. Its mean, like this one, counts elements.
        kornia: softmax alpha weighs the right class (there 1 - alpha for class 0); the mean counts
            rows, not rows times classes.
        segmentation-models-pytorch: "multiclass" there is C sigmoid losses; here it is a softmax.

    Example:
        >>> import torch
        >>> logits = torch.tensor([2.0, -1.0, 0.5])
        >>> round(focal_loss(logits, torch.tensor([1, 0, 0])).item(), 4)
        0.1002
    """
    _check_options(alpha, gamma, ignore_index, class_dim, normalize, reduction)
    check_floating(logits=logits)
    target = as_tensor("target", target, logits)
    if target.shape == logits.shape:
        formula, x, y, w, alpha = _elements(logits, target, alpha, weight, ignore_index, class_dim)
    else:
        formula, x, y, w, alpha = _rows(logits, target, alpha, weight, ignore_index, class_dim)
        if normalize == "positives":
            raise ValueError("normalize: got 'positives' with class indices, wanted 0/1 targets")

    def count() -> Count:
        if normalize == "positives":
            return count_found(y, w, reduction)
        return count_of(y, w)

    loss = reduce(
        formula,
        x,
        y,
        weight=w,
        count=count,
        reduction=reduction,
        term="focal",
        kind="values" if normalize == "elements" else "positives",
        alpha=alpha,
        gamma=gamma,
    )
    return loss.reshape(target.shape) if reduction == "none" else loss


def _elements(
    logits: Tensor,
    target: Tensor,
    alpha: float | Numbers | Literal["auto"] | None,
    weight: Numbers | None,
    ignore_index: IgnoreIndex,
    class_dim: int | None,
) -> tuple[Formula, Tensor, Tensor, Tensor | None, float | Tensor | None]:
    if isinstance(alpha, str):
        alpha = 0.25
    elif alpha is not None:
        alpha = one_or_each("alpha", alpha, logits, high=1.0)
    by_class = isinstance(alpha, Tensor) and alpha.ndim > 0
    x, y, w = align_elements(logits, target, weight, by_class=by_class, class_dim=class_dim)
    if isinstance(alpha, Tensor) and by_class:
        alpha = on_class_axis(check_vector("alpha", alpha, x, signed=True), x)
    removed = ignored(ignore_index, indexed=False)
    check_binary(y, removed)
    if removed is not None:
        keep = kept(y, removed)
        y = torch.where(keep, y, 0)
        w = keep if w is None else torch.where(keep, w, 0)
    return _SIGMOID, x, y, w, alpha


def _rows(
    logits: Tensor,
    target: Tensor,
    alpha: float | Numbers | Literal["auto"] | None,
    weight: Numbers | None,
    ignore_index: IgnoreIndex,
    class_dim: int | None,
) -> tuple[Formula, Tensor, Tensor, Tensor | None, float | Tensor | None]:
    x, y, _, _ = align_classes(logits, target, class_dim)
    y, keep = taken_classes(y, x.shape[1], ignored(ignore_index, indexed=True))
    w = keep
    if weight is not None:
        weight = as_weight("weight", weight, logits)
        check_shapes(target=(target, "*N"), weight=(weight, "*N"))
        w = weight.reshape(y.shape)
        w = w if keep is None else torch.where(keep, w, 0)
    if alpha is None or isinstance(alpha, str):
        return _SOFTMAX, x, y, w, None
    alpha = one_or_each("alpha", alpha, logits)
    if isinstance(alpha, Tensor) and alpha.ndim > 0:
        alpha = check_vector("alpha", alpha, x, signed=True)
    return _SOFTMAX, x, y, w, alpha


def _sigmoid_result(
    x: Tensor, kept: Kept, y: Tensor, *, alpha: Tensor | float | None, gamma: float
) -> Tensor:
    y = y.to(x.dtype)
    wrong = sign(y) * x
    loss = softplus(wrong) * power(torch.sigmoid(held(wrong)), gamma)
    return loss if alpha is None else times(alpha * y + (1 - alpha) * (1 - y), loss)


def _sigmoid_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    alpha: Tensor | float | None,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    # along the logit that is wrong, d nll = miss and d miss = miss (1 - miss), so
    # d (miss**gamma nll) = miss**gamma (miss + gamma (1 - miss) nll)
    y = y.to(x.dtype)
    turn = sign(y)
    wrong = turn * x
    nll, miss = softplus(wrong), torch.sigmoid(wrong)
    share = turn
    if isinstance(alpha, Tensor) or (alpha is not None and torch.compiler.is_compiling()):
        share = (1 - alpha) * (1 - y) - alpha * y
    elif alpha is not None:
        share = torch.sub((1 - y).mul_(1 - alpha), y, alpha=alpha)
    fade = share * power(miss, gamma)
    slope = add_product_(miss, 1 - miss, finite(nll), gamma).mul_(fade)
    none = isinstance(alpha, Tensor) or alpha in (0, 1)  # of the classes, one may weigh nothing
    v = times(fade, nll) if none else nll.mul_(fade)
    return v.abs_(), scaled_(slope, up)


def _of_class(alpha: Tensor | float, y: Tensor) -> Tensor | float:
    """The weight of each row's class."""
    return alpha[y] if isinstance(alpha, Tensor) and alpha.ndim else alpha


def _softmax_stats(x: Tensor, y: Tensor, *, alpha: Tensor | float | None, gamma: float) -> Kept:
    return against(x, y)


def _softmax_result(
    x: Tensor, kept: Kept, y: Tensor, *, alpha: Tensor | float | None, gamma: float
) -> Tensor:
    wrong = Against(*kept)
    loss = (wrong.nll * power(fading(wrong), gamma)).squeeze(1)
    if alpha is None:
        return loss
    share = _of_class(alpha, y)
    return times(share, loss) if isinstance(share, Tensor) else share * loss


def _softmax_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    alpha: Tensor | float | None,
    gamma: float,
) -> tuple[None, Tensor]:
    # as above, along minus the log-odds of the class, whose slope is exp(z[c] - top) / rest
    # at the other classes and -1 at its own
    wrong = Against(*kept)
    miss = wrong.miss
    nll = wrong.nll.clamp(max=_FAR)  # beyond, nothing is left of p
    slope = torch.addcmul(miss, (1 + wrong.odds).reciprocal().mul_(gamma), nll)
    slope = slope * power(miss, gamma) * by_row(up)
    if alpha is not None:
        slope = slope * by_row(_of_class(alpha, y))
    rest = wrong.rest.clamp(min=1)  # it is 1 or more, but for a row without other classes
    return None, put_class_(exp_of_gaps(x - wrong.top).mul_(slope / rest), y, -slope)


_SIGMOID = Formula(_sigmoid_result, _sigmoid_step, ahead=True, block=2**17)
_SOFTMAX = Formula(_softmax_result, _softmax_step, _softmax_stats, block=2**19)


def _check_options(
    alpha: object,
    gamma: float,
    ignore_index: IgnoreIndex,
    class_dim: int | None,
    normalize: str,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    ignored(ignore_index, indexed=True)
    check_index(class_dim=class_dim)
    if isinstance(alpha, str):
        check_choice("alpha", alpha, ("auto",), also="numbers of at least 0, or None")
    check_number("gamma", gamma)
    check_choice("normalize", normalize, ("elements", "positives"))


class FocalLoss(LossModule):
    """Module form of :func:`focal_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float | Numbers | Literal["auto"] | None = "auto",
        gamma: float = 2.0,
        ignore_index: IgnoreIndex = "auto",
        class_dim: int | None = None,
        normalize: Literal["elements", "positives"] = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(alpha, gamma, ignore_index, class_dim, normalize, reduction)
        if alpha is not None and not isinstance(alpha, str):
            alpha = as_factor("alpha", alpha)
        super().__init__(
            alpha=alpha,
            gamma=gamma,
            ignore_index=ignore_index,
            class_dim=class_dim,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return focal_loss(logits, target, weight=weight, **self.options())
