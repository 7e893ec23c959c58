"""Fresh memory for a gradient, in large pages where the system gives them; and small constants."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

from aptt.core.ordinary import apart

__all__ = ["brought", "fresh_like", "keep_pages"]

_PAGE = 2**21  # a large page on Linux, x86 and most ARM
_LARGE_PAGES = 14  # MADV_HUGEPAGE in Linux' <sys/mman.h>


def brought(values: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of a few numbers, where ``like`` is; the host does not wait for them to arrive."""
    held = torch.tensor(values, dtype=dtype, device="cpu")
    return held.to(like.device, non_blocking=like.device.type != "mps")  # it reads them later


def fresh_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``torch.empty_like(x, dtype=dtype)``, in large pages if it is large and on a Linux CPU.

    The first write to a page of 4 KiB costs more than the write itself: up to half of the time of
    a gradient that does not fit the cache. Asking is advice on memory of our own, and may be
    ignored; torch asks for all of its memory where ``THP_MEM_ALLOC_ENABLE=1`` is set.
    """
    fresh = torch.empty_like(x, dtype=dtype)
    if fresh.nbytes >= 4 * _PAGE and fresh.device.type == "cpu" and (libc := _libc()) is not None:
        start = fresh.data_ptr()
        first, end = -(-start // _PAGE) * _PAGE, (start + fresh.nbytes) // _PAGE * _PAGE
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _LARGE_PAGES)
    return fresh


@cache
def keep_pages() -> None:
    """Have memory that a block gives back serve the next one.

    glibc returns what is free at the end of its heap to the system, from twice the size of the
    largest piece that it has seen, and a block's temporaries are then faulted in page by page once
    more: 1.3x the time of Dice. One piece of nearly 32 MB, the most that counts, settles that.
    """
    with apart():
        torch.empty(2**25 - 2**16, dtype=torch.uint8)


@cache
def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "madvise") else None
