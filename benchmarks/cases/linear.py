"""The loss head: hidden states and a head's weight in, the loss and both gradients out.

The prediction of these cases is the weight, the larger of the two that are learned. The hidden
states are made with it, and add their gradients up from call to call.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss

__all__ = ["CASES"]

_STATES: list[Tensor] = []  # of the case that is being measured


def _inputs(size: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    classes, width = size
    tokens = 2 * width
    _STATES[:] = [torch.randn(tokens, width).to(dtype).requires_grad_()]
    weight = (torch.randn(size) / width**0.5).to(dtype)
    return weight, torch.randint(classes, (tokens,))


def _on_states(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], Loss]:
    """``loss(hidden, weight, target)`` as a loss of the weight."""
    return lambda: lambda weight, target: loss(_STATES[0], weight, target)


def _whole(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), target)


def _torch_chunks() -> Loss:
    if not hasattr(F, "linear_cross_entropy"):
        raise ImportError("F.linear_cross_entropy comes with torch 2.13")
    options = torch.nn.LinearCrossEntropyOptions()
    return _on_states(lambda h, w, y: F.linear_cross_entropy(h, w, y, options=options))()


def _liger() -> Loss:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    return _on_states(lambda h, w, y: loss(w, h, y))()


def _cut() -> Loss:
    from cut_cross_entropy import linear_cross_entropy

    return _on_states(linear_cross_entropy)()


def _contenders(tolerance: float, chunked: float) -> tuple[Contender, ...]:
    return (
        Contender(OURS, _on_states(aptt.loss.linear_cross_entropy)),
        Contender("whole logits", _on_states(_whole), tolerance=tolerance),
        Contender("whole logits, compiled", _on_states(_whole), compiled=True, tolerance=tolerance),
        Contender("F.linear_cross_entropy, chunks", _torch_chunks, tolerance=chunked),
        Contender("Liger", _liger, tolerance=chunked, device="cuda"),
        Contender("cut-cross-entropy", _cut, tolerance=chunked, device="cuda"),
    )


CASES = (
    Case(
        "linear_cross_entropy",
        "linear_cross_entropy",
        lambda size: _inputs(size, torch.float32),
        size=(32000, 1024),
        quick=(2048, 16),
        contenders=_contenders(1e-3, 1e-3),
    ),
    Case(
        "linear_cross_entropy_bf16",
        "linear_cross_entropy",
        lambda size: _inputs(size, torch.bfloat16),
        size=(32000, 1024),
        large=(151_936, 4096),
        quick=(2048, 16),
        # logits and their gradient are rounded to bfloat16 by all; torch's chunks are summed in it
        contenders=_contenders(2**-4, 2**-2),
    ),
)
