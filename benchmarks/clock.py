"""Time on any device: of the host on a CPU, between two events on an accelerator.

On a machine that others use, too, the wall clock says what they do. With ``--one-thread`` it is the
processor's time.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CLOCK", "bandwidth", "seconds"]

CLOCK = "APTT_BENCHMARK_CLOCK"
"""Where this is ``processor``, a CPU's time is what the process was given of it."""

_LEAST = 2**28  # bytes that are copied on an accelerator, so that no cache holds them


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, from its first operation to its last."""
    if device.type == "cpu":
        now = time.process_time if os.environ.get(CLOCK) == "processor" else time.perf_counter
        start = now()
        call()
        return now() - start
    there = torch.get_device_module(device)
    start, end = (there.Event(enable_timing=True) for _ in range(2))
    there.synchronize()
    start.record()
    call()
    end.record()
    there.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def bandwidth(like: Tensor) -> float:
    """Bytes a second that a copy reads and writes where a tensor lives, at its size or larger."""
    size = like.nbytes if like.device.type == "cpu" else max(like.nbytes, _LEAST)
    source = torch.zeros(size, dtype=torch.uint8, device=like.device)
    into = torch.zeros_like(source)
    taken = [seconds(lambda: into.copy_(source), like.device) for _ in range(6)]
    return 2 * size / statistics.median(taken[1:])
