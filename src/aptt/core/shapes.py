"""Tensors of the shapes that a loss wants, by the names of their axes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_factor,
    as_tensor,
    as_weight,
    check_numbers,
    check_tensors,
    check_weight,
)

__all__ = [
    "check_pairs",
    "check_sample_weight",
    "check_shapes",
    "check_vector",
    "one_or_each",
    "shape_of",
]


def check_shapes(**tensors: tuple[Tensor, str]) -> None:
    """Hold named tensors to shapes such as ``"N C *S"``: equal names are equal sizes.

    One name may be starred, and stands for any number of axes; a number stands for itself.
    """
    check_tensors(**{name: tensor for name, (tensor, _) in tensors.items()})
    bound: dict[str, object] = {}
    fit: dict[str, torch.Size] = {}
    for tensor, wanted in tensors.values():
        if fit.get(wanted) == tensor.shape:  # as one that agrees
            continue
        if not _agrees(tensor.shape, wanted, bound):
            said = "; ".join(
                f"{key}: {shape_of(t)} should be ({', '.join(shape.split())})"
                for key, (t, shape) in tensors.items()
            )
            alike = len(tensors) > 1 and len({shape for _, shape in tensors.values()}) == 1
            raise ValueError(said + ("; all of one shape" if alike else ""))
        fit[wanted] = tensor.shape


def _agrees(shape: torch.Size, wanted: str, bound: dict[str, object]) -> bool:
    """Whether a shape is as wanted, given the sizes that are bound to names, to which it adds."""
    names = wanted.split()
    sizes: list[object] = [*shape]
    for i, name in enumerate(names):
        if name.startswith("*"):  # all axes that the other names leave
            end = len(shape) - (len(names) - i - 1)
            sizes[i:end] = [tuple(shape[i:end])]
    return len(names) == len(sizes) and all(
        bound.setdefault(name, int(name) if name.isdecimal() else size) == size
        for name, size in zip(names, sizes, strict=True)
    )


def check_vector(
    name: str, values: Numbers, x: Tensor, *, signed: bool = False, each: str = "class"
) -> Tensor:
    """One number per class of ``x`` ``(N, C, ...)``, in its dtype; weights, unless ``signed``.

    ``each`` is what its axis 1 holds, in an error.
    """
    vector = as_tensor(name, values, x)
    check_tensors(logits=x, **{name: vector})
    check_numbers(**{name: vector})
    if vector.shape != x.shape[1:2]:
        raise ValueError(
            f"{name}: got shape {shape_of(vector)}, wanted ({x.shape[1]},), one per {each}"
        )
    if not signed:
        check_weight(name, vector)
    return vector.to(torch.promote_types(x.dtype, torch.float32))


def one_or_each(
    name: str, value: float | Numbers, logits: Tensor, *, high: float = math.inf
) -> float | Tensor:
    """A weight for all as one number, in whatever shape it came; ``(C,)`` of them as they are."""
    factor = as_factor(name, value, logits, high=high)
    if not isinstance(factor, Tensor) or factor.ndim == 0:
        return factor
    if factor.numel() == 1:
        return factor.reshape(())
    if logits.ndim < 2:
        raise ValueError(
            f"{name}: got shape {shape_of(factor)} for logits {shape_of(logits)}, which have no "
            "class axis; wanted one number for all (weight= is for elements)"
        )
    return factor


def check_pairs(pred_boxes: Tensor, target_boxes: Tensor, numbers: tuple[int, ...]) -> int:
    """Hold boxes to one shape: row by row, never by broadcasting. How many numbers each has."""
    found = pred_boxes.shape[-1] if pred_boxes.ndim else 0
    if len(numbers) > 1 and found not in numbers:
        few = ", ".join(map(str, numbers[:-1]))
        raise ValueError(
            f"pred_boxes: got shape {shape_of(pred_boxes)}, wanted {few} or {numbers[-1]} numbers "
            "in the last axis"
        )
    each = found if found in numbers else numbers[0]
    shape = f"*N {each}"
    try:
        check_shapes(pred_boxes=(pred_boxes, shape), target_boxes=(target_boxes, shape))
    except ValueError as error:
        raise ValueError(
            f"{error}; boxes are compared row by row: pair them first with pred_boxes[matched] and "
            "target_boxes[matched_targets], or for all pairs expand both to one shape"
        ) from None
    return each


def check_sample_weight(weight: Numbers, shape: tuple[int, ...], **of: Tensor) -> Tensor:
    """``sample_weight``, one number for each position ``of`` a named tensor."""
    (like,) = of.values()
    made = as_weight("sample_weight", weight, like)
    check_tensors(**of, sample_weight=made)
    if made.shape != shape:
        raise ValueError(
            f"sample_weight: got shape {shape_of(made)}, wanted {shape}, one for each position"
        )
    return made


def shape_of(t: Tensor) -> tuple[int, ...]:
    """Its shape, as messages print it."""
    return tuple(t.shape)
