"""Tensors: made of lists and arrays, and held to a kind of number and to one device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from numbers import Real
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from aptt.core.checks.options import check_number
from aptt.core.checks.values import INDEX_DTYPES, check_weight
from aptt.core.ordinary import apart, bare, inside_functorch, is_spread, placed, real_device

__all__ = [
    "Array",
    "Numbers",
    "as_factor",
    "as_floats",
    "as_tensor",
    "as_weight",
    "check_each",
    "check_floating",
    "check_indices",
    "check_numbers",
    "check_tensors",
]


class Array(Protocol):
    """What NumPy computes with."""

    def __array__(self) -> Any:
        """Its numbers."""


_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # of masks in 16-bit pictures

Numbers: TypeAlias = Tensor | Sequence[float] | Array
"""What serves as a tensor of numbers; :func:`as_tensor` makes one of it."""


def as_tensor(name: str, values: object, like: Tensor | None = None) -> Tensor:
    """A tensor as it is; a list or an array as one, on the device of ``like``.

    Floats have the precision in which ``like`` is computed with. Complex numbers are refused, as
    :func:`check_tensors` does.
    """
    if isinstance(values, Tensor):
        _check_real(name, values)
        return _signed(bare(values))
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
    return _signed(made)


def _signed(t: Tensor) -> Tensor:
    """Whole numbers of a dtype that torch hardly computes with, in one that it does."""
    return t.long() if t.dtype in _UNSIGNED else t


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
        value = value if isinstance(value, bool) else float(value)  # NumPy's are told as numbers
        check_number(name, value, 0.0, high)
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
        elif t.device != device and (t.ndim or not t.is_cpu):
            raise ValueError(
                f"{name}: got a tensor on {t.device}, wanted it on {device}, where {first} is; "
                f"move it with {name}.to({first}.device), or a module that holds it with .to(...)"
            )


def check_each(name: str, tensors: object, **beside: Tensor) -> None:
    """Refuse what is not a sequence of tensors, one an image, each of them as above.

    They are to be on the device of what is named ``beside``.
    """
    if isinstance(tensors, str) or not isinstance(tensors, Sequence):
        raise TypeError(
            f"{name}: got {type(tensors).__name__}, wanted a tensor, or a list, one an image"
        )
    for i, t in enumerate(tensors):
        check_tensors(**beside, **{f"{name}[{i}]": t})


def _check_real(name: str, t: Tensor) -> None:
    if is_spread(t):
        raise TypeError(
            f"{name}: got a DTensor placed as {placed(t)}, wanted a plain tensor; "
            "aptt.parallel.sharded(loss) takes what this loss takes, as DTensors"
        )
    if t.is_complex():
        raise TypeError(f"{name}: got {t.dtype}, wanted real numbers")
    if t.is_nested:
        raise TypeError(
            f"{name}: got a nested tensor, wanted one of a shape: {name}.to_padded_tensor(0.0), "
            "with weights, a mask or lengths that leave out what is padding"
        )
    if t.layout is not torch.strided:
        raise TypeError(f"{name}: got {t.layout}, wanted a dense tensor: {name}.to_dense()")
    if t.is_floating_point() and t.dtype.itemsize == 1:
        raise TypeError(f"{name}: got {t.dtype}, wanted float16 or wider: {name}.float()")


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
            cure = f": {name}.long()" if t.dtype in _UNSIGNED else ""
            raise TypeError(f"{name}: got {t.dtype}, wanted indices of an integer dtype{cure}")
