"""The heads of a network that learns one task after the other, held to each other."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from aptt.core.axes import indexed_axis, without_axis
from aptt.core.checks import Numbers, as_tensor, check_floating, check_tensors
from aptt.core.memory import brought
from aptt.core.precision import widen

__all__ = ["Heads", "Labelled", "classes_of", "labelled", "old_part", "paired", "wide_heads"]

Heads = Tensor | Mapping[str, Tensor]


class Labelled(NamedTuple):
    """A head that has targets, under the name of its term."""

    name: str
    logits: Tensor
    target: Tensor


def wide_heads(name: str, heads: Heads) -> Heads:
    """Half types in float32: there the gradients of both terms meet, to be rounded once."""
    if isinstance(heads, Tensor):
        return widen(heads)
    if not isinstance(heads, Mapping):
        raise TypeError(f"{name}: got {type(heads).__name__}, wanted a tensor or tensors by task")
    check_tensors(**{f"{name}[{task!r}]": head for task, head in heads.items()})
    return {task: widen(head) for task, head in heads.items()}


def paired(
    new: Heads,
    old: Heads | None,
    target: Numbers | Mapping[str, Numbers],
    task: str | None,
    old_classes: Sequence[int] | None,
) -> tuple[list[tuple[str, Tensor, Numbers]], dict[str, tuple[Tensor, Tensor]]]:
    """Each head that has targets, with them; and the new and old logits of each old term."""
    if old is None and old_classes is not None:
        raise ValueError("old_classes: got some without old_logits, wanted None")
    if isinstance(new, Tensor) and (old is None or isinstance(old, Tensor)):
        if task is not None:
            raise ValueError(f"task: got {task!r} with one head, wanted logits by task")
        if isinstance(target, Mapping):
            raise TypeError("target: got targets by task with one head, wanted logits by task")
        return [("new", new, target)], {} if old is None else {"old": (new, old)}
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
    pairs = {f"old_{name}": (new[name], old[name]) for name in old}
    if isinstance(target, Mapping):
        if task is not None:
            raise ValueError(f"task: got {task!r} with targets by task, wanted None")
        if not target or any(name not in new for name in target):
            raise ValueError(
                f"target: got tasks {list(target)}, wanted one or more of those of new_logits, "
                f"{list(new)}"
            )
        return [(f"new_{name}", new[name], target[name]) for name in target], pairs
    fresh = [name for name in new if name not in old]
    if task is None and len(fresh) != 1:
        raise ValueError(f"task: got None, wanted one of {fresh or list(new)}")
    chosen = fresh[0] if task is None else task
    if chosen not in new:
        raise ValueError(f"task: got {task!r}, wanted one of {list(new)}")
    return [("new", new[chosen], target)], pairs


def labelled(
    heads: Sequence[tuple[str, Tensor, Numbers]], class_dim: int | None
) -> tuple[list[Labelled], int]:
    """The heads with targets that are tensors, all of one shape, and the axis of their classes."""
    found: list[Labelled] = []
    axis = class_dim
    for name, logits, target in heads:
        check_floating(new_logits=logits)
        y = as_tensor("target", target, logits)
        axis = indexed_axis(logits, y, axis, names=("new_logits", "target"))
        if found and y.shape != found[0].target.shape:
            raise ValueError(
                f"target: got shape {tuple(y.shape)} for {name}, wanted that for {found[0].name}, "
                f"{tuple(found[0].target.shape)}; an image of another task has the target "
                "ignore_index"
            )
        found.append(Labelled(name, logits, y))
    assert axis is not None  # there is a head
    return found, axis


def classes_of(old_classes: Sequence[int]) -> list[int]:
    """Different class indices, as a list."""
    try:
        classes = [operator.index(c) for c in old_classes]
    except TypeError:
        raise TypeError(
            f"old_classes: got {old_classes!r}, wanted whole numbers, or None"
        ) from None
    if len(set(classes)) != len(classes) or min(classes, default=-1) < 0:
        raise ValueError(f"old_classes: got {classes}, wanted different classes, 0 or more")
    return classes


def old_part(
    new: Tensor,
    old: Tensor,
    axis: int,
    head: Tensor,
    old_classes: Sequence[int] | None,
    *,
    grown: bool,
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
    if was == 0 or was > now or (was < now and not grown):
        wanted = f"1 to {now}" if grown else f"{now}, as this head has now"
        raise ValueError(f"old_logits: got {was} classes, wanted {wanted}")
    if old_classes is None:
        return new.narrow(axis, 0, was)
    classes = classes_of(old_classes)
    if len(classes) != was or max(classes) >= now:
        raise ValueError(
            f"old_classes: got {classes}, wanted {was} different classes from 0 to "
            f"{now - 1}, one for each old logit"
        )
    return new.index_select(axis, brought(classes, new))
