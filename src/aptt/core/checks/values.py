"""What a tensor holds, looked at where that costs no host sync: in eager mode on the CPU alone.

The rule for weights, of classes, elements, boxes and samples, and for what multiplies like them
(``pos_weight``, ``alpha``): finite, and at least 0, of any size. A share is in [0, 1] besides:
the sigmoid focal loss weighs negatives by ``1 - alpha``. What is ignored may weigh anything.
:func:`check_weights` holds numbers, lists, arrays and tensors to it, in functions and in modules.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from aptt.core.checks.options import check_index
from aptt.core.ordinary import apart, bare, inside_functorch, is_readable

__all__ = [
    "INDEX_DTYPES",
    "assert_range",
    "check_binary",
    "check_boxes",
    "check_classes",
    "check_range",
    "check_shares",
    "check_some",
    "check_weight",
    "check_weights",
    "kept",
    "looking",
    "taken_classes",
]

INDEX_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


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


def assert_range(name: str, numbers: Tensor, low: float, high: float, *, wanted: str) -> None:
    """Inside ``torch.compile``, have the graph refuse numbers that would be no index.

    What came is not known there, and to name a limit would compile anew for each.
    """
    if torch.compiler.is_compiling() and not inside_functorch():
        inside = (numbers >= low) & (numbers <= high)
        torch._assert_async(inside.all(), f"{name}: got a number out of range, wanted {wanted}")


def check_shares(target: Tensor, keep: Tensor | None, *, name: str = "target") -> None:
    """Refuse soft targets that are no shares, among those that count; in eager mode on CPU.

    A share is finite and at least 0. What the shares of a position add up to is left open: it is
    what the position weighs.
    """
    if not is_readable(target):
        return
    with looking(target):
        least, most = (v.item() for v in target.detach().aminmax())
    if least >= 0 and most != math.inf:
        return
    wrong = ~((target >= 0) & (target != math.inf))
    if keep is not None:
        wrong &= (keep != 0).unsqueeze(1)
    if wrong.any():
        raise ValueError(
            f"{name}: got a share of {target[wrong][0].item()}, wanted soft targets that are "
            "finite and at least 0: what the shares of a position add up to is what it weighs"
        )


def check_some(name: str, numbers: Tensor) -> None:
    """Refuse numbers that are all 0, of which nothing could be learned; in eager mode on CPU."""
    if is_readable(numbers) and not bool(numbers.any()):
        raise ValueError(f"{name}: got nothing but 0, wanted some number that is not")


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
    axes = t.shape[1] // 2  # an angle follows
    size = t[:, axes : 2 * axes]
    size = size - t[:, :axes] if ordered else size
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
    target = bare(target)
    check_index(ignore_index=ignore_index)
    seen = classes is not None and check_classes(target, classes, ignore_index, name=name)
    if seen or ignore_index is None:
        return target.long(), None
    keep = kept(target, ignore_index)
    return (target * keep).long(), keep


def check_binary(target: Tensor, ignore_index: int | None, *, keep: Tensor | None = None) -> None:
    """Refuse targets other than 0 and 1, where looking costs no host sync: eager mode on CPU.

    Those that ``keep`` leaves out are anything.
    """
    if target.dtype == torch.bool:
        return
    if not is_readable(target):
        return
    size = 2**17  # small enough to stay in the cache
    for part in (target,) if target.numel() <= size else target.reshape(-1).split(size):
        low, high = (v.item() for v in part.aminmax())
        inside = low >= 0 and high <= 1
        if inside and not (part.is_floating_point() and part.frac().sum().item() > 0):
            continue
        wrong = (part != 0) & (part != 1)
        if ignore_index is not None:
            wrong &= kept(part, ignore_index)
        if keep is not None and wrong.any():
            check_binary(torch.where(keep, target, 0), ignore_index)
            return
        if wrong.any():
            raise ValueError(
                f"target: got {part[wrong][0].item()}, wanted 0 or 1"
                + ("" if ignore_index is None else f" or ignore_index={ignore_index}")
                + "; for soft labels there is quality_focal_loss"
            )
