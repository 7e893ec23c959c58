"""What inductor says of the code that it generates: kernels, and the bytes that they move."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

__all__ = ["Generated", "generated"]


@dataclass
class Generated:
    """The code of a call; None: nothing was compiled."""

    kernels: int | None = None
    traffic: int | None = None
    """Bytes that the kernels read and write, forward and backward."""


@contextmanager
def generated() -> Iterator[Generated]:
    """Count what is compiled inside, by inductor's own account."""
    from torch._inductor import metrics

    torch._logging.set_logs(inductor_metrics=True)  # it counts bytes for its log alone
    logging.getLogger("torch").handlers.clear()
    metrics.reset()
    found = Generated()
    yield found
    found.kernels, found.traffic = metrics.generated_kernel_count, metrics.num_bytes_accessed
