"""Losses of the probability of the right class other than its logarithm alone.

    p                      = softmax(z)[y]
    poly1                  = -log p + epsilon (1 - p)
    generalized            = (1 - p**q) / q
    symmetric              = -alpha log p - beta log_zero (1 - p)

Axes: logits ``(N, C, ...)`` or ``(..., C)``; target the same without C.
From: poly1, Leng et al. 2022, "PolyLoss", ICLR 2022, arXiv:2204.12511; generalized, Zhang and
Sabuncu 2018, arXiv:1805.07836; symmetric, Wang et al. 2019, arXiv:1908.06112.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_tensor,
    as_weight,
    check_floating,
    check_index,
    check_number,
    check_positive,
    taken_classes,
)
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import align_classes, check_shapes
from aptt.core.softmax import Against, against, exp_of_gaps, fading, put_class_

__all__ = [
    "GeneralizedCrossEntropyLoss",
    "Poly1Loss",
    "SymmetricCrossEntropyLoss",
    "generalized_cross_entropy_loss",
    "poly1_loss",
    "symmetric_cross_entropy_loss",
]


def poly1_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    epsilon: float = 1.0,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Poly-1: cross-entropy with more, or less, of its first term.

        loss = -log p + epsilon (1 - p)

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        target: class indices, shaped like the logits without the class axis.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        epsilon: how much of ``1 - p`` is added, the leading term of the logarithm's series; at
            least -1.
        ignore_index: the class index that removes its position; None: nothing is ignored.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that do not fit, a single class, a class out of range (on CPU), an
            unknown option.
        TypeError: targets that are not class indices.

    The gradient goes to ``logits``, and to weights that ask for it.

    Use when:
        Cross-entropy does, and there is the budget to tune one number on top: up where classes are
        unbalanced and confidence should be higher, down to -1 where it should be lower.

    Elsewhere:
        PolyLoss's own, in TensorFlow.

    Differs from:
        PolyLoss's own: the same; ``1 - p`` does not cancel for p near 1.

    Example:
        >>> import torch
        >>> round(poly1_loss(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        2.1363
    """
    check_number("epsilon", epsilon, -1.0)
    options = {"log": 1.0, "linear": epsilon, "less": epsilon < 0}
    return _reduced(
        _MIXED, "poly1", logits, target, weight, ignore_index, class_dim, reduction, **options
    )


def generalized_cross_entropy_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    q: float = 0.7,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalised cross-entropy: between the logarithm and the error itself.

        loss = (1 - p**q) / q

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        target: class indices, shaped like the logits without the class axis.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        q: near 0 cross-entropy, at 1 the mean absolute error ``1 - p``, which forgives wrong
            labels. In (0, 1].
        ignore_index: the class index that removes its position; None: nothing is ignored.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types. At most ``1 / q``.

    Raises:
        ValueError: shapes that do not fit, a single class, a class out of range (on CPU), an
            unknown option.
        TypeError: targets that are not class indices.

    The gradient goes to ``logits``, and to weights that ask for it. By definition it
    fades where p is near 0, as p**q: a label that is wrong, perhaps.

    Use when:
        Some labels are wrong. From a random start over many classes the slope is small at first:
        start with cross-entropy, or with a small q.

    Elsewhere:
        GCE's own, Keras ``CategoricalGeneralizedCrossEntropy``.

    Differs from:
        Keras: its text has the robust end at q = 0; it is at q = 1.

    Example:
        >>> import torch
        >>> round(generalized_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        0.8872
    """
    check_number("q", q, 1e-3, 1.0)
    options = {"q": q}
    return _reduced(
        _POWER,
        "generalized_cross_entropy",
        logits,
        target,
        weight,
        ignore_index,
        class_dim,
        reduction,
        **options,
    )


def symmetric_cross_entropy_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Symmetric cross-entropy: target against answer, and answer against target.

        loss = -alpha log p - beta log_zero (1 - p)

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        target: class indices, shaped like the logits without the class axis.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        alpha: the factor of cross-entropy, above 0; 0.1 for CIFAR-10 in the paper, 6 for CIFAR-100.
        beta: the factor of the reverse one, at least 0; 1, and 0.1.
        log_zero: what the reverse one takes for the logarithm of a target of 0, below 0.
        ignore_index: the class index that removes its position; None: nothing is ignored.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that do not fit, a single class, a class out of range (on CPU), an
            unknown option.
        TypeError: targets that are not class indices.

    The gradient goes to ``logits``, and to weights that ask for it.

    Use when:
        Some labels are wrong, and the classes that learn slowly should not be given up.

    Elsewhere:
        SCE's own.

    Differs from:
        SCE's own: its code clamps targets to 1e-4, a ``log_zero`` of -9.21; the paper's is -4.

    Example:
        >>> import torch
        >>> round(symmetric_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        3.1386
    """
    _check_symmetric(alpha, beta, log_zero)
    options = {"log": alpha, "linear": -beta * log_zero, "less": False}
    return _reduced(
        _MIXED,
        "symmetric_cross_entropy",
        logits,
        target,
        weight,
        ignore_index,
        class_dim,
        reduction,
        **options,
    )


def _reduced(
    formula: Formula,
    term: str,
    logits: Tensor,
    target: Numbers,
    weight: Numbers | None,
    ignore_index: int | None,
    class_dim: int | None,
    reduction: Reduction,
    **options: Any,
) -> Tensor:
    check_reduction(reduction)
    check_index(ignore_index=ignore_index, class_dim=class_dim)
    check_floating(logits=logits)
    x, y, soft, shape = align_classes(logits, target, class_dim)
    if soft:
        raise TypeError(f"target: got {y.dtype}, wanted class indices")
    y, w = taken_classes(y, x.shape[1], ignore_index)
    if weight is not None:
        weight = as_weight("weight", weight, logits)
        check_shapes(target=(as_tensor("target", target, logits), "*N"), weight=(weight, "*N"))
        some = weight.reshape(y.shape)
        w = some if w is None else torch.where(w, some, 0)
    loss = reduce(
        formula,
        x,
        y,
        weight=w,
        count=lambda: count_of(y, w),
        reduction=reduction,
        term=term,
        **options,
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _stats(x: Tensor, y: Tensor, **_: float) -> Kept:
    return against(x, y)


def _mixed_result(
    x: Tensor, kept: Kept, y: Tensor, *, log: float, linear: float, less: bool
) -> Tensor:
    wrong = Against(*kept)
    if not less:
        return (log * wrong.nll + linear * fading(wrong)).squeeze(1)
    return ((log + linear) * wrong.nll - linear * _above(wrong)).squeeze(1)


def _mixed_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    log: float,
    linear: float,
    less: bool,
) -> tuple[None, Tensor]:
    # d (1 - p) = p d nll
    wrong = Against(*kept)
    share = (log + linear) - linear * wrong.miss
    if not less:
        share = log + linear * (1 + wrong.odds).reciprocal()
    return None, _along(x, y, kept, share * by_row(up))


def _above(wrong: Against) -> Tensor:
    """``nll - (1 - p)``, of which nothing cancels: the sum of ``(1 - p)**k / k`` from k = 2 on."""
    miss = fading(wrong)
    few = miss.clamp(max=_FEW)
    series = torch.full_like(few, 1 / _TERMS)
    for k in range(_TERMS - 1, 1, -1):
        series = series * few + 1 / k
    return torch.where(miss < _FEW, few.square() * series, wrong.nll - miss)


_FEW, _TERMS = 0.05, 13  # 0.05**12 is float64's last digit


def _power_result(x: Tensor, kept: Kept, y: Tensor, *, q: float) -> Tensor:
    cost = -q * Against(*kept).nll.squeeze(1)
    value = -torch.expm1(cost) / q
    if torch.is_grad_enabled():  # whose slope is expm1 + 1, without a digit where that is small
        again = (1 - cost.exp()) / q
        value = again + (value - again).detach()
    return value


def _power_step(
    x: Tensor, up: Tensor | float, kept: Kept, y: Tensor, *, q: float
) -> tuple[None, Tensor]:
    # d (1 - p**q) / q = p**q d nll
    return None, _along(x, y, kept, (-q * Against(*kept).nll).exp() * by_row(up))


def _along(x: Tensor, y: Tensor, kept: Kept, slope: Tensor) -> Tensor:
    """The gradient of the logits, given that of the nll."""
    wrong = Against(*kept)
    dz = exp_of_gaps(x - wrong.top).mul_(slope * wrong.share)
    return put_class_(dz, y, -slope * wrong.miss)


_MIXED = Formula(_mixed_result, _mixed_step, _stats, block=2**19)
_POWER = Formula(_power_result, _power_step, _stats, block=2**19)


def _check_symmetric(alpha: float, beta: float, log_zero: float) -> None:
    check_positive("alpha", alpha)
    check_number("beta", beta)
    try:
        if -torch.inf < log_zero < 0:
            return
    except TypeError:
        raise TypeError(f"log_zero: got {log_zero!r}, wanted a number below 0") from None
    raise ValueError(f"log_zero: got {log_zero!r}, wanted a number below 0")


class Poly1Loss(LossModule):
    """Module form of :func:`poly1_loss`; same options, same defaults."""

    def __init__(
        self,
        epsilon: float = 1.0,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_number("epsilon", epsilon, -1.0)
        check_reduction(reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            epsilon=epsilon,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return poly1_loss(logits, target, weight=weight, **self.options())


class GeneralizedCrossEntropyLoss(LossModule):
    """Module form of :func:`generalized_cross_entropy_loss`; same options, same defaults."""

    def __init__(
        self,
        q: float = 0.7,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_number("q", q, 1e-3, 1.0)
        check_reduction(reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            q=q,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return generalized_cross_entropy_loss(logits, target, weight=weight, **self.options())


class SymmetricCrossEntropyLoss(LossModule):
    """Module form of :func:`symmetric_cross_entropy_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 1.0,
        log_zero: float = -4.0,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_symmetric(alpha, beta, log_zero)
        check_reduction(reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            alpha=alpha,
            beta=beta,
            log_zero=log_zero,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return symmetric_cross_entropy_loss(logits, target, weight=weight, **self.options())
