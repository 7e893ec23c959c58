"""Checks of options and values: errors that say what came and what was wanted.

Values are looked at in eager mode on the CPU alone, where that costs no host sync.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.ordinary import is_readable

__all__ = [
    "INDEX_DTYPES",
    "check_binary",
    "check_boxes",
    "check_choice",
    "check_chunk",
    "check_classes",
    "check_floating",
    "check_indices",
    "check_number",
    "check_numbers",
    "check_positive",
    "check_range",
    "check_real",
    "check_tensors",
    "check_weights",
    "check_whole",
    "kept",
    "taken_classes",
]

INDEX_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_tensors(**tensors: object) -> None:
    """Refuse what is not a tensor."""
    for name, t in tensors.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: got {type(t).__name__}, wanted a tensor")


def check_floating(**tensors: Tensor) -> None:
    """Refuse predictions that are not real floating point."""
    check_tensors(**tensors)
    for name, t in tensors.items():
        if not t.is_floating_point():
            raise TypeError(f"{name}: got {t.dtype}, wanted a floating dtype")


def check_real(**tensors: Tensor) -> None:
    """Refuse complex numbers, whose imaginary part a conversion would drop."""
    check_tensors(**tensors)
    for name, t in tensors.items():
        if t.is_complex():
            raise TypeError(f"{name}: got {t.dtype}, wanted real numbers")


def check_numbers(**tensors: Tensor) -> None:
    """Refuse what answers yes or no, too."""
    check_real(**tensors)
    for name, t in tensors.items():
        if t.dtype == torch.bool:
            raise TypeError(f"{name}: got {t.dtype}, wanted real numbers")


def check_indices(**tensors: Tensor) -> None:
    """Refuse targets that are not indices."""
    check_tensors(**tensors)
    for name, t in tensors.items():
        if t.dtype not in INDEX_DTYPES:
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
    """Refuse weights below 0 and those that are not finite; in eager mode on CPU."""
    for name, t in weights.items():
        if not is_readable(t):
            continue
        wrong = ~((t >= 0) & (t < math.inf))
        if bool(wrong.any()):
            raise ValueError(
                f"{name}: got {t[wrong][0].item()}, wanted finite numbers of at least 0"
            )


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
    target: Tensor, classes: int | None, ignore_index: int, *, name: str = "target"
) -> tuple[Tensor, Tensor | None]:
    """Class indices as int64, 0 where they are ignored; and where they are not, None: nowhere.

    Without a number of ``classes`` their range is left to the caller.
    """
    if classes is not None and check_classes(target, classes, ignore_index, name=name):
        return target.long(), None
    keep = kept(target, ignore_index)
    return (target * keep).long(), keep


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
