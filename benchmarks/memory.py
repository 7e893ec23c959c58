"""Memory of this process, from the kernel: resident set now, and its high-water mark.

The mark counts whatever was touched: tensors, compiled code's buffers, a library's scratch. Linux
only; elsewhere the answer is ``None``.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

__all__ = ["peak_extra"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_extra(call: Callable[[], object]) -> int | None:
    """How many bytes the process grows by, at most, while ``call`` runs."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is to be faulted in again, and counted
        _CLEAR.write_text("5")  # sets the high-water mark to what is resident now
        before = _kilobytes("VmRSS")
        call()
        return 1024 * max(_kilobytes("VmHWM") - before, 0)
    except (OSError, AttributeError):
        return None


def _kilobytes(name: str) -> int:
    line = next(row for row in _STATUS.read_text().splitlines() if row.startswith(f"{name}:"))
    return int(line.split()[1])
