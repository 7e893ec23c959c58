"""The loss head: hidden states and a head's weight in, the loss and both gradients out.

The prediction of these cases is the weight, the larger of the two that are learned.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss

__all__ = ["CASES"]

TOKENS = {1024: 2048, 16: 64}  # by the size of a hidden state


def _inputs(size: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    classes, width = size
    return torch.randn(size, dtype=dtype) / width**0.5, torch.randint(classes, (TOKENS[width],))


def _on_states(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Loss:
    """``loss(hidden, weight, target)`` with hidden states of its own, which take a gradient too."""
    held: list[Tensor] = []

    def on_states(weight: Tensor, target: Tensor) -> Tensor:
        if not held:
            g = torch.Generator().manual_seed(1)
            states = torch.randn(len(target), weight.shape[1], generator=g).to(weight.dtype)
            held.append(states.requires_grad_())
        held[0].grad = None
        return loss(held[0], weight, target)

    return on_states


def _whole(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), target)


def _compiled() -> Loss:
    whole = torch.compile(_whole, fullgraph=True, dynamic=False)
    return _on_states(whole)


def _torch_chunks() -> Loss:
    if not hasattr(F, "linear_cross_entropy"):
        raise ImportError("F.linear_cross_entropy comes with torch 2.13")
    options = torch.nn.LinearCrossEntropyOptions()
    return _on_states(lambda h, w, y: F.linear_cross_entropy(h, w, y, options=options))


def _contenders(tolerance: float, chunked: float) -> tuple[Contender, ...]:
    return (
        Contender(OURS, lambda: _on_states(aptt.loss.linear_cross_entropy)),
        Contender("F.linear, F.cross_entropy", lambda: _on_states(_whole), tolerance=tolerance),
        Contender("the same, compiled", _compiled, tolerance=tolerance),
        Contender("F.linear_cross_entropy, chunks", _torch_chunks, tolerance=chunked),
    )


CASES = (
    Case(
        "linear_cross_entropy",
        "linear_cross_entropy",
        lambda size: _inputs(size, torch.float32),
        size=(32000, 1024),
        quick=(512, 16),
        contenders=_contenders(1e-3, 1e-3),
    ),
    Case(
        "linear_cross_entropy_bf16",
        "linear_cross_entropy",
        lambda size: _inputs(size, torch.bfloat16),
        size=(32000, 1024),
        quick=(512, 16),
        # logits and their gradient are rounded to bfloat16 by all; torch's chunks are summed in it
        contenders=_contenders(2**-4, 2**-2),
    ),
)
