"""Learning without forgetting: on a new task's images, the old heads keep saying what they said.

    loss  = cross_entropy(new head, target) + lambda_old * sum over old heads k of L_k
    L_k   = -sum over c of y[c] * log p[c]
    y     = softmax(old_logits / T)        p = softmax(new_logits / T)

``old_logits`` are what the network said before it began to learn the new task. The softmax of an
old head runs over its own classes alone, and there is no T**2: T = 2 and lambda_old = 1 as in the
paper. A lambda_old made for a loss with T**2 is to be multiplied by it.

Where a batch has labels of several tasks, each of them has a cross-entropy.

Axes: logits ``(N, C, ...)`` or ``(..., C)``; targets the same without C; old logits with the
classes that were there before.
From: Li and Hoiem, "Learning without Forgetting", 2016, arXiv:1606.09282, eq. 1 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    check_flags,
    check_floating,
    check_index,
    check_number,
    check_positive,
    kept,
)
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, named
from aptt.core.shapes import check_sample_weight
from aptt.loss.classification import cross_entropy
from aptt.loss.lwf.heads import Heads, classes_of, labelled, old_part, paired, wide_heads

__all__ = ["LwFLoss", "lwf_loss", "lwf_terms"]

Targets = Numbers | Mapping[str, Numbers]


def lwf_loss(
    new_logits: Heads,
    target: Targets,
    old_logits: Heads | None,
    *,
    sample_weight: Numbers | None = None,
    temperature: float = 2.0,
    lambda_old: float = 1.0,
    task: str | None = None,
    old_classes: Sequence[int] | None = None,
    detach_teacher: bool = True,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Learning without forgetting: the new task's cross-entropy, plus what the old heads said.

        loss = cross_entropy(new head, target) + lambda_old * sum over old heads of L_k
        L_k  = -sum over c of softmax(old_logits / T)[c] * log softmax(new_logits / T)[c]

    Args:
        new_logits: what the network says now: logits ``(N, C, ...)`` or ``(..., C)`` of one head
            that has grown, or a mapping from task to the logits of its head.
        target: class indices of the new task, shaped like its logits without the class axis. Where
            a batch has labels of several tasks, a mapping from each of these tasks to its targets,
            ignored where an image is of another.
        old_logits: what the network said of the same inputs before it began to learn the new task:
            logits of the classes it had then, or a mapping from each old task to its logits. None
            on the first task, when there was none before: the loss is the cross-entropy alone.
        sample_weight: shaped like the targets; multiplies and is counted, and 0 removes.
        temperature: T, above 0; softens both sides of the old heads' terms.
        lambda_old: weight of the old heads, at least 0.
        task: which head of a mapping the targets are for; None: the one without old logits, or
            those that a mapping of targets names.
        old_classes: which classes of a head that has grown the old logits are of, in their order;
            None: the first.
        detach_teacher: False: the gradient goes to the old logits too, where they ask for one. It
            changes neither the value nor the gradient of the new ones.
        ignore_index: the target that removes its position, from every term; of several tasks, from
            its own, and from the old heads' terms where all of them have it. None: none does.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``,
            which is called for ``"new"``, or ``"new_TASK"`` for each task that has targets of its
            own, and for ``"old"``, or ``"old_TASK"`` for each old task, each with its count.

    Returns:
        The loss: a scalar, or with ``"none"`` one value per position. float32 for half types. Its
        minimum is the entropy of what the old heads said, not 0.

    Raises:
        ValueError: an old head that is wider than the new one, a task without a head, no old head
            at all, targets out of range (on CPU).
        TypeError: targets that are not class indices; one head and a mapping mixed.

    The gradient goes to ``new_logits``, to weights that ask for it, and to old logits that are not
    detached.

    Use when:
        A network learns a new task and the data of the old ones is gone. The paper first trains the
        new head alone, with the rest frozen (warm-up), then everything.

        In a batch of several tasks each image has the cross-entropy of its own head, and what all
        old heads said of it is kept.

    Elsewhere:
        Avalanche ``LwFPlugin`` and ``LearningWithoutForgetting``, mammoth ``lwf``.

    Differs from:
        Avalanche: the KL there lacks the old heads' entropy, a constant: the same gradient. Images
            of several tasks are told apart there by task labels, and their cross-entropies are one
            mean over all; here each task's is a mean over its own images, whatever their share.
        mammoth: lambda_old is 0.5 there, and its powers of a softmax underflow to NaN.
        Losses with T**2 on the old term: their lambda_old times T**2 is ours.

    Example:
        >>> import torch
        >>> new, old = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0]])  # one class more
        >>> round(lwf_loss(new, torch.tensor([2]), old).item(), 4)  # 0.40761 + 0.66285
        1.0705
    """
    terms = lwf_terms(
        new_logits,
        target,
        old_logits,
        temperature=temperature,
        task=task,
        old_classes=old_classes,
        detach_teacher=detach_teacher,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        class_dim=class_dim,
        reduction=reduction,
    )
    check_number("lambda_old", lambda_old)
    new, old = ([t for name, t in terms.items() if name.startswith(k)] for k in ("new", "old"))
    loss = sum(new[1:], new[0])
    return loss + lambda_old * sum(old[1:], old[0]) if old else loss


def lwf_terms(
    new_logits: Heads,
    target: Targets,
    old_logits: Heads | None,
    *,
    sample_weight: Numbers | None = None,
    temperature: float = 2.0,
    task: str | None = None,
    old_classes: Sequence[int] | None = None,
    detach_teacher: bool = True,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`lwf_loss` by name, without ``lambda_old``.

        new = cross_entropy(new head, target)
        old = -sum over c of softmax(old_logits / T)[c] * log softmax(new_logits / T)[c]

    Args are those of :func:`lwf_loss`.

    Returns:
        ``{"new": ..., "old": ...}``, or ``{"new": ..., "old_TASK": ..., ...}`` for a mapping;
        ``{"new": ...}`` without old logits; ``"new_TASK"`` for each task of a mapping of targets.

    Use when:
        Each term is to be logged.

    Example:
        >>> import torch
        >>> new, old = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
        >>> terms = lwf_terms(new, torch.tensor([2]), old)
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'new': 0.4076, 'old': 0.6628}
    """
    _check_options(temperature, 0.0, detach_teacher, reduction)
    heads = wide_heads("new_logits", new_logits)
    before = None if old_logits is None else wide_heads("old_logits", old_logits)
    new, pairs = paired(heads, before, target, task, old_classes)
    found, axis = labelled(new, class_dim)
    first, positions = found[0].logits, tuple(found[0].target.shape)
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, positions, new_logits=first)
    terms = {
        name: cross_entropy(
            logits,
            y,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            class_dim=axis,
            reduction=named(reduction, name),
        )
        for name, logits, y in found
    }
    if ignore_index is None:
        keep = torch.ones_like(found[0].target, dtype=torch.bool)
    else:
        keep = reduce(torch.logical_or, [kept(y, ignore_index) for _, _, y in found])
    rows = keep if sample_weight is None else torch.where(keep, sample_weight, 0.0)
    for name, (now, old) in pairs.items():
        check_floating(new_logits=now, old_logits=old)
        old = old.detach() if detach_teacher else old
        part = old_part(now, old, axis, first, old_classes, grown=now is first)
        old = torch.where((rows != 0).unsqueeze(axis), old, 0.0)  # NaN there has no gradient
        terms[name] = cross_entropy(
            part / temperature,
            torch.softmax(old / temperature, axis),
            sample_weight=rows,
            class_dim=axis,
            reduction=named(reduction, name),
        )
    return terms


def _check_options(
    temperature: float, lambda_old: float, detach_teacher: bool, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_flags(detach_teacher=detach_teacher)
    check_number("lambda_old", lambda_old)
    check_positive("temperature", temperature)


class LwFLoss(LossModule):
    """Module form of :func:`lwf_loss`; same options, same defaults."""

    terms_function = staticmethod(lwf_terms)

    def __init__(
        self,
        temperature: float = 2.0,
        lambda_old: float = 1.0,
        task: str | None = None,
        old_classes: Sequence[int] | None = None,
        detach_teacher: bool = True,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(temperature, lambda_old, detach_teacher, reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        if task is not None and not isinstance(task, str):
            raise TypeError(f"task: got {task!r}, wanted the name of a head, or None")
        if old_classes is not None:
            old_classes = classes_of(old_classes)
        super().__init__(
            temperature=temperature,
            lambda_old=lambda_old,
            task=task,
            old_classes=old_classes,
            detach_teacher=detach_teacher,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(
        self,
        new_logits: Heads,
        target: Targets,
        old_logits: Heads | None,
        *,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``new_logits`` against the targets and the old logits."""
        return lwf_loss(
            new_logits, target, old_logits, sample_weight=sample_weight, **self.options()
        )
