"""The head of a language model with its loss: cross-entropy without the logits.

    z     = scale * (hidden @ weight.T + bias)
    loss  = cross_entropy(z, target)

The logits of N tokens over a vocabulary of V are the largest tensor of training, N * V numbers, and
their gradient is another. Here they are made and used up a chunk at a time, and the products with
the weight are taken meanwhile: the result is that of the whole, the memory that of one chunk.

Axes: hidden ``(..., D)``; weight ``(V, D)``; bias ``(V,)``; target ``(...)``, or ``(..., V)`` soft.
From: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025,
arXiv:2411.09009, eq. 1 to 3; the loss itself as in :mod:`aptt.loss.classification`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import threshold

from aptt.core.checks import (
    check_chunk,
    check_classes,
    check_floating,
    check_indices,
    check_positive,
    check_weight,
    taken_classes,
)
from aptt.core.engine import obstacle
from aptt.core.formula import Formula, Kept, widen
from aptt.core.linear import Head, HeadFormula, evaluate_linear, evaluate_projected
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction, normalize
from aptt.core.softmax import exp_of_gaps, of_class
from aptt.core.vocabulary import Form, cap, checked_form, uncap
from aptt.loss.classification import INDICES, SHARES, counted

__all__ = ["LinearCrossEntropyLoss", "TokenStats", "linear_cross_entropy", "linear_token_stats"]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    bias: Tensor | None = None,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_adjustment: Tensor | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy from hidden states and the weight of the head.

        loss = cross_entropy(scale * (hidden @ weight.T + bias), target)

    Args:
        hidden: ``(..., D)``, any floating dtype.
        weight: ``(V, D)``, the head's weight, tied to an embedding or not; or a callable that makes
            the logits ``(n, V)`` of hidden states ``(n, D)``, such as a head wrapped by LoRA.
        target: ``(...)`` class indices of any integer dtype, or ``(..., V)`` soft targets.
        bias: ``(V,)``; -inf masks a class.
        class_weight: ``(V,)``; multiplies and is counted.
        sample_weight: ``(...)``, one weight a token; multiplies and is counted, and 0 removes.
        ignore_index: the class index that removes its token.
        label_smoothing: the share of the target's mass spread evenly over the classes. In [0, 1].
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits, scaled before, to ``(-softcap, softcap)``.
        logit_adjustment: ``(V,)``, added to the logits in training.
        scale: multiplies the logits; a temperature divides.
        chunk: tokens in a chunk; None: so many that their logits take nearly a quarter of the
            memory of ``weight``, and at least 64.
        drop_ignored: leave tokens that are removed out of the products: their share of the time is
            saved for one wait for the device. While compiling they are set to 0 and multiplied.
        reduction: ``"mean"`` over the sum of the weights that took part, ``"sum"``, ``"none"``, or
            a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value a token. float32 for half
        types.

    Raises:
        ValueError: shapes that do not fit, a class out of range (on CPU), an unknown option.
        TypeError: a weight that is neither a tensor nor callable.

    The gradient goes to ``hidden``, ``weight``, ``bias`` and a callable's parameters, each only if
    it asks for it; summed in float32, rounded once (a callable's in its parameters' dtype, chunk
    by chunk: in bfloat16, larger chunks lose less). Soft targets, weights and adjustments that ask
    for one get it through checkpointed chunks. The logits exist whole inside ``torch.func`` alone.

    Use when:
        The vocabulary is large: from some 10,000 classes on, the memory of the logits decides the
        batch size. For small ones :func:`cross_entropy` is quicker.

    Elsewhere:
        torch 2.13 ``F.linear_cross_entropy``, Liger ``LigerFusedLinearCrossEntropyLoss``, Apple
        ``cut_cross_entropy``, torchtune ``LinearCrossEntropyLoss``.

    Differs from:
        torch: float32 loss and float32 sums over chunks, so the result does not depend on their
            number; smoothing, soft targets and any leading shape stay in chunks, where torch falls
            back to all the logits; nothing to average gives 0, not NaN.
        Liger: any upstream gradient is right, given twice too; a frozen hidden state leaves the
            weight its gradient; every device.
        torchtune: the memory is saved in the forward pass too; nothing ignored is multiplied.

    Example:
        >>> import torch
        >>> hidden, weight = torch.eye(3), 2 * torch.eye(3)
        >>> round(linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2])).item(), 4)
        0.2395
    """
    form = checked_form(label_smoothing, z_loss, softcap, reduction)
    tokens = _tokens(hidden, weight, bias, target, scale, chunk)
    shape, soft = tokens.shape, target.is_floating_point()
    y = target.reshape(len(tokens.states), *target.shape[len(shape) :])
    rows = None
    if not soft:
        y, rows = taken_classes(y, tokens.classes, ignore_index)
    elif ignore_index != -100:
        raise ValueError(f"ignore_index: got {ignore_index} with soft targets, which have none")
    if sample_weight is not None:
        if sample_weight.shape != shape:
            raise ValueError(
                f"sample_weight: got shape {tuple(sample_weight.shape)}, wanted that of the "
                f"tokens, {shape}"
            )
        sample_weight = sample_weight.reshape(-1).to(widen(hidden[:0]).dtype)
        rows = sample_weight if rows is None else torch.where(rows, sample_weight, 0.0)
    chosen, states, y, rows = _select(tokens.states, y, rows, drop=drop_ignored)
    classes = tokens.classes
    class_weight = _per_class("class_weight", class_weight, classes, states)
    logit_adjustment = _per_class("logit_adjustment", logit_adjustment, classes, states)
    value = _evaluate(
        _SHARES if soft else _INDICES,
        tokens._replace(states=states),
        y,
        gather="values" if reduction == "none" else "total",
        weight=rows,
        class_weight=class_weight,
        adjustment=logit_adjustment,
        form=form,
    )
    if reduction == "none":
        return _put_back(value, chosen, shape)
    count = counted(y, class_weight, rows, soft=soft, dtype=value.dtype)
    return normalize(value, count, reduction, term="cross_entropy")


_INDICES = HeadFormula("cross_entropy", INDICES, cross_entropy=True)
_SHARES = HeadFormula("cross_entropy of shares", SHARES)


class TokenStats(NamedTuple):
    """What reinforcement learning and evaluation ask of each token, shaped like the target."""

    log_prob: Tensor
    """The log-probability of the target."""
    lse: Tensor
    """The logarithm of the sum of the exponentials of the logits."""
    entropy: Tensor
    """The entropy of the prediction, in nats."""


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
) -> TokenStats:
    """Log-probability, log-sum-exp and entropy of each token, without the logits.

        log_prob = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]

    Args:
        hidden: ``(..., D)``, any floating dtype.
        weight: ``(V, D)``, or a callable, as in :func:`linear_cross_entropy`.
        target: ``(...)`` class indices of any integer dtype.
        bias: ``(V,)``; -inf masks a class.
        ignore_index: the class index whose tokens get 0 for each, and no gradient.
        softcap: bounds the logits, scaled before, to ``(-softcap, softcap)``.
        scale: multiplies the logits; a temperature divides.
        chunk: tokens in a chunk; None: so many that their logits take nearly a quarter of the
            memory of ``weight``, and at least 64.
        drop_ignored: leave ignored tokens out of the products.

    Returns:
        Three tensors of the target's shape, each differentiable; float32 for half types.

    Raises:
        ValueError: shapes that do not fit, a class out of range (on CPU).
        TypeError: targets that are no indices, a weight that is neither a tensor nor callable.

    The gradient goes where that of :func:`linear_cross_entropy` goes.

    Example:
        >>> import torch
        >>> stats = linear_token_stats(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3]))
        >>> [round(t.item(), 4) for t in stats]
        [-1.3863, 1.3863, 1.3863]
    """
    if softcap is not None:
        check_positive("softcap", softcap)
    tokens = _tokens(hidden, weight, bias, target, scale, chunk)
    check_indices(target=target)
    y = target.reshape(-1)
    y, keep = taken_classes(y, tokens.classes, ignore_index)
    chosen, states, y, rows = _select(tokens.states, y, keep, drop=drop_ignored)
    value = _evaluate(
        _STATS,
        tokens._replace(states=states),
        y,
        gather="values",
        weight=None if rows is None else rows.unsqueeze(1),
        softcap=softcap,
    )
    value = _put_back(value, chosen, (*tokens.shape, 3))
    return TokenStats(*value.unbind(-1))


def _stats(x: Tensor, y: Tensor, *, softcap: float | None) -> Kept:
    """Of each row: the largest logit, lse less it, the mean gap to it, and the target's logit."""
    z = cap(x, Form(softcap=softcap))
    top = z.detach().amax(1, keepdim=True)
    gap = z - top
    e = exp_of_gaps(gap)
    total = e.sum(1, keepdim=True)
    mean = (e * _open(gap)).sum(1, keepdim=True) / total
    return top, total.log(), mean, of_class(z, y)


def _result(x: Tensor, kept: Kept, y: Tensor, *, softcap: float | None) -> Tensor:
    top, level, mean, mine = kept
    return torch.cat(((mine - top) - level, top + level, level - mean), 1)


def _step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, *, softcap: float | None
) -> tuple[None, Tensor]:
    # d log_prob = onehot - p, d lse = p, d entropy = -p (log p + entropy), log p = gap - level
    form, (top, level, mean, _) = Form(softcap=softcap), kept
    of_log_prob, of_lse, of_entropy = up.split(1, 1)
    gap = cap(x, form) - top
    share = torch.addcmul(of_lse - of_log_prob + of_entropy * mean, _open(gap), -of_entropy)
    dz = share.mul_(exp_of_gaps(gap)).mul_((-level).exp())
    dz = dz.scatter_add_(1, y.unsqueeze(1), of_log_prob)
    return None, uncap(dz, x, form)


def _open(gap: Tensor) -> Tensor:
    """Gaps, and 0 for a class masked by -inf."""
    return threshold(gap, torch.finfo(gap.dtype).min, 0.0)


_STATS = HeadFormula("token statistics", Formula(_result, _step, _stats), columns=3)


class LinearCrossEntropyLoss(LossModule):
    """Module form of :func:`linear_cross_entropy`; same options, same defaults.

    It holds no head: hidden states and the head's weight come with each call, so that a weight tied
    to an embedding stays one parameter.
    """

    def __init__(
        self,
        class_weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_adjustment: Tensor | Sequence[float] | None = None,
        scale: float = 1.0,
        chunk: int | None = None,
        drop_ignored: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        checked_form(label_smoothing, z_loss, softcap, reduction)
        check_cut(scale, chunk)
        super().__init__(
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            logit_adjustment=per_class(logit_adjustment, "logit_adjustment", signed=True),
            scale=scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor | Callable[[Tensor], Tensor],
        target: Tensor,
        *,
        bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of ``hidden`` under the head's ``weight`` against ``target``."""
        return linear_cross_entropy(
            hidden, weight, target, bias=bias, sample_weight=sample_weight, **self.options()
        )


# ------------------------------------------------------------------------------------- the tokens


class _Tokens(NamedTuple):
    states: Tensor  # (N, D)
    weight: Tensor | Callable[[Tensor], Tensor]
    bias: Tensor | None
    scale: float
    chunk: int | None
    shape: tuple[int, ...]

    @property
    def classes(self) -> int | None:
        return len(self.weight) if isinstance(self.weight, Tensor) else None


def _tokens(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    bias: Tensor | None,
    target: Tensor,
    scale: float,
    chunk: int | None,
) -> _Tokens:
    """The tokens one after the other, and every shape held to the others."""
    check_floating(hidden=hidden)
    check_cut(scale, chunk)
    if hidden.ndim == 0:
        raise ValueError("hidden: got a number, wanted hidden states, (..., D)")
    if not target.is_floating_point():
        check_indices(target=target)
    *lead, size = hidden.shape
    if isinstance(weight, Tensor):
        check_floating(weight=weight)
        if weight.ndim != 2 or weight.shape[1] != size:
            raise ValueError(
                f"weight: got shape {tuple(weight.shape)} for hidden states {tuple(hidden.shape)}, "
                f"wanted (V, {size}), one row a class"
            )
        if len(weight) == 0:
            raise ValueError(f"weight: got shape {tuple(weight.shape)}, wanted at least one class")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(
                f"bias: got shape {tuple(bias.shape)}, wanted ({len(weight)},), one number a class"
            )
    elif not callable(weight):
        raise TypeError(f"weight: got {type(weight).__name__}, wanted a tensor or a callable")
    elif bias is not None:
        raise ValueError("bias: got a tensor with a callable head, which adds its own")
    wanted = [tuple(lead)]
    if target.is_floating_point():
        soft = (*lead, len(weight)) if isinstance(weight, Tensor) else (*lead, target.shape[-1])
        wanted = [soft] if target.ndim == len(lead) + 1 else wanted
    if target.is_floating_point() and target.shape == tuple(lead):
        raise TypeError(
            f"target: got {target.dtype} of shape {tuple(target.shape)}, wanted class indices of "
            "an integer dtype, or soft targets with an axis of classes"
        )
    if tuple(target.shape) not in wanted:
        raise ValueError(
            f"target: got shape {tuple(target.shape)} for hidden states {tuple(hidden.shape)}, "
            f"wanted {wanted[0]}{_shift_hint(target, lead)}"
        )
    states = hidden.reshape(math.prod(lead), size)
    return _Tokens(states, weight, bias, scale, chunk, tuple(lead))


def _shift_hint(target: Tensor, lead: Sequence[int]) -> str:
    """One position more or less is the trace of a shift, done once too often or not at all."""
    if target.ndim == len(lead) > 0 and abs(target.shape[-1] - lead[-1]) == 1:
        return (
            "; the lengths differ by one: shift hidden states and targets together, "
            "hidden[:, :-1] against target[:, 1:], once"
        )
    return ""


def _select(
    states: Tensor, y: Tensor, rows: Tensor | None, *, drop: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
    """The tokens that count and where they were; or all, the others set to 0 with weight 0."""
    if rows is None:
        return None, states, y, None
    weights = None if rows.dtype == torch.bool else rows
    check_weight("sample_weight", rows)
    if drop and not torch.compiler.is_compiling() and obstacle(states) is None:
        chosen = rows.nonzero().squeeze(1)
        if len(chosen) == len(rows):
            return None, states, y, weights
        weights = None if weights is None else weights[chosen]
        return chosen, states.index_select(0, chosen), y[chosen], weights
    keep = (rows != 0).unsqueeze(1)
    y = torch.where(keep, y, 0.0) if y.is_floating_point() else y
    return None, torch.where(keep, states, 0.0), y, rows.to(widen(states[:0]).dtype)


def _put_back(value: Tensor, chosen: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """The values in their places, 0 for those that were left out."""
    if chosen is None:
        return value.reshape(shape)
    rows = math.prod(shape[: len(shape) - value.ndim + 1])
    return value.new_zeros(rows, *value.shape[1:]).index_copy(0, chosen, value).reshape(shape)


def _evaluate(formula: HeadFormula, tokens: _Tokens, y: Tensor, **options: Any) -> Tensor:
    how: dict[str, Any] = {"scale": tokens.scale, "chunk": tokens.chunk}
    if isinstance(tokens.weight, Tensor):
        head = Head(tokens.states, tokens.weight, tokens.bias)
        return evaluate_linear(formula, head, y, **how, **options)
    project = _checked(tokens.weight, y, **options)
    return evaluate_projected(formula, tokens.states, project, y, **how, **options)


def _checked(
    head: Callable[[Tensor], Tensor],
    y: Tensor,
    *,
    class_weight: Tensor | None = None,
    adjustment: Tensor | None = None,
    **_: Any,
) -> Callable[[Tensor], Tensor]:
    """A callable head whose logits are held to what else is known of the classes."""

    def project(hidden: Tensor) -> Tensor:
        z = head(hidden)
        if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(hidden):
            came = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"weight: the callable gave {came} for hidden states {tuple(hidden.shape)}, "
                f"wanted logits ({len(hidden)}, V)"
            )
        classes = z.shape[1]
        _per_class("class_weight", class_weight, classes, z)
        _per_class("logit_adjustment", adjustment, classes, z)
        if not y.is_floating_point():
            check_classes(y, classes, None)
        elif y.shape[1] != classes:
            raise ValueError(f"target: got {y.shape[1]} shares a token, wanted {classes}")
        return z

    return project


def _per_class(
    name: str, values: Tensor | None, classes: int | None, like: Tensor
) -> Tensor | None:
    if values is None:
        return None
    if values.ndim != 1 or (classes is not None and len(values) != classes):
        raise ValueError(
            f"{name}: got shape {tuple(values.shape)}, wanted ({classes or 'V'},), one a class"
        )
    if name == "class_weight":
        check_weight(name, values)
    return values.to(widen(like[:0]).dtype)


def check_cut(scale: float, chunk: int | None) -> None:
    check_positive("scale", scale)
    check_chunk(chunk)
