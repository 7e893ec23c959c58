"""Where the classes are: finding their axis, and bringing it second."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from aptt.core.checks import (
    INDEX_DTYPES,
    Numbers,
    as_tensor,
    as_weight,
    check_floating,
    check_tensors,
)
from aptt.core.engine import at_once
from aptt.core.shapes import check_shapes, shape_of

__all__ = [
    "Aligned",
    "align_classes",
    "align_elements",
    "check_several",
    "class_axis",
    "indexed_axis",
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
    soft = target.shape == logits.shape and target.is_floating_point()
    axis = _axis_of_classes(logits, target, class_dim, soft=soft)
    check_several("logits", logits, axis)
    if logits.ndim == 2 and axis == 1:
        return Aligned(logits, target, soft, tuple(logits.shape[:1]))
    rows = axis == logits.ndim - 1 or logits.stride(axis) == 1
    x = split_axis(logits, axis, rows=rows)
    y = split_axis(target, axis, rows=rows) if soft else target.reshape(*x.shape[:1], *x.shape[2:])
    return Aligned(x, y, soft, without_axis(logits, axis))


def _axis_of_classes(logits: Tensor, target: Tensor, class_dim: int | None, *, soft: bool) -> int:
    """The axis that class indices lack, or that soft targets have like the logits."""
    whole, given = shape_of(logits), shape_of(target)
    if class_dim is not None:
        axes: tuple[int, ...] = (class_axis(logits, class_dim),)
    else:
        axes = (1, logits.ndim - 1) if logits.ndim > 2 else tuple(range(logits.ndim))[-1:]
    if soft:
        if class_dim is None and logits.ndim > 2:
            raise ValueError(
                f"class_dim: soft targets of shape {given} do not show which axis holds "
                "the classes; pass class_dim=1 for (N, C, ...) or class_dim=-1 for (..., C)"
            )
        fits = [*axes[-1:]]
    else:
        fits = [a for a in axes if without_axis(logits, a) == given]
        if fits and target.dtype not in INDEX_DTYPES:
            raise TypeError(
                f"target: got {target.dtype} of shape {given}, wanted class indices of an "
                f"integer dtype, or soft targets of the logits' shape {whole}"
            )
    if not fits:
        indices = " or ".join(sorted({str(without_axis(logits, a)) for a in axes}))
        raise ValueError(
            f"target: got {target.dtype} of shape {given} for logits {whole}; "
            f"wanted class indices of shape {indices or '(one axis less)'}, or soft targets of a "
            f"floating dtype and shape {whole}"
        )
    if len(fits) > 1:
        raise ValueError(
            f"class_dim: logits {whole} and target {given} fit with the classes "
            f"on axis {fits[0]} and on axis {fits[1]}; say which with class_dim"
        )
    return fits[0]


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


def class_axis(logits: Tensor, class_dim: int | None) -> int:
    """The class axis by its non-negative number; the only one that a matrix leaves open is 1."""
    if class_dim is None and logits.ndim:
        if logits.ndim > 2:
            raise ValueError(
                f"class_dim: logits {shape_of(logits)} do not show which axis holds the classes; "
                "pass class_dim=1 for (N, C, ...) or class_dim=-1 for (..., C)"
            )
        return logits.ndim - 1
    if class_dim is None or class_dim not in range(-logits.ndim, logits.ndim):
        raise ValueError(f"class_dim: got {class_dim} for logits {shape_of(logits)}")
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
            f"{names[1]}: got shape {shape_of(target)}, wanted {wanted} for {names[0]} "
            f"{shape_of(logits)}"
        )
    axis = fits[0] if len(fits) == 1 else class_axis(logits, None)
    if logits.shape[axis] == 0:
        raise ValueError(f"{names[0]}: got {shape_of(logits)}, with no class on axis {axis}")
    return axis


_YES_OR_NO = (
    "a logit that answers yes or no has targets 0 and 1 of its own shape: binary_cross_entropy, or "
    "the sigmoid form of focal_loss"
)


def check_several(name: str, logits: Tensor, axis: int, *, cure: str = _YES_OR_NO) -> None:
    """Refuse an axis of classes without two of them: the softmax of one logit is always 1."""
    classes = logits.shape[axis]
    if classes < 2:
        raise ValueError(
            f"{name}: got {shape_of(logits)}, with {classes or 'no'} class on axis {axis}; "
            f"wanted 2 or more, for the softmax of a single logit is always 1; {cure}"
        )


def split_axis(t: Tensor, axis: int, *, rows: bool = False) -> Tensor:
    """``t`` as ``(N, C, S)`` around ``axis``, or as ``(N, C)`` with the axis last."""
    if t.ndim == (2 if rows else 3) and axis == 1:
        return t
    size = t.shape[axis]
    if rows:
        return t.movedim(axis, -1).reshape(math.prod(without_axis(t, axis)), size)
    return t.reshape(math.prod(t.shape[:axis]), size, math.prod(t.shape[axis + 1 :]))


def without_axis(t: Tensor, axis: int) -> tuple[int, ...]:
    """The shape of ``t`` less one axis."""
    return (*t.shape[:axis], *t.shape[axis + 1 :]) if t.ndim else ()
