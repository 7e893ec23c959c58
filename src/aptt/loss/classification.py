"""Cross-entropy: the negative log-probability of the right class.

    nll   = -log softmax(z)[y] = logsumexp(z) - z[y]
    loss  = (1 - e) * w[y] * nll + (e / C) * sum_c w[c] * (logsumexp(z) - z[c])
            + w[y] * z_loss * logsumexp(z)**2
    z     = logits, or softcap * tanh(logits / softcap)

Axes: logits ``(N, C, ...)`` or ``(..., C)``; target the same without C, or of the same shape.
From: label smoothing e, Szegedy et al. 2016, arXiv:1512.00567, section 7; z-loss, Chowdhery et al.
2022 (PaLM), arXiv:2204.02311, section 5; softcap, Gemma Team 2024, arXiv:2408.00118, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.core.shapes import align_classes, check_classes, check_number, check_vector
from aptt.core.softmax import margin, on_class_axis, shifted, softmax_gradient_
from aptt.core.streaming import Formula, Work, widen

__all__ = ["CrossEntropyLoss", "cross_entropy"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy over classes, from logits."""
    form = _checked(label_smoothing, z_loss, softcap, reduction)
    x, y, soft, shape = align_classes(logits, target, class_dim)
    if weight is not None:
        check_vector("weight", weight, x.shape[1])
    class_weight = None if weight is None else widen(weight)
    keep = None
    if soft:
        if ignore_index != -100:
            raise ValueError(f"ignore_index: got {ignore_index} with soft targets, which have none")
    else:
        check_classes(y, x.shape[1], ignore_index)
        keep = y != ignore_index
        y = torch.where(keep, y, 0).long()

    def count() -> Tensor:
        if keep is None:
            per_class = widen(y).transpose(0, 1).flatten(1).sum(1)
            return per_class.sum() if class_weight is None else per_class @ class_weight
        return keep.sum() if class_weight is None else (class_weight[y] * keep).sum()

    loss = reduce(
        _SOFT if soft else _HARD,
        x,
        y,
        weight=keep,
        count=count,
        reduction=reduction,
        term="cross_entropy",
        class_weight=class_weight,
        form=form,
    )
    return loss.reshape(shape) if reduction == "none" else loss


class _Form(NamedTuple):
    smoothing: float
    z_loss: float
    softcap: float | None


def _hard(x: Tensor, y: Tensor, *, class_weight: Tensor | None, form: _Form) -> Tensor:
    z = _capped(x, form)
    scale = 1.0 if class_weight is None else class_weight[y]
    loss = (1 - form.smoothing) * scale * F.softplus(-margin(z, y))
    if form.smoothing or form.z_loss:
        loss = loss + _extras(z, *_log_sum(z), scale, class_weight, form)
    return loss


def _hard_forward(
    x: Tensor, work: Work, y: Tensor, *, class_weight: Tensor | None, form: _Form
) -> tuple[Tensor, tuple[Tensor, ...]]:
    z = _capped(x, form)
    top, mine, rest = shifted(z, y, work)
    log_sum = torch.log1p(rest + (mine - 1))  # of a sum that is at least 1
    scale = 1.0 if class_weight is None else class_weight[y]
    nll = (top - z.gather(1, y.unsqueeze(1))) + log_sum
    loss = (1 - form.smoothing) * scale * nll.squeeze(1)
    if form.smoothing or form.z_loss:
        loss += _extras(z, top, log_sum, scale, class_weight, form, masked=_has_masked(z))
    return loss, (top, mine, rest)


def _hard_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    y: Tensor,
    *,
    class_weight: Tensor | None,
    form: _Form,
) -> None:
    # d loss / d z[c] = a * p[c] - b * [c = y] - spread[c], with p[y] - 1 = -rest / total
    top, mine, rest = kept
    z, total = _capped(x, form), rest + mine
    up = up.unsqueeze(1) if up.ndim else up
    scale = up if class_weight is None else up * class_weight[y].unsqueeze(1)
    a = b = (1 - form.smoothing) * scale
    if form.z_loss:
        a = a + 2 * form.z_loss * scale * (top + total.log())
    if form.smoothing:
        spread = _spread(z, class_weight, form, masked=_has_masked(z))
        a = a + up * spread.sum(1, keepdim=True)
    softmax_gradient_(out, z, y, top, a / total, ((a - b) * mine - b * rest) / total)
    if form.smoothing:
        out.addcmul_(spread, up, value=-1)
    _uncap_(out, z, form)


def _soft(x: Tensor, t: Tensor, *, class_weight: Tensor | None, form: _Form) -> Tensor:
    z = _capped(x, form)
    top, log_sum = _log_sum(z)
    gap = (top - z) + log_sum
    gap = torch.where((z > -torch.inf) | (t != 0), gap, 0.0)  # a masked class that is not asked for
    if class_weight is not None:
        t = t * on_class_axis(class_weight, z)
    loss = (1 - form.smoothing) * (t * gap).sum(1)
    if form.smoothing or form.z_loss:
        loss = loss + _extras(z, top, log_sum, t.sum(1), class_weight, form)
    return loss


def _soft_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    t: Tensor,
    *,
    class_weight: Tensor | None,
    form: _Form,
) -> None:
    # d loss / d z[c] = a * p[c] - goal[c]
    z = _capped(x, form)
    up = up.unsqueeze(1) if up.ndim else up
    t = t * up if class_weight is None else t * up * on_class_axis(class_weight, z)
    goal = (1 - form.smoothing) * t
    if form.smoothing:
        goal += _spread(z, class_weight, form) * up
    a = goal.sum(1, keepdim=True)
    if form.z_loss:
        a += 2 * form.z_loss * t.sum(1, keepdim=True) * z.logsumexp(1, keepdim=True)
    torch.softmax(z, 1, out=out).mul_(a).sub_(goal)
    _uncap_(out, z, form)


_HARD = Formula(_hard, _hard_forward, _hard_backward)
_SOFT = Formula(_soft, backward=_soft_backward)


def _extras(
    z: Tensor,
    top: Tensor,
    log_sum: Tensor,
    scale: Tensor | float,
    class_weight: Tensor | None,
    form: _Form,
    *,
    masked: bool = True,
) -> Tensor:
    """What smoothing and the z-loss add to each row."""
    extra = torch.zeros_like(top).squeeze(1)
    if form.smoothing:
        gap = (top - z) + log_sum
        if masked:
            gap = torch.where(z > -torch.inf, gap, 0.0)
        extra = extra + (_spread(z, class_weight, form, masked=masked) * gap).sum(1)
    if form.z_loss:
        extra = extra + form.z_loss * scale * (top + log_sum).squeeze(1).square()
    return extra


def _spread(z: Tensor, class_weight: Tensor | None, form: _Form, *, masked: bool = True) -> Tensor:
    """The mass that smoothing gives to each class; none to those masked by -inf."""
    mass = torch.full_like(z[:1, ..., :1] if z.ndim == 3 else z[:1], form.smoothing / z.shape[1])
    if masked:
        open = (z > -torch.inf).to(z.dtype)
        mass = open * (form.smoothing / open.sum(1, keepdim=True).clamp_min(1))
    return mass if class_weight is None else mass * on_class_axis(class_weight, z)


def _has_masked(z: Tensor) -> bool:
    """Whether some class may be masked by -inf; on a GPU, asking would stop it."""
    return z.device.type != "cpu" or not bool(z.amin() > -torch.inf)


def _log_sum(z: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit, and what logsumexp adds to it."""
    top = z.detach().amax(1, keepdim=True)
    return top, (z - top).exp().sum(1, keepdim=True).log()


def _capped(x: Tensor, form: _Form) -> Tensor:
    return x if form.softcap is None else form.softcap * torch.tanh(x / form.softcap)


def _uncap_(out: Tensor, z: Tensor, form: _Form) -> None:
    if form.softcap is not None:
        out *= 1 - (z / form.softcap).square_()


def _checked(
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    reduction: Reduction,
) -> _Form:
    check_reduction(reduction)
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    check_number("z_loss", z_loss)
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap: got {softcap}, wanted a positive number or None")
    return _Form(label_smoothing, z_loss, softcap)


class CrossEntropyLoss(LossModule):
    """Module form of :func:`cross_entropy`; same options, same defaults."""

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        weight = per_class(weight)
        _checked(label_smoothing, z_loss, softcap, reduction)
        super().__init__(
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return cross_entropy(logits, target, **self.options())
