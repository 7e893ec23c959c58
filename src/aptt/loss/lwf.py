"""Learning without forgetting: on a new task's images, the old heads keep saying what they said.

    loss  = cross_entropy(new head, target) + lambda_old * sum over old heads k of L_k
    L_k   = -sum over c of y[c] * log p[c]
    y     = softmax(old_logits / T)        p = softmax(new_logits / T)

``old_logits`` are what the network said before it began to learn the new task. The softmax of an
old head runs over its own classes alone, and there is no T**2: T = 2 and lambda_old = 1 as in the
paper. A lambda_old made for a loss with T**2 is to be multiplied by it.

Axes: logits ``(N, C, ...)`` or ``(..., C)``; targets the same without C; old logits with the
classes that were there before.
From: Li and Hoiem, "Learning without Forgetting", 2016, arXiv:1606.09282, eq. 1 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_flags,
    check_floating,
    check_index,
    check_number,
    check_positive,
    check_tensors,
    kept,
)
from aptt.core.formula import widen
from aptt.core.memory import brought
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, named
from aptt.core.shapes import check_sample_weight, indexed_axis, without_axis
from aptt.loss.classification import cross_entropy

__all__ = ["LwFLoss", "lwf_loss", "lwf_terms"]

Heads = Tensor | Mapping[str, Tensor]


def lwf_loss(
    new_logits: Heads,
    target: Numbers,
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
        target: class indices of the new task, shaped like its logits without the class axis.
        old_logits: what the network said of the same inputs before it began to learn the new task:
            logits of the classes it had then, or a mapping from each old task to its logits. None
            on the first task, when there was none before: the loss is the cross-entropy alone.
        sample_weight: shaped like the targets; multiplies and is counted, and 0 removes.
        temperature: T, above 0; softens both sides of the old heads' terms.
        lambda_old: weight of the old heads, at least 0.
        task: which head of a mapping the targets are for; None: the one without old logits.
        old_classes: which classes of a head that has grown the old logits are of, in their order;
            None: the first.
        detach_teacher: False: the gradient goes to the old logits too, where they ask for one. It
            changes neither the value nor the gradient of the new ones.
        ignore_index: the target that removes its position, from every term; None: none does.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``,
            which is called for ``"new"`` and for ``"old"``, or ``"old_TASK"`` for each old task.

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

    Elsewhere:
        Avalanche ``LwFPlugin`` and ``LearningWithoutForgetting``, mammoth ``lwf``.

    Differs from:
        Avalanche: the KL there lacks the old heads' entropy, a constant: the same gradient.
        mammoth: lambda_old is 0.5 there, and its powers of a softmax underflow to NaN.
        Losses with T**2 on the old term: their lambda_old times T**2 is ours.

    Example:
        >>> import torch
        >>> new, old = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0]])  # one class more
        >>> round(lwf_loss(new, torch.tensor([2]), old).item(), 4)  # 0.40761 + 0.66285
        1.0705
    """
    new, *old = lwf_terms(
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
    ).values()
    check_number("lambda_old", lambda_old)
    return new + lambda_old * sum(old[1:], old[0]) if old else new


def lwf_terms(
    new_logits: Heads,
    target: Numbers,
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
        ``{"new": ...}`` without old logits.

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
    old_heads = None if old_logits is None else _wide("old_logits", old_logits)
    head, pairs = _pairs(_wide("new_logits", new_logits), old_heads, task, old_classes)
    check_floating(new_logits=head)
    target = as_tensor("target", target, head)
    axis = indexed_axis(head, target, class_dim, names=("new_logits", "target"))
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, tuple(target.shape), new_logits=head)
    terms = {
        "new": cross_entropy(
            head,
            target,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            class_dim=axis,
            reduction=named(reduction, "new"),
        )
    }
    rows = sample_weight
    if ignore_index is not None:
        keep = kept(target, ignore_index)
        rows = keep if sample_weight is None else torch.where(keep, sample_weight, 0.0)
    elif rows is None:
        rows = torch.ones_like(target, dtype=torch.bool)
    for name, (new, old) in pairs.items():
        check_floating(new_logits=new, old_logits=old)
        old = old.detach() if detach_teacher else old
        part = _old_part(new, old, axis, head, old_classes)
        old = torch.where((rows != 0).unsqueeze(axis), old, 0.0)  # NaN there has no gradient
        terms[name] = cross_entropy(
            part / temperature,
            torch.softmax(old / temperature, axis),
            sample_weight=rows,
            class_dim=axis,
            reduction=named(reduction, name),
        )
    return terms


def _wide(name: str, heads: Heads) -> Heads:
    """Half types in float32: there the gradients of both terms meet, to be rounded once."""
    if isinstance(heads, Tensor):
        return widen(heads)
    if not isinstance(heads, Mapping):
        raise TypeError(f"{name}: got {type(heads).__name__}, wanted a tensor or tensors by task")
    check_tensors(**{f"{name}[{task!r}]": head for task, head in heads.items()})
    return {task: widen(head) for task, head in heads.items()}


def _pairs(
    new: Heads, old: Heads | None, task: str | None, old_classes: Sequence[int] | None
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """The head that the targets are for, and the new and old logits of each term."""
    if old is None and old_classes is not None:
        raise ValueError("old_classes: got some without old_logits, wanted None")
    if isinstance(new, Tensor) and (old is None or isinstance(old, Tensor)):
        if task is not None:
            raise ValueError(f"task: got {task!r} with one head, wanted logits by task")
        return new, {} if old is None else {"old": (new, old)}
    if isinstance(new, Tensor) or isinstance(old, Tensor):
        one, many = ("new", "old") if isinstance(new, Tensor) else ("old", "new")
        raise TypeError(
            f"{one}_logits: got a tensor with {many}_logits by task, wanted both as tensors, or "
            "both as mappings"
        )
    if old_classes is not None:
        raise ValueError("old_classes: got some with logits by task, wanted None")
    if old is None:
        old = {}
    elif not old or any(name not in new for name in old):
        raise ValueError(
            f"old_logits: got tasks {list(old)}, wanted one or more of those of new_logits, "
            f"{list(new)}; or None on the first task"
        )
    fresh = [name for name in new if name not in old]
    if task is None and len(fresh) != 1:
        raise ValueError(f"task: got None, wanted one of {fresh or list(new)}")
    chosen = fresh[0] if task is None else task
    if chosen not in new:
        raise ValueError(f"task: got {task!r}, wanted one of {list(new)}")
    return new[chosen], {f"old_{name}": (new[name], old[name]) for name in old}


def _old_part(
    new: Tensor, old: Tensor, axis: int, head: Tensor, old_classes: Sequence[int] | None
) -> Tensor:
    """The logits, now, of the classes that the old logits are of."""
    others = without_axis(head, axis)
    for name, logits in (("new_logits", new), ("old_logits", old)):
        if logits.ndim != head.ndim or without_axis(logits, axis) != others:
            raise ValueError(
                f"{name}: got {tuple(logits.shape)}, wanted as the head of the targets, "
                f"{tuple(head.shape)}, but for the classes on axis {axis}"
            )
    was, now = old.shape[axis], new.shape[axis]
    grown = new is head
    if was == 0 or was > now or (was < now and not grown):
        wanted = f"1 to {now}" if grown else f"{now}, as this head has now"
        raise ValueError(f"old_logits: got {was} classes, wanted {wanted}")
    if old_classes is None:
        return new.narrow(axis, 0, was)
    classes = [int(c) for c in old_classes]
    wrong = len(set(classes)) != len(classes) or len(classes) != was
    if wrong or min(classes) < 0 or max(classes) >= now:
        raise ValueError(
            f"old_classes: got {classes}, wanted {was} different classes from 0 to "
            f"{now - 1}, one for each old logit"
        )
    return new.index_select(axis, brought(classes, new))


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
        target: Numbers,
        old_logits: Heads | None,
        *,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``new_logits`` against the targets and the old logits."""
        return lwf_loss(
            new_logits, target, old_logits, sample_weight=sample_weight, **self.options()
        )
