"""Cross-entropy of logits whose vocabulary is spread over ranks, as tensor parallelism leaves them.

Each rank measures its own classes, a handful of numbers a row (:mod:`aptt.core.vocabulary`); one
message gathers them, and each rank merges them to the same loss. The gradient of a rank's logits
needs no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from aptt.core.checks import check_floating, check_indices, check_tensors, taken_classes
from aptt.core.module import per_class
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, normalize
from aptt.core.vocabulary import (
    Form,
    Stats,
    cap,
    checked_form,
    finish,
    slope,
    uncap,
)
from aptt.parallel.ranks import Group, group_of
from aptt.parallel.spread import GroupModule, local, measured, merged, nothing, place

__all__ = ["VocabParallelCrossEntropyLoss", "replicated", "vocab_parallel_cross_entropy"]


def vocab_parallel_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    group: Group = None,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy over classes that are spread over ranks.

        nll  = logsumexp(z) - z[y]
        loss = (1 - e) * w[y] * nll + (e / C) * sum_c w[c] * (logsumexp(z) - z[c])
               + w[y] * z_loss * logsumexp(z)**2

    Args:
        logits: ``(..., C_r)``, the classes of this rank, those of rank 0 first; the shards may
            differ in size, and one may be empty. Or a ``DTensor`` sharded along its last axis.
        target: ``(...)``, class indices of the whole vocabulary, the same on every rank of
            ``group``.
        group: the ranks that the vocabulary is spread over: a process group, a device mesh of one
            dimension, or None for all. A ``DTensor`` knows its own.
        weight: ``(C,)``, one weight per class of the whole vocabulary; multiplies and is counted.
            It gets no gradient, and is refused if it asks for one.
        sample_weight: shaped like the target; multiplies and is counted, and 0 removes.
        ignore_index: the class index that removes its position.
        label_smoothing: the share of the target's mass spread evenly over all classes, those masked
            by -inf left out. In [0, 1].
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits to ``(-softcap, softcap)``.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``,
            such as :func:`global_mean` of the data-parallel ranks.

    Returns:
        The loss of the dense logits, the same on every rank of ``group``: float32 for half types.

    Raises:
        TypeError: a target that is no tensor of class indices, or a ``DTensor``; a weight that is
            no tensor.
        ValueError: shapes that do not fit, a class out of range (on CPU), a ``DTensor`` that is
            sharded otherwise, a weight that requires a gradient.

    The gradient goes to this rank's ``logits``. That of the hidden states is the sum over the ranks
    of what each rank's classes ask for: pass them through :func:`replicated` before the head. There
    is no second derivative, and ``torch.func`` does not go through.

    Use when:
        A language model's head is split over ranks by column parallelism.

    Elsewhere:
        torch ``loss_parallel``, Megatron-LM ``vocab_parallel_cross_entropy``, Transformer Engine
        ``parallel_cross_entropy``.

    Differs from:
        Megatron-LM: smoothing is that of the whole vocabulary, where its own is over each rank's
            shard and so differs from rank to rank; a gap above 104 stays finite.
        torch: ``loss_parallel`` refuses smoothing, and backward must run inside its context.
        Transformer Engine: the shards need not be equal.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])  # a world of one rank
        >>> round(vocab_parallel_cross_entropy(logits, torch.tensor([0, 1])).item(), 4)
        0.1672
    """
    form = checked_form(label_smoothing, z_loss, softcap, reduction)
    logits, group = local("logits", logits, -1, group, wanted="Shard(-1)")
    check_floating(logits=logits)
    if isinstance(target, DTensor):
        raise TypeError("target: got a DTensor, wanted a plain tensor, the same on every rank")
    sides = {"sample_weight": sample_weight, "weight": weight}
    given = {name: t for name, t in sides.items() if t is not None}
    check_tensors(logits=logits, target=target, **given)
    if logits.shape[:-1] != target.shape:
        raise ValueError(
            f"target: got shape {tuple(target.shape)} for logits {tuple(logits.shape)}, wanted "
            f"{tuple(logits.shape[:-1])}"
        )
    check_indices(target=target)
    start, classes, found = place(logits, -1, target.numel(), group_of(group))
    y = target.reshape(-1)
    y, kept = taken_classes(y, classes, ignore_index)
    keep = torch.ones_like(y, dtype=torch.bool) if kept is None else kept
    rows = keep.to(widen(logits[:0]).dtype)
    if sample_weight is not None:
        if sample_weight.shape != target.shape:
            raise ValueError(
                f"sample_weight: got shape {tuple(sample_weight.shape)}, wanted "
                f"{tuple(target.shape)}"
            )
        rows = torch.where(keep, sample_weight.reshape(-1).to(rows.dtype), 0.0)
    if weight is not None:
        if weight.requires_grad:
            raise ValueError("weight: requires a gradient, and none is computed for it")
        if weight.shape != (classes,):
            raise ValueError(
                f"weight: got shape {tuple(weight.shape)}, wanted ({classes},), one number for "
                "each class of the whole vocabulary"
            )
        weight = weight.to(rows.dtype)
    x = logits.reshape(len(y), logits.shape[-1])
    values: Tensor = _Spread.apply(x, y, rows != 0, weight, form, start, found)
    values = values * rows
    if reduction == "none":
        return values.reshape(target.shape)
    mass = rows if weight is None else torch.where(rows != 0, weight[y], 0.0) * rows
    return normalize(values.sum(), mass.sum(), reduction, term="cross_entropy")


def replicated(hidden: Tensor, group: Group = None) -> Tensor:
    """Hidden states that every rank holds, before each multiplies them with its own classes.

    They pass unchanged; their gradient is summed over the ranks.

    Args:
        hidden: the same on every rank.
        group: the ranks that the vocabulary is spread over, as for the loss.
    """
    found = group_of(group)
    if found is None:
        return hidden
    same: Tensor = _Replicated.apply(hidden, found)
    return same


class _Replicated(torch.autograd.Function):
    @staticmethod
    def forward(hidden: Tensor, group: dist.ProcessGroup) -> Tensor:
        return hidden.view_as(hidden)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        total = widen(up).clone()  # of half types, too, each rank's share is rounded once alone
        dist.all_reduce(total, group=ctx.group)
        return total.to(up.dtype), None


class _Spread(torch.autograd.Function):
    """The loss of each row, from the classes of this rank and what the others say of theirs."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        keep: Tensor,
        weight: Tensor | None,
        form: Form,
        start: int,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        found = []
        for rows in _blocks(x):
            z = cap(_clean(x, keep, rows), form)
            found.append(measured(z, y[rows], weight, form, start))
        if found:
            columns = zip(*found, strict=True)
            own = Stats._make(None if t[0] is None else torch.cat(t) for t in columns)
        else:
            own = nothing(widen(x), form)
        stats = merged(own, group)
        ctx.form, ctx.start = form, start
        ctx.save_for_backward(x, y, keep, weight, *(t for t in stats if t is not None))
        return finish(stats, None if weight is None else weight[y].unsqueeze(1), form=form)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        x, y, keep, weight, *kept = ctx.saved_tensors
        stats = [*kept, *[None] * (len(Stats._fields) - len(kept))]
        grad, form = torch.empty_like(x), ctx.form
        scale = None if weight is None else weight[y].unsqueeze(1)
        for rows in _blocks(x) if x.numel() else []:
            raw = _clean(x, keep, rows)
            dz = slope(
                cap(raw, form),
                y[rows],
                Stats._make(None if t is None else t[rows] for t in stats),
                up[rows].unsqueeze(1),
                None if scale is None else scale[rows],
                class_weight=weight,
                form=form,
                start=ctx.start,
            )
            grad[rows] = uncap(dz, raw, form).masked_fill_(~keep[rows].unsqueeze(1), 0.0)
        return grad, None, None, None, None, None, None


def _blocks(x: Tensor) -> list[slice]:
    """Rows that are computed with at once: on the CPU, as many as fit the cache."""
    step = len(x) if x.device.type != "cpu" else max(_BLOCK // max(x.shape[1], 1), 1)
    return [slice(start, start + step) for start in range(0, len(x), max(step, 1))]


_BLOCK = 2**19


def _clean(x: Tensor, keep: Tensor, rows: slice) -> Tensor:
    """A block in the dtype of the computation, with 0 where a row is not looked at."""
    return widen(x[rows]).masked_fill(~keep[rows].unsqueeze(1), 0.0)


class VocabParallelCrossEntropyLoss(GroupModule):
    """Module form of :func:`vocab_parallel_cross_entropy`; same options, same defaults."""

    def __init__(
        self,
        group: Group = None,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        softcap: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        checked_form(label_smoothing, z_loss, softcap, reduction)
        super().__init__(
            group=group,
            weight=per_class(weight),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            reduction=reduction,
        )

    def forward(
        self, logits: Tensor, target: Tensor, *, sample_weight: Tensor | None = None
    ) -> Tensor:
        """The loss of this rank's ``logits`` against ``target``."""
        return vocab_parallel_cross_entropy(
            logits, target, sample_weight=sample_weight, **self.options()
        )
