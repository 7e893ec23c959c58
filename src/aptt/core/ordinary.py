"""Which tensors are ordinary: torch's own, with values. The one place that asks."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CLASSES", "inside_functorch", "is_readable", "ordinary"]

CLASSES: set[type] = {Tensor, torch.nn.Parameter}
"""Torch's own; whoever has a device in Python, whose tensors are of a class, adds it."""


def ordinary(t: Tensor) -> bool:
    """Whether a tensor is of torch's own class, and has values."""
    return type(t) in CLASSES and t.device.type != "meta"


def inside_functorch() -> bool:
    """Whether a ``torch.func`` transform is running, under a compiler too.

    An isolated look at a private name; the others that know it cannot be traced.
    """
    return bool(torch._C._are_functorch_transforms_active())


def is_readable(t: Tensor) -> bool:
    """Whether looking at values is free: ordinary, on the CPU, outside of any transform."""
    return (
        not torch.compiler.is_compiling()
        and ordinary(t)
        and t.device.type == "cpu"
        and t.numel() > 0
        and not inside_functorch()
    )
