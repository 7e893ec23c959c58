"""Memory of this process: what a graph holds, and the resident set's high-water mark.

The mark, which the system keeps, counts whatever was touched: tensors, compiled code's buffers, a
library's scratch. Linux only; elsewhere the answer is ``None``. On CUDA the allocator keeps it.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["held", "peak_extra", "release"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_extra(call: Callable[[], object], device: torch.device | None = None) -> int | None:
    """How many bytes the process grows by, at most, while ``call`` runs; or the device does."""
    gc.collect()
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if device is not None and device.type != "cpu":
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is to be faulted in again, and counted
        _CLEAR.write_text("5")  # sets the high-water mark to what is resident now
        before = _kilobytes("VmRSS")
        call()
        return 1024 * max(_kilobytes("VmHWM") - before, 0)
    except (OSError, AttributeError):
        return None


def release(device: torch.device) -> None:
    """Give memory that an accelerator's allocator keeps to whoever works next."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def held(forward: Callable[[], Tensor], *inputs: Tensor) -> int:
    """How many bytes a forward pass saves for backward, in memory that is not the inputs'."""
    known = {t.untyped_storage().data_ptr() for t in inputs}
    found: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value = forward()
    size = sum(found.values())
    del value
    return size


def _kilobytes(name: str) -> int:
    line = next(row for row in _STATUS.read_text().splitlines() if row.startswith(f"{name}:"))
    return int(line.split()[1])
