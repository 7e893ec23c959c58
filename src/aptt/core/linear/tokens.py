"""The tokens in front of a head: held to each other's shapes, chosen, evaluated, put back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_chunk,
    check_classes,
    check_flags,
    check_floating,
    check_indices,
    check_positive,
    check_tensors,
    check_weights,
)
from aptt.core.engine import obstacle
from aptt.core.linear import Head, HeadFormula, evaluate_linear, evaluate_projected
from aptt.core.ordinary import is_spread, placed
from aptt.core.precision import widen

__all__ = [
    "Tokens",
    "check_cut",
    "check_per_class",
    "check_unsharded",
    "evaluate",
    "put_back",
    "select",
    "tokens_of",
]


class Tokens(NamedTuple):
    """Hidden states one after the other, and what makes their logits."""

    states: Tensor
    """``(N, D)``."""
    weight: Tensor | Callable[[Tensor], Tensor]
    bias: Tensor | None
    scale: float
    chunk: int | None
    shape: tuple[int, ...]
    """That of the tokens before."""

    @property
    def classes(self) -> int | None:
        """How many there are; None: only the callable head knows."""
        return len(self.weight) if isinstance(self.weight, Tensor) else None


def tokens_of(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    bias: Tensor | None,
    target: Tensor,
    scale: float,
    chunk: int | None,
    *,
    some_classes: bool = False,
) -> Tokens:
    """The tokens one after the other, and every shape held to the others.

    ``some_classes``: the weight is a part of the vocabulary, and may be empty.
    """
    head = {"weight": weight} if isinstance(weight, Tensor) else {}
    offset = {} if bias is None else {"bias": bias}
    check_unsharded(weight)
    check_tensors(hidden=hidden, target=target, **head, **offset)
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
        if len(weight) == 0 and not some_classes:
            raise ValueError(f"weight: got shape {tuple(weight.shape)}, wanted at least one class")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(
                f"bias: got shape {tuple(bias.shape)}, wanted ({len(weight)},), one number a class"
            )
    elif isinstance(weight, nn.Embedding | nn.EmbeddingBag):
        raise TypeError(
            f"weight: got {type(weight).__name__}, which looks tokens up and makes no logits; "
            "pass its weight, embedding.weight, for a tied head"
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
            f"wanted {wanted[0]}{_hint(target, lead)}"
        )
    states = hidden.reshape(math.prod(lead), size)
    return Tokens(states, weight, bias, scale, chunk, tuple(lead))


def check_unsharded(head: object, name: str = "weight") -> None:
    """Refuse a head whose parameters are somewhere else, and would be sent for chunk by chunk."""
    if isinstance(head, nn.Module) and any(hasattr(m, "unshard") for m in head.modules()):
        raise TypeError(
            f"{name}: got {type(head).__name__}, an FSDP unit, whose parameters would be gathered "
            "for each chunk, by ranks that may have more chunks than others; wanted "
            f"aptt.parallel.unsharded({name}), which gathers them once"
        )
    if isinstance(head, Tensor) and is_spread(head):
        raise TypeError(
            f"{name}: got a DTensor placed as {placed(head)}, wanted a plain tensor: "
            f"aptt.parallel.unsharded({name}) where FSDP has sharded it; "
            "aptt.parallel.sharded(loss) where hidden states and targets are DTensors too"
        )


def _hint(target: Tensor, lead: Sequence[int]) -> str:
    """What has led to such a shape before, if it shows."""
    *rows, last = target.shape or (0,)
    if target.ndim != len(lead) or not lead:
        return ""
    if rows == lead[:-1] and abs(last - lead[-1]) == 1:
        return (
            "; the lengths differ by one: shift hidden states and targets together, "
            "hidden[:, :-1] against target[:, 1:], once"
        )
    if sorted(target.shape) == sorted(lead):
        return "; these are the same axes in another order: transpose the target"
    return ""


def select(
    states: Tensor, y: Tensor, rows: Tensor | None, *, drop: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
    """The tokens that count and where they were; or all, the others set to 0 with weight 0."""
    check_flags(drop_ignored=drop)
    if rows is None:
        return None, states, y, None
    check_weights(sample_weight=rows)
    weights = None if rows.dtype == torch.bool else rows
    if drop and not torch.compiler.is_compiling() and obstacle(states) is None:
        chosen = rows.nonzero().squeeze(1)
        if len(chosen) == len(rows):
            return None, states, y, weights
        weights = None if weights is None else weights[chosen]
        return chosen, states.index_select(0, chosen), y[chosen], weights
    keep = (rows != 0).unsqueeze(1)
    y = torch.where(keep, y, 0.0) if y.is_floating_point() else y
    return None, torch.where(keep, states, 0.0), y, rows.to(widen(states[:0]).dtype)


def put_back(value: Tensor, chosen: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """The values in their places, 0 for those that were left out."""
    if chosen is None:
        return value.reshape(shape)
    rows = math.prod(shape[: len(shape) - value.ndim + 1])
    return value.new_zeros(rows, *value.shape[1:]).index_copy(0, chosen, value).reshape(shape)


def evaluate(formula: HeadFormula, tokens: Tokens, y: Tensor, **options: Any) -> Tensor:
    """A formula on the logits of the tokens, whatever makes them."""
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
        check_per_class("class_weight", class_weight, classes, z)
        check_per_class("logit_adjustment", adjustment, classes, z)
        if not y.is_floating_point():
            check_classes(y, classes, None)
        elif y.shape[1] != classes:
            raise ValueError(f"target: got {y.shape[1]} shares a token, wanted {classes}")
        return z

    return project


def check_per_class(
    name: str, given: Numbers | None, classes: int | None, like: Tensor
) -> Tensor | None:
    """One number a class, in the dtype of the computation."""
    if given is None:
        return None
    values = as_tensor(name, given, like)
    check_tensors(hidden=like, **{name: values})
    if values.ndim != 1 or (classes is not None and len(values) != classes):
        raise ValueError(
            f"{name}: got shape {tuple(values.shape)}, wanted ({classes or 'V'},), one a class"
        )
    if name == "class_weight":
        check_weights(class_weight=values)
    return values.to(widen(like[:0]).dtype)


def check_cut(scale: float, chunk: int | None) -> None:
    """Hold both to their ranges."""
    check_positive("scale", scale)
    check_chunk(chunk)
