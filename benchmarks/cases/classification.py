"""Cross-entropy: a classifier's logits in float32, and a language model's in bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss

__all__ = ["CASES"]


def _inputs(size: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.randn(size, dtype=dtype), torch.randint(size[1], size[:1])


def _liger() -> Loss:
    from liger_kernel.transformers import LigerCrossEntropyLoss

    loss = LigerCrossEntropyLoss()
    return lambda x, y: loss(x.clone(), y)  # it writes its gradient over the logits


def _in_float32(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), target)


CASES = (
    Case(
        "cross_entropy",
        "cross_entropy",
        lambda size: _inputs(size, torch.float32),
        size=(4096, 32000),
        quick=(64, 512),
        contenders=(
            Contender(OURS, lambda: aptt.loss.cross_entropy),
            Contender("F.cross_entropy", lambda: F.cross_entropy),
            Contender("F.cross_entropy, compiled", lambda: F.cross_entropy, compiled=True),
            Contender("Liger, of a copy", _liger, device="cuda"),
        ),
    ),
    Case(
        "cross_entropy_bf16",
        "cross_entropy",
        lambda size: _inputs(size, torch.bfloat16),
        size=(2048, 128256),
        quick=(64, 512),
        contenders=(
            Contender(OURS, lambda: aptt.loss.cross_entropy),
            # the gradient is rounded once, and may fall to the other side
            Contender(
                "F(x.float()), compiled", lambda: _in_float32, compiled=True, tolerance=2**-8
            ),
            Contender("F(x.float())", lambda: _in_float32, tolerance=2**-8),
            # the log-probabilities, 4 to 16 here, are rounded to steps of 2**-5 and more
            Contender("F.cross_entropy in bf16", lambda: F.cross_entropy, tolerance=2**-5),
            Contender("Liger, of a copy", _liger, device="cuda", tolerance=2**-5),
        ),
    ),
)
