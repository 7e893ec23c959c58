"""In which precision a loss computes, and in which it adds up.

wide, widen          the dtype of a computation: float32 for half types, else the same
widest, to_widest    that of sums: float64, or float32 where the device has no more
by_itself            not in autocast's
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["by_itself", "to_widest", "wide", "widen", "widest"]

_AS_IT_IS = nullcontext()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the computation: float32 for half types, else the same."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widen(x: Tensor) -> Tensor:
    """``x`` in the dtype of the computation."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def widest(x: Tensor) -> torch.dtype:
    """The widest float that the device has: any square fits, and sums may cancel."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def to_widest(x: Tensor) -> Tensor:
    """``x`` in the widest float that its device has."""
    return x.to(widest(x))


def by_itself(x: Tensor) -> AbstractContextManager[object]:
    """In the precision that was chosen for ``x``, not in autocast's."""
    kind = "cpu" if x.is_cpu else x.device.type  # the name of a device takes its time
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # autocast knows nothing of meta
        return _AS_IT_IS
    return torch.autocast(kind, enabled=False)
