"""Focal loss: cross-entropy that fades on examples the model already gets right.

    m     = margin of the right answer: x or -x (sigmoid), log-odds of the class (softmax)
    loss  = alpha * (1 - p)**gamma * -log p      with p = sigmoid(m)
          = alpha * exp(-gamma * softplus(m)) * softplus(-m)

Axes: sigmoid, logits and target ``*N``; softmax, logits ``(N, C, ...)`` or ``(..., C)``, target
the same without C.
From: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002, eq. 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.core.shapes import (
    align_classes,
    check_binary,
    check_classes,
    check_floating,
    check_number,
    check_vector,
    class_axis,
    split_axis,
)
from aptt.core.softmax import margin, on_class_axis, shifted, softmax_gradient_
from aptt.core.streaming import Formula, Work, widen

__all__ = ["FocalLoss", "focal_loss"]


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float | Tensor | None = 0.25,
    gamma: float = 2.0,
    ignore_index: int | None = None,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss from logits."""
    _check_options(alpha, gamma, reduction)
    if target.shape == logits.shape:
        return _sigmoid_focal(logits, target, alpha, gamma, ignore_index, class_dim, reduction)
    x, y, _, shape = align_classes(logits, target, class_dim)
    ignored = -100 if ignore_index is None else ignore_index
    check_classes(y, x.shape[1], ignored)
    keep = y != ignored
    y = torch.where(keep, y, 0).long()
    loss = reduce(
        _SOFTMAX,
        x,
        y,
        weight=keep,
        count=keep.sum,
        reduction=reduction,
        term="focal",
        alpha=_per_class_alpha(alpha, x),
        gamma=gamma,
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _sigmoid_focal(
    logits: Tensor,
    target: Tensor,
    alpha: float | Tensor | None,
    gamma: float,
    ignore_index: int | None,
    class_dim: int | None,
    reduction: Reduction,
) -> Tensor:
    check_floating(logits=logits)
    x, y = logits.reshape(-1), target.reshape(-1)
    if isinstance(alpha, Tensor):
        axis = class_axis(logits, class_dim)
        x, y = split_axis(logits, axis), split_axis(target, axis)
        alpha = on_class_axis(_per_class_alpha(alpha, x), x)
    check_binary(y, ignore_index)
    keep = None
    if ignore_index is not None:
        keep = y != ignore_index
        y = torch.where(keep, y, 0)

    def count() -> Tensor:
        return torch.tensor(x.numel(), device=x.device) if keep is None else keep.sum()

    loss = reduce(
        _SIGMOID,
        x,
        y,
        weight=keep,
        count=count,
        reduction=reduction,
        term="focal",
        alpha=alpha,
        gamma=gamma,
    )
    return loss.reshape(logits.shape) if reduction == "none" else loss


def _focal(m: Tensor, gamma: float) -> Tensor:
    nll = F.softplus(-m, threshold=_LINEAR)
    return nll if gamma == 0 else torch.exp(-gamma * F.softplus(m, threshold=_LINEAR)) * nll


def _slope(miss: Tensor, nll: Tensor, gamma: float) -> Tensor:
    """Minus d loss / d margin, where ``miss`` is 1 - p."""
    return miss**gamma * (gamma * (1 - miss) * nll + miss)


def _sigmoid(x: Tensor, y: Tensor, *, alpha: Tensor | float | None, gamma: float) -> Tensor:
    y = y.to(x.dtype)
    loss = _focal((2 * y - 1) * x, gamma)
    return loss if alpha is None else loss * (alpha * y + (1 - alpha) * (1 - y))


def _missed(x: Tensor, y: Tensor, work: Work) -> tuple[Tensor, Tensor, Tensor]:
    """By hand: the target as a float, -log p, and 1 - p."""
    t = y if y.dtype == x.dtype else work("target", x).copy_(y)
    wrong = torch.addcmul(x, x, t, value=-2, out=work("miss", x))  # minus the margin
    nll = torch.ops.aten.softplus.out(wrong, 1, _LINEAR, out=work("nll", x))
    return t, nll, wrong.sigmoid_()


def _sigmoid_forward(
    x: Tensor, work: Work, y: Tensor, *, alpha: Tensor | float | None, gamma: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    t, loss, miss = _missed(x, y, work)
    loss.mul_(miss.pow_(gamma))
    if alpha is not None:
        loss.mul_(torch.mul(t, 2 * alpha - 1, out=miss).add_(1 - alpha))
    return loss, ()


def _sigmoid_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    y: Tensor,
    *,
    alpha: Tensor | float | None,
    gamma: float,
) -> None:
    t, nll, miss = _missed(x, y, work)
    nll.addcmul_(nll, miss, value=-1)
    slope = torch.add(miss, nll, alpha=gamma, out=nll).mul_(miss.pow_(gamma))
    # times minus the sign of the margin, 1 - 2 t, and alpha or 1 - alpha
    sign = torch.rsub(t, 1, alpha=2) if alpha is None else torch.sub(1 - alpha, t, out=miss)
    torch.mul(slope, sign.mul_(up), out=out)


def _softmax(x: Tensor, y: Tensor, *, alpha: Tensor | None, gamma: float) -> Tensor:
    loss = _focal(margin(x, y), gamma)
    return loss if alpha is None else loss * alpha[y]


def _softmax_forward(
    x: Tensor, work: Work, y: Tensor, *, alpha: Tensor | None, gamma: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    top, mine, rest = shifted(x, y, work)
    nll = (top - x.gather(1, y.unsqueeze(1))) + torch.log1p(rest + (mine - 1))
    loss = nll * (rest / (rest + mine)) ** gamma
    loss = loss.squeeze(1)
    return loss if alpha is None else loss * alpha[y], (top, mine, rest, nll)


def _softmax_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    y: Tensor,
    *,
    alpha: Tensor | None,
    gamma: float,
) -> None:
    top, mine, rest, nll = kept
    slope = _slope(rest / (rest + mine), nll, gamma) * (up.unsqueeze(1) if up.ndim else up)
    if alpha is not None:
        slope = slope * alpha[y].unsqueeze(1)
    share = slope / rest.clamp_min(torch.finfo(rest.dtype).tiny)
    softmax_gradient_(out, x, y, top, share, -slope)


_SIGMOID = Formula(_sigmoid, _sigmoid_forward, _sigmoid_backward)
_SOFTMAX = Formula(_softmax, _softmax_forward, _softmax_backward)
_LINEAR = 40  # softplus(x) is x from here on, to float64's last digit


def _per_class_alpha(alpha: float | Tensor | None, x: Tensor) -> Tensor | None:
    if alpha is None:
        return None
    dtype = widen(x[:0]).dtype
    alpha = torch.as_tensor(alpha, dtype=dtype, device=x.device)
    return check_vector("alpha", alpha.expand(x.shape[1]) if alpha.ndim == 0 else alpha, x.shape[1])


def _check_options(alpha: float | Tensor | None, gamma: float, reduction: Reduction) -> None:
    check_reduction(reduction)
    check_number("gamma", gamma)
    if alpha is not None and not isinstance(alpha, Tensor):
        check_number("alpha", alpha, 0.0, 1.0)


class FocalLoss(LossModule):
    """Module form of :func:`focal_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float | Tensor | None = 0.25,
        gamma: float = 2.0,
        ignore_index: int | None = None,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        if not isinstance(alpha, float | int):
            alpha = per_class(alpha)
        _check_options(alpha, gamma, reduction)
        super().__init__(
            alpha=alpha,
            gamma=gamma,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return focal_loss(logits, target, **self.options())
