"""A loss with the signature of torchtitan's: logits of tokens, which may be a DTensor, to a loss.

``(pred, labels, global_valid_tokens) -> (loss, metrics)``: torchtitan counts the tokens of all
ranks and micro-batches, and switches FSDP's averaging of gradients off. With tensor parallelism
``pred`` is a DTensor whose vocabulary is spread over ranks, and stays so.

python examples/plug_torchtitan.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.loss import cross_entropy
from aptt.parallel import count_mean, sharded


class SmoothedLoss:
    """Cross-entropy with a z-loss and smoothing; ``torchtitan.components.loss.BaseLoss`` fits."""

    def __init__(self, label_smoothing: float = 0.0, z_loss: float = 1e-4) -> None:
        self.options: dict[str, Any] = {"label_smoothing": label_smoothing, "z_loss": z_loss}

    def __call__(
        self,
        pred: Tensor,
        labels: Tensor,
        global_valid_tokens: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share in the mean over all tokens of the step."""
        mean = "sum" if global_valid_tokens is None else count_mean(global_valid_tokens)
        loss = sharded(cross_entropy)(pred, labels, reduction=mean, class_dim=-1, **self.options)
        return loss, {}


def main() -> float:
    """Ragged micro-batches, against all tokens at once: how far their gradients are apart."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(24, 11, generator=g, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(11, (24,), generator=g)
    labels[:7] = -100
    loss_fn, tokens = SmoothedLoss(), (labels != -100).sum()
    (whole,) = torch.autograd.grad(cross_entropy(logits, labels, z_loss=1e-4), logits)
    parts = [slice(0, 9), slice(9, 10), slice(10, 24)]
    loss = sum(loss_fn(logits[part], labels[part], tokens)[0] for part in parts)
    assert isinstance(loss, Tensor)
    (split,) = torch.autograd.grad(loss, logits)
    apart = (split - whole).abs().max().item()
    print(f"loss {loss:.4f}, gradients apart by {apart:.1e}")
    return apart


if __name__ == "__main__":
    main()
