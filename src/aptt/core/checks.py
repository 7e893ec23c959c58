"""Checks of options and values: errors that say what came and what was wanted.

Values are looked at in eager mode on the CPU alone, where that costs no host sync.

The rule for weights, of classes, elements, boxes and samples, and for what multiplies like them
(``pos_weight``, ``alpha``): finite, and at least 0, of any size. A share is in [0, 1] besides:
the sigmoid focal loss weighs negatives by ``1 - alpha``. What is ignored may weigh anything.
:func:`check_weights` holds numbers, lists, arrays and tensors to it, in functions and in modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Real
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from aptt.core.ordinary import (
    apart,
    inside_functorch,
    is_readable,
    is_spread,
    placed,
    real_device,
)

__all__ = [
    "INDEX_DTYPES",
    "Array",
    "IgnoreIndex",
    "Numbers",
    "as_factor",
    "as_floats",
    "as_tensor",
    "as_weight",
    "check_binary",
    "check_boxes",
    "check_choice",
    "check_chunk",
    "check_classes",
    "check_each",
    "check_flags",
    "check_floating",
    "check_index",
    "check_indices",
    "check_number",
    "check_numbers",
    "check_positive",
    "check_range",
    "check_tensors",
    "check_weight",
    "check_weights",
    "check_whole",
    "ignored",
    "kept",
    "looking",
    "taken_classes",
]

INDEX_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Array(Protocol):
    """What NumPy computes with."""

    def __array__(self) -> Any:
        """Its numbers."""


Numbers: TypeAlias = Tensor | Sequence[float] | Array
"""What serves as a tensor of numbers; :func:`as_tensor` makes one of it."""

IgnoreIndex: TypeAlias = int | Literal["auto"] | None
"""The target value that is ignored; None is none, whatever the target."""


def as_tensor(name: str, values: object, like: Tensor | None = None) -> Tensor:
    """A tensor as it is; a list or an array as one, on the device of ``like``.

    Floats have the precision in which ``like`` is computed with. Complex numbers are refused, as
    :func:`check_tensors` does.
    """
    if isinstance(values, Tensor):
        _check_real(name, values)
        return values
    device, dtype = (None, None) if like is None else (like.device, like.dtype)
    dtype = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
    try:
        with apart(real_device()) if like is None else nullcontext():
            made = torch.tensor(values, device=device)
            if made.is_floating_point() and made.dtype != dtype:  # with all digits of the list
                made = torch.tensor(values, device=device, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}: got {type(values).__name__}, wanted a tensor, or a list or an array of "
            f"numbers ({error})"
        ) from None
    _check_real(name, made)
    return made


def as_weight(name: str, values: object, like: Tensor) -> Tensor:
    """A weight of elements: floats in no narrower a dtype than ``like`` is computed in.

    So its sum, the count of a mean, has the digits of the computation. An element of weight 0
    counts as removed, whatever it holds: the gradient of a weight that is 0 is 0.
    """
    weight = as_tensor(name, values, like)
    if not weight.is_floating_point():
        return weight
    computed = torch.promote_types(like.dtype, torch.float32)
    weight = weight.to(torch.promote_types(weight.dtype, computed))
    if weight.requires_grad or inside_functorch():
        weight = weight.masked_fill(weight == 0, 0.0)
    return weight


def as_floats(name: str, values: object, like: Tensor) -> Tensor:
    """Real numbers of a floating dtype; whole ones, as COCO has them, in that of ``like``."""
    made = as_tensor(name, values, like)
    check_numbers(**{name: made})
    if made.is_floating_point():
        return made
    return made.to(torch.promote_types(like.dtype, torch.float32))


def as_factor(
    name: str, value: float | Numbers, like: Tensor | None = None, *, high: float = math.inf
) -> float | Tensor:
    """A weight as a number, or as a tensor where there is one per class; held to the rule."""
    if isinstance(value, Real):
        check_number(name, value := float(value), 0.0, high)
        return value
    if isinstance(value, str):
        raise TypeError(f"{name}: got {value!r}, wanted a number, or numbers, one per class")
    made = as_tensor(name, value, like)
    check_numbers(**{name: made})
    check_weight(name, made, high)
    return made


def check_tensors(**tensors: object) -> None:
    """Refuse what is not a tensor of real numbers, or not on the device of the first.

    A number of shape () on the CPU goes with tensors anywhere. No loss has a meaning for complex
    numbers, whose imaginary part a conversion would drop.
    """
    first = device = None
    for name, t in tensors.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: got {type(t).__name__}, wanted a tensor")
        _check_real(name, t)
        if first is None:
            first, device = name, t.device
        elif t.device != device and (t.ndim or t.device.type != "cpu"):
            raise ValueError(
                f"{name}: got a tensor on {t.device}, wanted it on {device}, where {first} is; "
                f"move it with {name}.to({first}.device), or a module that holds it with .to(...)"
            )


def check_each(name: str, tensors: object) -> None:
    """Refuse what is not a sequence of tensors, one an image, each of them as above."""
    if isinstance(tensors, str) or not isinstance(tensors, Sequence):
        raise TypeError(
            f"{name}: got {type(tensors).__name__}, wanted a tensor, or a list, one an image"
        )
    for i, t in enumerate(tensors):
        check_tensors(**{f"{name}[{i}]": t})


def _check_real(name: str, t: Tensor) -> None:
    if is_spread(t):
        raise TypeError(
            f"{name}: got a DTensor placed as {placed(t)}, wanted a plain tensor; "
            "aptt.parallel.sharded(loss) takes what this loss takes, as DTensors"
        )
    if t.is_complex():
        raise TypeError(f"{name}: got {t.dtype}, wanted real numbers")


def check_floating(**tensors: Tensor) -> None:
    """Refuse predictions that are not real floating point."""
    check_tensors(**tensors)
    for name, t in tensors.items():
        if not t.is_floating_point():
            raise TypeError(f"{name}: got {t.dtype}, wanted a floating dtype")


def check_numbers(**tensors: Tensor) -> None:
    """Refuse what answers yes or no."""
    check_tensors(**tensors)
    for name, t in tensors.items():
        if t.dtype == torch.bool:
            raise TypeError(f"{name}: got {t.dtype}, wanted real numbers")


def check_indices(**tensors: Tensor) -> None:
    """Refuse targets that are not indices."""
    check_tensors(**tensors)
    for name, t in tensors.items():
        if t.dtype not in INDEX_DTYPES:
            raise TypeError(f"{name}: got {t.dtype}, wanted indices of an integer dtype")


def check_number(
    name: str, value: float, low: float = 0.0, high: float = math.inf, *, wanted: str = ""
) -> None:
    """Hold an option to a closed range, and to finite numbers."""
    try:
        if low <= value <= high and value != math.inf:
            return
        error: type[Exception] = ValueError
    except TypeError:
        error = TypeError
    limits = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}, and finite"
    raise error(f"{name}: got {value!r}, wanted {wanted or 'a number ' + limits}")


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


def check_flags(**options: object) -> None:
    """Hold options to True and False; a number or a name that is taken for one is a mistake."""
    for name, value in options.items():
        if type(value).__name__ not in ("bool", "bool_"):  # NumPy has its own
            raise TypeError(f"{name}: got {value!r}, wanted True or False")


def check_index(**options: int | None) -> None:
    """Hold options such as ``ignore_index`` and ``class_dim`` to whole numbers, or None."""
    for name, value in options.items():
        if value is not None and not isinstance(value, int) and not hasattr(value, "__index__"):
            raise TypeError(f"{name}: got {value!r}, wanted a whole number or None")


def ignored(ignore_index: IgnoreIndex, *, indexed: bool) -> int | None:
    """The target value that is ignored: ``"auto"`` is -100 among class indices, and else none."""
    if isinstance(ignore_index, str):
        check_choice("ignore_index", ignore_index, ("auto",), also="a whole number, or None")
        return -100 if indexed else None
    check_index(ignore_index=ignore_index)
    return ignore_index


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
    least, most = (v.item() for v in target.aminmax())
    if least >= low and most <= high:
        return
    wrong = ~((target >= low) & (target <= high))
    if keep is not None:
        wrong &= keep if keep.ndim == target.ndim else keep.unsqueeze(1)
    if wrong.any():
        raise ValueError(
            f"{name}: got {target[wrong][0].item()}, wanted numbers from {low} to {high}"
        )


def check_weights(**weights: Tensor) -> None:
    """Hold weights to the rule at the top of this file: finite, and at least 0."""
    for name, weight in weights.items():
        check_weight(name, weight)


def check_weight(name: str, weight: Tensor, high: float = math.inf) -> None:
    """Hold a weight to the rule, and a share to its end; one look, in eager mode on CPU."""
    if weight.dtype == torch.bool or not is_readable(weight):
        return
    with looking(weight):
        least, most = (v.item() for v in weight.detach().aminmax())  # both NaN where one number is
    if least >= 0 and most <= high and most != math.inf:
        return
    wrong = ~((weight >= 0) & (weight <= high) & (weight != math.inf))
    wanted = "finite numbers of at least 0" if high == math.inf else f"from 0 to {high:g}"
    raise ValueError(f"{name}: got {weight[wrong][0].item()}, wanted {wanted}")


def looking(t: Tensor) -> AbstractContextManager[None]:
    """Where a readable tensor can be looked at, though a mode around makes them without values."""
    return apart(t.device) if torch._C._len_torch_dispatch_stack() else nullcontext()


def check_boxes(x: Tensor, t: Tensor, weight: Tensor | None, *, ordered: bool) -> None:
    """Name the first row that counts and has a number that is not finite, or a target inside out.

    Sizes are to be at least 0; where boxes are ``ordered`` by corners, the second not the less.
    """
    size = t[:, 2:4] - t[:, :2] if ordered else t[:, 2:4]
    sizes = "sizes of at least 0"
    if ordered:
        sizes += ": two corners; box_format='xywh' or 'cxcywh' if it is one point and a size"
    for name, boxes, fault, wrong in (
        ("pred_boxes", x, "finite numbers", ~x.isfinite().all(1)),
        ("target_boxes", t, "finite numbers", ~t.isfinite().all(1)),
        ("target_boxes", t, sizes, (size < 0).any(1)),
    ):
        if weight is not None:
            wrong = wrong & (weight != 0)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(f"{name}: row {row} is {boxes[row].tolist()}, wanted {fault}")


def check_classes(
    target: Tensor, classes: int, ignore_index: int | None, *, name: str = "target"
) -> bool:
    """Refuse class indices out of range, where looking costs no host sync: eager mode on CPU.

    Elsewhere the gather of the target's logit asserts the range on the device. Returns whether
    one look has shown that no target is ignored.
    """
    if not is_readable(target):
        return False
    low, high = (v.item() for v in target.aminmax())
    if low >= 0 and high < classes:
        return ignore_index is None or not low <= ignore_index <= high
    target = target.long()  # a narrow dtype cannot be compared with numbers that it does not hold
    wrong = (target < 0) | (target >= classes)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if wrong.any():
        raise ValueError(
            f"{name}: got class {int(target[wrong][0])}, wanted 0 to {classes - 1}"
            + ("" if ignore_index is None else f" or ignore_index={ignore_index}")
        )
    return False


def kept(target: Tensor, ignore_index: float) -> Tensor:
    """Which targets are not ignored.

    torch compares in the dtype of the target, where -100 is 156 for uint8.
    """
    if target.dtype in INDEX_DTYPES:
        held = torch.iinfo(target.dtype)
        if not held.min <= ignore_index <= held.max:
            return torch.ones_like(target, dtype=torch.bool)
    return target != ignore_index


def taken_classes(
    target: Tensor, classes: int | None, ignore_index: int | None, *, name: str = "target"
) -> tuple[Tensor, Tensor | None]:
    """Class indices as int64, 0 where they are ignored; and where they are not, None: nowhere.

    Without a number of ``classes`` their range is left to the caller.
    """
    seen = classes is not None and check_classes(target, classes, ignore_index, name=name)
    if seen or ignore_index is None:
        return target.long(), None
    keep = kept(target, ignore_index)
    return (target * keep).long(), keep


def check_binary(target: Tensor, ignore_index: int | None) -> None:
    """Refuse targets other than 0 and 1, where looking costs no host sync: eager mode on CPU."""
    if target.dtype == torch.bool:
        return
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
