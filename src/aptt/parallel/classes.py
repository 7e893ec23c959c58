"""Which of our losses has a form for classes that are spread over ranks, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Shard

from aptt.core.module import LossModule
from aptt.core.ordinary import placed
from aptt.parallel.distillation import (
    vocab_parallel_distillation_loss,
    vocab_parallel_linear_distillation_loss,
)
from aptt.parallel.linear import vocab_parallel_linear_cross_entropy
from aptt.parallel.vocabulary import vocab_parallel_cross_entropy

__all__ = ["TOKENS", "by_classes", "class_cut", "name_of"]

_SPREAD: dict[str, tuple[str, Callable[..., Any]]] = {
    "cross_entropy": ("logits", vocab_parallel_cross_entropy),
    "distillation_loss": ("student_logits", vocab_parallel_distillation_loss),
    "linear_cross_entropy": ("weight", vocab_parallel_linear_cross_entropy),
    "linear_distillation_loss": ("weight", vocab_parallel_linear_distillation_loss),
}
"""By the name of the function: what is spread by classes, and the form that takes it."""

_MODULES = {
    "CrossEntropyLoss": "cross_entropy",
    "DistillationLoss": "distillation_loss",
    "LinearCrossEntropyLoss": "linear_cross_entropy",
    "LinearDistillationLoss": "linear_distillation_loss",
    "MarginLoss": "margin_loss",
    "ContrastiveLoss": "contrastive_loss",
    "SigLIPLoss": "siglip_loss",
}

TOKENS = frozenset(_SPREAD)
"""Losses of tokens, which may lie along any axes but that of the classes."""

_DROPPED = {"class_dim": (None, -1), "detach_teacher": (True,), "drop_ignored": (True, False)}
"""Options that the forms lack, and what they may be."""


def name_of(loss: Any) -> str:
    """The name of one of our functions; that of another may be anything."""
    if not getattr(loss, "__module__", type(loss).__module__).startswith("aptt."):
        return ""
    if isinstance(loss, nn.Module):
        return _MODULES.get(type(loss).__name__, "")
    return str(getattr(loss, "__name__", ""))


def class_cut(loss: Any, given: Mapping[str, DTensor]) -> int | None:
    """The dimension of the mesh that has cut the classes; None: they are all here.

    Raises:
        TypeError: classes and rows cut by one dimension, by two, or along another axis than theirs.
    """
    what, _ = _SPREAD.get(name_of(loss), ("", None))
    if what not in given:
        return None
    t = given[what]
    axis = 0 if what == "weight" else t.ndim - 1
    cut = [
        dim for dim, p in enumerate(t.placements) if isinstance(p, Shard) and p.dim % t.ndim == axis
    ]
    if not cut:
        if what == "weight" and any(isinstance(p, Shard) for p in t.placements):
            raise TypeError(f"weight: got a DTensor placed as {placed(t)}, wanted Shard(0)")
        return None
    tokens = ("hidden", "teacher_hidden", "target", "hard_targets", "sample_weight")
    with_rows = {
        name: other
        for name, other in given.items()
        if name in tokens and isinstance(other.placements[cut[0]], Shard)
    }
    if len(cut) > 1 or with_rows:
        named = ", ".join(f"{name} {placed(other)}" for name, other in with_rows.items())
        raise TypeError(
            f"{what}: got a DTensor placed as {placed(t)}, its classes cut "
            + (f"by the dimension that cuts {named}" if with_rows else "twice")
            + "; wanted the same tokens, Replicate(), on all ranks that share the classes"
            + (", or aptt.parallel.unsharded(weight)" if what == "weight" else "")
        )
    return cut[0]


def by_classes(
    loss: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], group: dist.ProcessGroup
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The form for spread classes, and all arguments by name."""
    _, form = _SPREAD[name_of(loss)]
    function = loss.forward if isinstance(loss, LossModule) else loss
    named = inspect.signature(function).bind(*args, **kwargs).arguments
    if isinstance(loss, LossModule):
        named = {**loss.options(), **named}
    known = inspect.signature(form).parameters
    for name in [name for name in named if name not in known]:
        value = named.pop(name)
        if value is not None and value not in _DROPPED.get(name, ()):
            raise TypeError(f"{name}: got {value!r}, and the classes are spread over ranks")
    return partial(form, group=group), dict(named)
