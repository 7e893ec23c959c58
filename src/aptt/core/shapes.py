"""Axes and checks: where the classes are, and errors that say what came and what was wanted."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Aligned",
    "align_classes",
    "align_elements",
    "check_binary",
    "check_boxes",
    "check_choice",
    "check_chunk",
    "check_classes",
    "check_floating",
    "check_indices",
    "check_number",
    "check_numbers",
    "check_pairs",
    "check_positive",
    "check_range",
    "check_real",
    "check_shapes",
    "check_vector",
    "check_weights",
    "check_whole",
    "class_axis",
    "indexed_axis",
    "is_readable",
    "kept",
    "split_axis",
    "taken_classes",
    "without_axis",
]

_INDICES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Aligned(NamedTuple):
    """Logits as ``(N, C)`` or ``(N, C, S)``, the target to match, and the shape of the positions.

    ``target`` is ``(N,)`` or ``(N, S)`` for class indices, and like ``logits`` for soft targets.
    """

    logits: Tensor
    target: Tensor
    soft: bool
    shape: tuple[int, ...]


def align_classes(logits: Tensor, target: Tensor, class_dim: int | None) -> Aligned:
    """Find the class axis from the shapes (or take ``class_dim``) and bring it second, as views."""
    check_floating(logits=logits)
    axes = range(logits.ndim)
    if class_dim is not None:
        axes = range(a := class_axis(logits, class_dim), a + 1)
    soft = target.shape == logits.shape and target.is_floating_point()
    if soft:
        if class_dim is None and logits.ndim > 2:
            raise ValueError(
                f"class_dim: soft targets of shape {_shape(target)} do not show which axis holds "
                "the classes; pass class_dim=1 for (N, C, ...) or class_dim=-1 for (..., C)"
            )
        fits = [axes[-1]] if logits.ndim else []
    else:
        usual = axes if class_dim is not None else {*axes[1:2], *axes[-1:]}
        fits = [a for a in sorted(usual) if without_axis(logits, a) == tuple(target.shape)]
        if fits and target.dtype not in _INDICES:
            raise TypeError(
                f"target: got {target.dtype} of shape {_shape(target)}, wanted class indices of an "
                f"integer dtype, or soft targets of the logits' shape {_shape(logits)}"
            )
    if not fits:
        indices = " or ".join(
            sorted({str(without_axis(logits, a)) for a in {*axes[1:2], *axes[-1:]}})
        )
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
    if logits.shape[axis] == 0:
        raise ValueError(f"logits: got {_shape(logits)}, with no class on axis {axis}")
    rows = logits.stride(axis) == 1 or axis == logits.ndim - 1
    x = split_axis(logits, axis, rows=rows)
    y = split_axis(target, axis, rows=rows) if soft else target.reshape(*x.shape[:1], *x.shape[2:])
    return Aligned(x, y, soft, without_axis(logits, axis))


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
    if target.dtype not in _INDICES:
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
    target: Tensor,
    weight: Tensor | None,
    *,
    by_class: bool,
    class_dim: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tensors of one shape as ``(N,)``, or as ``(N, C, S)`` where an option differs by class."""
    check_floating(logits=logits)
    check_shapes(logits=(logits, "*N"), target=(target, "*N"))
    if weight is not None:
        check_shapes(logits=(logits, "*N"), weight=(weight, "*N"))
    axis = class_axis(logits, class_dim) if by_class else None

    def aligned(t: Tensor) -> Tensor:
        return t.reshape(-1) if axis is None else split_axis(t, axis)

    return aligned(logits), aligned(target), None if weight is None else aligned(weight)


def split_axis(t: Tensor, axis: int, *, rows: bool = False) -> Tensor:
    """``t`` as ``(N, C, S)`` around ``axis``, or as ``(N, C)`` with the axis last."""
    size = t.shape[axis]
    if rows:
        return t.movedim(axis, -1).reshape(math.prod(without_axis(t, axis)), size)
    return t.reshape(math.prod(t.shape[:axis]), size, math.prod(t.shape[axis + 1 :]))


def check_shapes(**tensors: tuple[Tensor, str]) -> None:
    """Hold named tensors to shapes such as ``"N C *S"``: equal names are equal sizes.

    One name may be starred, and stands for any number of axes; a number stands for itself.
    """
    bound: dict[str, object] = {}
    _check_tensors(**{name: tensor for name, (tensor, _) in tensors.items()})
    for tensor, wanted in tensors.values():
        names, sizes = wanted.split(), _grouped(wanted.split(), list(tensor.shape))
        agree = sizes is not None and all(
            bound.setdefault(name, int(name) if name.isdecimal() else size) == size
            for name, size in zip(names, sizes, strict=True)
        )
        if not agree:
            said = "; ".join(
                f"{key}: {_shape(t)} should be ({', '.join(shape.split())})"
                for key, (t, shape) in tensors.items()
            )
            alike = len(tensors) > 1 and len({shape for _, shape in tensors.values()}) == 1
            raise ValueError(said + ("; all of one shape" if alike else ""))


def _grouped(names: list[str], sizes: list[int]) -> list[object] | None:
    """The sizes, those under the starred name as one tuple; None if they cannot fit."""
    stars = [i for i, name in enumerate(names) if name.startswith("*")]
    if not stars:
        return list(sizes) if len(names) == len(sizes) else None
    (star,) = stars
    end = len(sizes) - (len(names) - star - 1)
    return [*sizes[:star], tuple(sizes[star:end]), *sizes[end:]] if end >= star else None


def _check_tensors(**tensors: object) -> None:
    for name, t in tensors.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: got {type(t).__name__}, wanted a tensor")


def check_floating(**tensors: Tensor) -> None:
    """Refuse predictions that are not real floating point."""
    _check_tensors(**tensors)
    for name, t in tensors.items():
        if not t.is_floating_point():
            raise TypeError(f"{name}: got {t.dtype}, wanted a floating dtype")


def check_real(**tensors: Tensor) -> None:
    """Refuse complex numbers, whose imaginary part a conversion would drop."""
    _check_tensors(**tensors)
    for name, t in tensors.items():
        if t.is_complex():
            raise TypeError(f"{name}: got {t.dtype}, wanted real numbers")


def check_numbers(**tensors: Tensor) -> None:
    """Refuse what answers yes or no, too."""
    check_real(**tensors)
    for name, t in tensors.items():
        if t.dtype == torch.bool:
            raise TypeError(f"{name}: got {t.dtype}, wanted real numbers")


def check_vector(name: str, vector: Tensor, x: Tensor) -> Tensor:
    """Hold an option to one number per class of ``x`` ``(N, C, ...)``, and give it its dtype."""
    check_floating(**{name: vector})
    if vector.shape != x.shape[1:2]:
        raise ValueError(
            f"{name}: got shape {_shape(vector)}, wanted ({x.shape[1]},), one per class"
        )
    return vector.to(torch.promote_types(x.dtype, torch.float32))


def check_indices(**tensors: Tensor) -> None:
    """Refuse targets that are not indices."""
    _check_tensors(**tensors)
    for name, t in tensors.items():
        if t.dtype not in _INDICES:
            raise TypeError(f"{name}: got {t.dtype}, wanted indices of an integer dtype")


def check_number(name: str, value: float, low: float = 0.0, high: float = math.inf) -> None:
    """Hold an option to a closed range, and to finite numbers."""
    try:
        if low <= value <= high and value != math.inf:
            return
        error: type[Exception] = ValueError
    except TypeError:
        error = TypeError
    wanted = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}, and finite"
    raise error(f"{name}: got {value!r}, wanted a number {wanted}")


def check_positive(name: str, value: float) -> None:
    """Hold an option to finite numbers above 0."""
    try:
        if 0 < value < math.inf:
            return
        error: type[Exception] = ValueError
    except TypeError:
        error = TypeError
    raise error(f"{name}: got {value!r}, wanted a positive number")


def check_whole(name: str, value: int, low: int = 1) -> None:
    """Hold an option to whole numbers; True is none."""
    if type(value) is not int or value < low:
        raise ValueError(f"{name}: got {value!r}, wanted a whole number of at least {low}")


def check_chunk(chunk: int | None) -> None:
    """Hold the size of a chunk to a whole number of tokens, or to None."""
    if chunk is not None and (type(chunk) is not int or chunk < 1):  # True is no number
        raise ValueError(f"chunk: got {chunk!r}, wanted a number of tokens, at least 1, or None")


def check_choice(name: str, value: object, choices: tuple[str, ...], *, also: str = "") -> None:
    """Hold an option to a list of names."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices)) + (f" or {also}" if also else "")
        raise ValueError(f"{name}: got {value!r}, wanted {wanted}")


def check_range(
    target: Tensor, low: float, high: float, *, keep: Tensor | None, name: str = "target"
) -> None:
    """Refuse targets out of a closed range, among those that count; in eager mode on CPU."""
    if target.dtype == torch.bool or not is_readable(target):
        return
    if bool(target.amin() >= low) and bool(target.amax() <= high):
        return
    wrong = ~((target >= low) & (target <= high))
    if keep is not None:
        wrong &= keep if keep.ndim == target.ndim else keep.unsqueeze(1)
    if wrong.any():
        raise ValueError(
            f"{name}: got {target[wrong][0].item()}, wanted numbers from {low} to {high}"
        )


def check_weights(**weights: Tensor) -> None:
    """Refuse weights below 0 and those that are not finite; in eager mode on CPU."""
    for name, t in weights.items():
        if not is_readable(t):
            continue
        wrong = ~((t >= 0) & (t < math.inf))
        if bool(wrong.any()):
            raise ValueError(
                f"{name}: got {t[wrong][0].item()}, wanted finite numbers of at least 0"
            )


def check_pairs(pred_boxes: Tensor, target_boxes: Tensor, numbers: int) -> None:
    """Hold boxes of so many numbers to one shape: row by row, never by broadcasting."""
    shape = f"*N {numbers}"
    try:
        check_shapes(pred_boxes=(pred_boxes, shape), target_boxes=(target_boxes, shape))
    except ValueError as error:
        raise ValueError(
            f"{error}; boxes are compared row by row: pair them first with pred_boxes[matched] and "
            "target_boxes[matched_targets], or for all pairs expand both to one shape"
        ) from None


def check_boxes(x: Tensor, t: Tensor, weight: Tensor | None, *, ordered: bool) -> None:
    """Name the first row that counts and has a number that is not finite, or a target inside out.

    Sizes are to be at least 0; where boxes are ``ordered`` by corners, the second not the less.
    """
    size = t[:, 2:4] - t[:, :2] if ordered else t[:, 2:4]
    for name, boxes, fault, wrong in (
        ("pred_boxes", x, "finite numbers", ~x.isfinite().all(1)),
        ("target_boxes", t, "finite numbers", ~t.isfinite().all(1)),
        ("target_boxes", t, "sizes of at least 0", (size < 0).any(1)),
    ):
        if weight is not None:
            wrong = wrong & (weight != 0)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(f"{name}: row {row} is {boxes[row].tolist()}, wanted {fault}")


def check_classes(
    target: Tensor, classes: int, ignore_index: int | None, *, name: str = "target"
) -> None:
    """Refuse class indices out of range, where looking costs no host sync: eager mode on CPU.

    Elsewhere the gather of the target's logit asserts the range on the device.
    """
    if not is_readable(target):
        return
    low, high = (int(v) for v in target.aminmax())
    if low >= 0 and high < classes:
        return
    target = target.long()  # a narrow dtype cannot be compared with numbers that it does not hold
    wrong = (target < 0) | (target >= classes)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if wrong.any():
        raise ValueError(
            f"{name}: got class {int(target[wrong][0])}, wanted 0 to {classes - 1}"
            + ("" if ignore_index is None else f" or ignore_index={ignore_index}")
        )


def kept(target: Tensor, ignore_index: float) -> Tensor:
    """Which targets are not ignored.

    torch compares in the dtype of the target, where -100 is 156 for uint8.
    """
    if target.dtype in _INDICES:
        held = torch.iinfo(target.dtype)
        if not held.min <= ignore_index <= held.max:
            return torch.ones_like(target, dtype=torch.bool)
    return target != ignore_index


def taken_classes(
    target: Tensor, classes: int | None, ignore_index: int, *, name: str = "target"
) -> tuple[Tensor, Tensor]:
    """Class indices as int64, 0 where they are ignored; and where they are not.

    Without a number of ``classes`` their range is left to the caller.
    """
    if classes is not None:
        check_classes(target, classes, ignore_index, name=name)
    keep = kept(target, ignore_index)
    return torch.where(keep, target, 0).long(), keep


def check_binary(target: Tensor, ignore_index: int | None) -> None:
    """Refuse targets other than 0 and 1, where looking costs no host sync: eager mode on CPU."""
    if target.dtype == torch.bool:
        return
    if target.is_complex():
        raise TypeError(f"target: got {target.dtype}, wanted 0 and 1, of a real dtype or bool")
    if not is_readable(target):
        return
    for part in target.reshape(-1).split(2**17):  # small enough to stay in the cache
        low, high = part.aminmax()
        # from 0 to 1, t - t * t is never negative: its sum is 0 only if each is
        inside = bool(low >= 0) and bool(high <= 1)
        if inside and not (part.is_floating_point() and bool((part - part * part).sum() > 0)):
            continue
        wrong = (part != 0) & (part != 1)
        if ignore_index is not None:
            wrong &= kept(part, ignore_index)
        if wrong.any():
            raise ValueError(
                f"target: got {part[wrong][0].item()}, wanted 0 or 1"
                + ("" if ignore_index is None else f" or ignore_index={ignore_index}")
                + "; for soft labels there is quality_focal_loss"
            )


def is_readable(t: Tensor) -> bool:
    """Whether looking at values is free: plain tensors on the CPU, outside any transform."""
    return (
        not torch.compiler.is_compiling()
        and type(t) in (Tensor, torch.nn.Parameter)
        and t.device.type == "cpu"
        and t.numel() > 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def without_axis(t: Tensor, axis: int) -> tuple[int, ...]:
    """The shape of ``t`` less one axis."""
    return (*t.shape[:axis], *t.shape[axis + 1 :]) if t.ndim else ()


def _shape(t: Tensor) -> tuple[int, ...]:
    return tuple(t.shape)
