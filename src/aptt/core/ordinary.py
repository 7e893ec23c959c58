"""Which tensors are ordinary: torch's own, with values. The one place that asks, and makes some."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

__all__ = [
    "CLASSES",
    "apart",
    "bare",
    "batched",
    "inside_functorch",
    "is_readable",
    "is_spread",
    "ordinary",
    "placed",
    "real_device",
]

CLASSES: set[type] = {Tensor, torch.nn.Parameter}
"""Torch's own; whoever has a device in Python, whose tensors are of a class, adds it."""


def ordinary(t: Tensor) -> bool:
    """Whether a tensor is of torch's own class, or of one that only adds to it, and has values."""
    return (type(t) in CLASSES or _adds(type(t))) and not t.is_meta


def _adds(kind: type) -> bool:
    """Whether a class has torch's operators as they are: MONAI's MetaTensor, torchvision's."""
    dispatch: object = getattr(kind, "__torch_dispatch__", None)
    return dispatch is Tensor.__torch_dispatch__


def bare(t: Any) -> Any:
    """A tensor that autograd holds, without what its class adds; anything else as it is.

    What was made under ``inference_mode`` is copied: a teacher's logits, as a rule.
    """
    if not isinstance(t, Tensor) or torch.compiler.is_compiling():
        return t
    if type(t) not in CLASSES and _adds(type(t)):
        t = t.as_subclass(Tensor)
    if t.is_inference() and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        return t.clone()
    return t


def is_spread(t: object) -> bool:
    """Whether it is a ``DTensor``, whose numbers are on several ranks.

    Known by its name: torch.distributed is not imported for those who do without.
    """
    return type(t).__name__ == "DTensor"


def placed(t: Tensor) -> str:
    """How a ``DTensor`` is placed, as the call that places it so."""
    placements: Any = getattr(t, "placements", ())
    return f"({', '.join(map(repr, placements))})"


@contextmanager
def apart(device: torch.device | str = "cpu") -> Iterator[None]:
    """Make ordinary tensors on ``device``, whatever mode or default device is set around.

    What is made in here may be kept: a fake tensor, one on ``"meta"`` or one of inference mode
    would break whoever comes later. Not for traced code.
    """
    with torch.inference_mode(False), _disable_current_modes(), torch.device(device):
        yield


def real_device() -> torch.device:
    """Where to make what must have values: the default device, unless that is ``"meta"``."""
    default = torch.get_default_device()
    return torch.device("cpu") if default.type == "meta" else default


def inside_functorch() -> bool:
    """Whether a ``torch.func`` transform is running, under a compiler too.

    An isolated look at a private name; the others that know it cannot be traced.
    """
    return bool(torch._C._are_functorch_transforms_active())


def is_readable(t: Tensor) -> bool:
    """Whether looking at values is free: ordinary, on the CPU, outside of any transform."""
    return (
        not torch.compiler.is_compiling()
        and t.is_cpu
        and ordinary(t)
        and t.numel() > 0
        and not inside_functorch()
    )


def batched(up: Tensor) -> bool:
    """Whether several upstream gradients come at once, by ``vmap`` or ``is_grads_batched``."""
    return inside_functorch() or torch._C._functorch.is_legacy_batchedtensor(up)
