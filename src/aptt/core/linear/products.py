"""What the products of a head are taken in.

Both factors have one dtype: that of autocast, else one that holds them. A product of float32 or
float64 comes out as what it is. One of a half type would be rounded on the way out, unless the
device can return it in float32, as it was summed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aptt.core.linear.head import Head

__all__ = ["Multiply", "dtype_of_products", "product_in_float32", "product_of"]

Multiply = Callable[[Tensor, Tensor, Tensor], object]
"""``product(a, b, out)`` writes ``a @ b`` over ``out``."""


def product_in_float32(device: torch.device) -> Multiply | None:
    """The product of two matrices of a half type, returned in float32; None: there is none."""
    cuda = device.type == "cuda" and torch.version.hip is None
    return _mm if cuda and hasattr(torch.ops.aten.mm, "dtype_out") else None  # torch 2.8


def product_of(dtype: torch.dtype, device: torch.device) -> Multiply | None:
    """How factors of a half type are multiplied without rounding; None: as any others are."""
    return product_in_float32(device) if dtype in (torch.bfloat16, torch.float16) else None


def _mm(a: Tensor, b: Tensor, out: Tensor) -> None:
    torch.mm(a, b, out_dtype=torch.float32, out=out)


def dtype_of_products(head: Head) -> torch.dtype:
    """What both factors are rounded to: what autocast says, else what holds both.

    float16 is too narrow for logits, and gives way to float32 where they would come out as such.
    """
    device = head.hidden.device
    dtype = torch.promote_types(head.hidden.dtype, head.weight.dtype)
    if dtype != torch.float64 and device.type != "meta" and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    narrow = dtype == torch.float16 and product_of(dtype, device) is None
    return torch.float32 if narrow else dtype
