"""Axes: where the classes are, and tensors of one shape."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    INDEX_DTYPES,
    Numbers,
    as_factor,
    as_tensor,
    as_weight,
    check_floating,
    check_numbers,
    check_tensors,
    check_weight,
)
from aptt.core.engine import at_once

__all__ = [
    "Aligned",
    "align_classes",
    "align_elements",
    "check_pairs",
    "check_sample_weight",
    "check_several",
    "check_shapes",
    "check_vector",
    "class_axis",
    "indexed_axis",
    "one_or_each",
    "split_axis",
    "without_axis",
]


class Aligned(NamedTuple):
    """Logits as ``(N, C)`` or ``(N, C, S)``, the target to match, and the shape of the positions.

    ``target`` is ``(N,)`` or ``(N, S)`` for class indices, and like ``logits`` for soft targets.
    """

    logits: Tensor
    target: Tensor
    soft: bool
    shape: tuple[int, ...]


def align_classes(logits: Tensor, target: Tensor | Numbers, class_dim: int | None) -> Aligned:
    """Find the class axis from the shapes (or take ``class_dim``) and bring it second, as views."""
    check_floating(logits=logits)
    target = as_tensor("target", target, logits)
    check_tensors(logits=logits, target=target)
    if class_dim is not None:
        axes: tuple[int, ...] = (class_axis(logits, class_dim),)
    else:
        axes = (1, logits.ndim - 1) if logits.ndim > 2 else tuple(range(logits.ndim))[-1:]
    soft = target.shape == logits.shape and target.is_floating_point()
    if soft:
        if class_dim is None and logits.ndim > 2:
            raise ValueError(
                f"class_dim: soft targets of shape {_shape(target)} do not show which axis holds "
                "the classes; pass class_dim=1 for (N, C, ...) or class_dim=-1 for (..., C)"
            )
        fits = [*axes[-1:]]
    else:
        fits = [a for a in axes if without_axis(logits, a) == tuple(target.shape)]
        if fits and target.dtype not in INDEX_DTYPES:
            raise TypeError(
                f"target: got {target.dtype} of shape {_shape(target)}, wanted class indices of an "
                f"integer dtype, or soft targets of the logits' shape {_shape(logits)}"
            )
    if not fits:
        indices = " or ".join(sorted({str(without_axis(logits, a)) for a in axes}))
        raise ValueError(
            f"target: got {target.dtype} of shape {_shape(target)} for logits {_shape(logits)}; "
            f"wanted class indices of shape {indices or '(one axis less)'}, or soft targets of a "
            f"floating dtype and shape {_shape(logits)}"
        )
    if len(fits) > 1:
        raise ValueError(
            f"class_dim: logits {_shape(logits)} and target {_shape(target)} fit with the classes "
            f"on axis {fits[0]} and on axis {fits[1]}; say which with class_dim"
        )
    (axis,) = fits
    check_several("logits", logits, axis)
    if logits.ndim == 2 and axis == 1:
        return Aligned(logits, target, soft, tuple(logits.shape[:1]))
    rows = axis == logits.ndim - 1 or logits.stride(axis) == 1
    x = split_axis(logits, axis, rows=rows)
    y = split_axis(target, axis, rows=rows) if soft else target.reshape(*x.shape[:1], *x.shape[2:])
    return Aligned(x, y, soft, without_axis(logits, axis))


_YES_OR_NO = (
    "a logit that answers yes or no has targets 0 and 1 of its own shape: binary_cross_entropy, or "
    "the sigmoid form of focal_loss"
)


def check_several(name: str, logits: Tensor, axis: int, *, cure: str = _YES_OR_NO) -> None:
    """Refuse an axis of classes without two of them: the softmax of one logit is always 1."""
    classes = logits.shape[axis]
    if classes < 2:
        raise ValueError(
            f"{name}: got {_shape(logits)}, with {classes or 'no'} class on axis {axis}; "
            f"wanted 2 or more, for the softmax of a single logit is always 1; {cure}"
        )


def class_axis(logits: Tensor, class_dim: int | None) -> int:
    """The class axis by its non-negative number; the only one that a matrix leaves open is 1."""
    if class_dim is None:
        if logits.ndim > 2:
            raise ValueError(
                f"class_dim: logits {_shape(logits)} do not show which axis holds the classes; "
                "pass class_dim=1 for (N, C, ...) or class_dim=-1 for (..., C)"
            )
        return logits.ndim - 1
    if class_dim not in range(-logits.ndim, logits.ndim):
        raise ValueError(f"class_dim: got {class_dim} for logits {_shape(logits)}")
    return class_dim % logits.ndim


def indexed_axis(
    logits: Tensor, target: Tensor, class_dim: int | None, *, names: tuple[str, str]
) -> int:
    """The class axis that class indices lack, where ``names`` are what a message calls the two."""
    check_tensors(**{names[0]: logits, names[1]: target})
    if target.dtype not in INDEX_DTYPES:
        raise TypeError(f"{names[1]}: got {target.dtype}, wanted class indices")
    if class_dim is not None or logits.ndim < 3:
        axes = [class_axis(logits, class_dim)]
    else:
        axes = [1, logits.ndim - 1]
    fits = [a for a in axes if without_axis(logits, a) == tuple(target.shape)]
    if not fits:
        wanted = " or ".join(str(without_axis(logits, a)) for a in axes)
        raise ValueError(
            f"{names[1]}: got shape {_shape(target)}, wanted {wanted} for {names[0]} "
            f"{_shape(logits)}"
        )
    axis = fits[0] if len(fits) == 1 else class_axis(logits, None)
    if logits.shape[axis] == 0:
        raise ValueError(f"{names[0]}: got {_shape(logits)}, with no class on axis {axis}")
    return axis


def align_elements(
    logits: Tensor,
    target: Numbers,
    weight: Numbers | None,
    *,
    by_class: bool,
    class_dim: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tensors of one shape as ``(N,)``, or as ``(N, C, S)`` where an option differs by class.

    Those that are evaluated at once stay as they are: nothing is cut from them.
    """
    check_floating(logits=logits)
    target = as_tensor("target", target, logits)
    check_shapes(logits=(logits, "*N"), target=(target, "*N"))
    if weight is not None:
        weight = as_weight("weight", weight, logits)
        check_shapes(logits=(logits, "*N"), weight=(weight, "*N"))
    axis = class_axis(logits, class_dim) if by_class else None
    if axis is None and logits.ndim and at_once(logits):
        return logits, target, weight

    def aligned(t: Tensor) -> Tensor:
        return t.reshape(-1) if axis is None else split_axis(t, axis)

    return aligned(logits), aligned(target), None if weight is None else aligned(weight)


def split_axis(t: Tensor, axis: int, *, rows: bool = False) -> Tensor:
    """``t`` as ``(N, C, S)`` around ``axis``, or as ``(N, C)`` with the axis last."""
    if t.ndim == (2 if rows else 3) and axis == 1:
        return t
    size = t.shape[axis]
    if rows:
        return t.movedim(axis, -1).reshape(math.prod(without_axis(t, axis)), size)
    return t.reshape(math.prod(t.shape[:axis]), size, math.prod(t.shape[axis + 1 :]))


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
                f"{key}: {_shape(t)} should be ({', '.join(shape.split())})"
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
            f"{name}: got shape {_shape(vector)}, wanted ({x.shape[1]},), one per {each}"
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
            f"{name}: got shape {_shape(factor)} for logits {_shape(logits)}, which have no class "
            "axis; wanted one number for all (weight= is for elements)"
        )
    return factor


def check_pairs(pred_boxes: Tensor, target_boxes: Tensor, numbers: tuple[int, ...]) -> int:
    """Hold boxes to one shape: row by row, never by broadcasting. How many numbers each has."""
    found = pred_boxes.shape[-1] if pred_boxes.ndim else 0
    if len(numbers) > 1 and found not in numbers:
        few = ", ".join(map(str, numbers[:-1]))
        raise ValueError(
            f"pred_boxes: got shape {_shape(pred_boxes)}, wanted {few} or {numbers[-1]} numbers in "
            "the last axis"
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
            f"sample_weight: got shape {_shape(made)}, wanted {shape}, one for each position"
        )
    return made


def without_axis(t: Tensor, axis: int) -> tuple[int, ...]:
    """The shape of ``t`` less one axis."""
    return (*t.shape[:axis], *t.shape[axis + 1 :]) if t.ndim else ()


def _shape(t: Tensor) -> tuple[int, ...]:
    return tuple(t.shape)
