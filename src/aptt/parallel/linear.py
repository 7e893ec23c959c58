"""The head of a language model with its loss, where each rank holds some of the head's classes.

No rank holds the logits, of its own classes neither, but for a chunk of tokens; and none the whole
head. For each chunk the ranks tell each other what its rows have to know of the vocabulary.

Axes: hidden ``(..., D)``; weight ``(V_r, D)``; bias ``(V_r,)``; target ``(...)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import check_indices, taken_classes
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.linear import Head, HeadFormula
from aptt.core.linear.by_tokens import ByTokens
from aptt.core.linear.products import dtype_of_products
from aptt.core.linear.run import Run
from aptt.core.linear.tokens import check_per_class, put_back, select, tokens_of
from aptt.core.linear.walk import walked
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, normalize
from aptt.core.shapes import check_sample_weight
from aptt.core.vocabulary import Form, Stats, cap, checked_form, finish, slope, uncap
from aptt.parallel.ranks import Group, group_of
from aptt.parallel.spread import Place, local, measured, merged, place
from aptt.parallel.vocabulary import replicated

__all__ = ["SpreadRun", "refuse_twice", "rows_of", "vocab_parallel_linear_cross_entropy"]


def vocab_parallel_linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    group: Group = None,
    bias: Tensor | None = None,
    class_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
    sum_hidden: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy from hidden states and this rank's part of the head, without the logits.

        loss = cross_entropy(scale * (hidden @ whole_weight.T + whole_bias), target)

    Args:
        hidden: ``(..., D)``, the same on every rank of ``group``.
        weight: ``(V_r, D)``, the classes of this rank, those of rank 0 first; the parts may differ
            in size, and one may be empty. Or a ``DTensor`` with ``Shard(0)``.
        target: ``(...)``, class indices of the whole vocabulary, the same on every rank.
        group: the ranks that the vocabulary is spread over: a process group, a device mesh of one
            dimension, or None for all. A ``DTensor`` knows its own.
        bias: ``(V_r,)``, of this rank's classes; -inf masks a class.
        class_weight: ``(V,)``, of the whole vocabulary; multiplies and is counted.
        sample_weight: ``(...)``, one weight a token; multiplies and is counted, and 0 removes.
        ignore_index: the class index that removes its token; None: none does.
        label_smoothing: the share of the target's mass spread evenly over the classes. In [0, 1].
        z_loss: the factor of ``logsumexp(z)**2``.
        softcap: bounds the logits, scaled before, to ``(-softcap, softcap)``.
        scale: multiplies the logits; a temperature divides.
        chunk: tokens in a chunk, the same on every rank; None: as many as D allows.
        drop_ignored: leave tokens that are removed out of the products.
        sum_hidden: the gradient of ``hidden`` is whole on every rank. False: each has its own
            classes' share, where what made ``hidden`` adds them up, as :func:`gather` does.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``,
            such as :func:`global_mean` of the data-parallel ranks.

    Returns:
        The loss of the dense logits, the same on every rank of ``group``: float32 for half types.

    Raises:
        TypeError: a target that is no tensor of class indices.
        ValueError: shapes that do not fit, a class out of range (on CPU), other targets on another
            rank.
        RuntimeError: a second derivative.

    The gradient goes to ``hidden``, ``weight`` and ``bias``. Each chunk sends one message, of 4
    numbers a token (7 with smoothing); backward sends the gradient of ``hidden``.

    Use when:
        The head is split over ranks by column parallelism, and its logits are too large.

    Elsewhere:
        Apple ``cut_cross_entropy`` with ``vocab_parallel_options``; NVIDIA NeMo
        ``LinearCrossEntropy`` with tensor parallelism.

    Differs from:
        Apple: smoothing and z-loss are there, on every device.

    Example:
        >>> import torch
        >>> hidden, weight = torch.eye(3), 2 * torch.eye(3)  # a world of one rank
        >>> target = torch.tensor([0, 1, 2])
        >>> round(vocab_parallel_linear_cross_entropy(hidden, weight, target).item(), 4)
        0.2395
    """
    form = checked_form(label_smoothing, z_loss, softcap, reduction)
    given = group
    weight, group = local("weight", weight, 0, given, wanted="Shard(0)")
    if bias is not None:
        bias, _ = local("bias", bias, 0, given, wanted="Shard(0)")
    check_indices(target=target)
    tokens = tokens_of(hidden, weight, bias, target, scale, chunk, some_classes=True)
    where = place(weight, 0, target.numel(), group_of(group))
    y, rows = rows_of(hidden, target, sample_weight, where, ignore_index)
    chosen, states, y, rows = select(tokens.states, y, rows, drop=drop_ignored)
    class_weight = check_per_class("class_weight", class_weight, where.classes, states)
    if class_weight is not None and class_weight.requires_grad:
        raise ValueError("class_weight: requires a gradient, and none is computed for it")
    value = SpreadRun.of(
        _CROSS_ENTROPY,
        Head(states, weight, bias),
        None,
        [y],
        rows,
        where,
        gather="values" if reduction == "none" else "total",
        scale=scale,
        chunk=chunk,
        sum_hidden=sum_hidden,
        form=form,
        class_weight=class_weight,
    )
    if reduction == "none":
        return put_back(value, chosen, tokens.shape)
    ones = widen(states[:0]).new_ones(len(y)) if class_weight is None else class_weight[y]
    count = (ones if rows is None else ones * rows).sum()
    return normalize(value, count, reduction, term="cross_entropy")


def rows_of(
    hidden: Tensor,
    target: Tensor,
    sample_weight: Tensor | None,
    where: Place,
    ignore_index: int | None,
    name: str = "target",
) -> tuple[Tensor, Tensor | None]:
    """The targets one after the other, and what each of them weighs; None: each counts as 1."""
    y, rows = taken_classes(target.reshape(-1), where.classes, ignore_index, name=name)
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, target.shape, hidden=hidden)
        sample_weight = sample_weight.reshape(-1).to(widen(hidden[:0]).dtype)
        rows = sample_weight if rows is None else torch.where(rows, sample_weight, 0.0)
    return y, rows


@dataclass(frozen=True)
class SpreadRun(Run):
    """A walk over this rank's classes, in which a chunk is measured at once, as on every rank."""

    def by_tokens(self, head: Head) -> ByTokens:
        """The cut by tokens, in chunks that do not depend on how many classes this rank has."""
        cut = super().by_tokens(head)
        return replace(cut, block=cut.chunk * max(len(head.weight), 1))

    @classmethod
    def of(
        cls,
        formula: HeadFormula,
        head: Head,
        teacher: Head | None,
        sides: list[Tensor | None],
        weight: Tensor | None,
        where: Place,
        *,
        gather: Any,
        scale: float,
        chunk: int | None,
        sum_hidden: bool,
        **options: Any,
    ) -> Tensor:
        """The values of ``formula`` on the logits of the whole vocabulary, or their sum."""
        if weight is not None and weight.requires_grad:
            raise ValueError("sample_weight: requires a gradient, and none is computed for it")
        if sum_hidden and where.group is not None:
            head = head._replace(hidden=replicated(head.hidden, where.group))
        if len(head.hidden) == 0:
            values = widen(torch.nn.functional.linear(*head)).sum(1)
            return values if gather == "values" else values.sum()
        options = {**options, "where": where}
        run = cls(formula, options, scale, chunk, gather, dtype_of_products(head))
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in head):
            return walked(run, head, teacher, weight, sides)
        return run.gathered(run.values(head, teacher, sides), weight)


def refuse_twice(x: Tensor) -> None:
    """Logits are measured over ranks by messages that autograd does not see."""
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "a vocabulary that is spread over ranks has no second derivative, and no vmap"
        )


def _stats(x: Tensor, y: Tensor, *, form: Form, class_weight: Tensor | None, where: Place) -> Kept:
    refuse_twice(x)
    own = measured(cap(x, form), y, class_weight, form, where.start)
    return tuple(t for t in merged(own, where.group) if t is not None)


def _whole(kept: Kept) -> Stats:
    return Stats._make([*kept, *[None] * (len(Stats._fields) - len(kept))])


def _result(
    x: Tensor, kept: Kept, y: Tensor, *, form: Form, class_weight: Tensor | None, where: Place
) -> Tensor:
    scale = None if class_weight is None else class_weight[y].unsqueeze(1)
    return finish(_whole(kept), scale, form=form)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    form: Form,
    class_weight: Tensor | None,
    where: Place,
) -> tuple[None, Tensor]:
    if x.shape[1] == 0:
        return None, x
    scale = None if class_weight is None else class_weight[y].unsqueeze(1)
    how: dict[str, Any] = {"class_weight": class_weight, "form": form, "start": where.start}
    dz = slope(cap(x, form), y, _whole(kept), by_row(up), scale, **how)
    return None, uncap(dz, x, form)


_CROSS_ENTROPY = HeadFormula("cross-entropy over ranks", Formula(_result, _step, _stats))
