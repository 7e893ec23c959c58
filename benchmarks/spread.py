"""``python -m benchmarks.spread``: a head spread over ranks, memory of a rank and the difference.

Each way to the same loss runs on 1, 2 and 4 processes: how much a rank grows by at most, forward
and backward, over the head and the hidden states that it holds; and in float64, on a smaller head,
how far the loss and all gradients are from those of one process.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributed as dist

from aptt.audit.ranks import in_a_world
from aptt.loss import cross_entropy as of_logits
from aptt.loss import distillation_loss, linear_cross_entropy, linear_distillation_loss
from aptt.parallel import (
    replicated,
    vocab_parallel_cross_entropy,
    vocab_parallel_distillation_loss,
    vocab_parallel_linear_cross_entropy,
    vocab_parallel_linear_distillation_loss,
)
from benchmarks.memory import peak_extra

TOKENS, SIZE, CLASSES = 2048, 256, 16384
WORLDS = (1, 2, 4)

Way = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _logits(h: Tensor, w: Tensor, y: Tensor, th: Tensor, tw: Tensor) -> Tensor:
    return vocab_parallel_cross_entropy(replicated(h) @ w.T, y)


def _linear(h: Tensor, w: Tensor, y: Tensor, th: Tensor, tw: Tensor) -> Tensor:
    return vocab_parallel_linear_cross_entropy(h, w, y)


def _distilled_logits(h: Tensor, w: Tensor, y: Tensor, th: Tensor, tw: Tensor) -> Tensor:
    return vocab_parallel_distillation_loss(replicated(h) @ w.T, th @ tw.T, hard_targets=y)


def _distilled(h: Tensor, w: Tensor, y: Tensor, th: Tensor, tw: Tensor) -> Tensor:
    return vocab_parallel_linear_distillation_loss(h, w, th, tw, hard_targets=y)


WAYS: dict[str, tuple[Way, Way]] = {
    "vocab_parallel_cross_entropy": (_logits, lambda h, w, y, th, tw: of_logits(h @ w.T, y)),
    "vocab_parallel_linear_cross_entropy": (
        _linear,
        lambda h, w, y, th, tw: linear_cross_entropy(h, w, y),
    ),
    "vocab_parallel_distillation_loss": (
        _distilled_logits,
        lambda h, w, y, th, tw: distillation_loss(h @ w.T, th @ tw.T, hard_targets=y),
    ),
    "vocab_parallel_linear_distillation_loss": (
        _distilled,
        lambda h, w, y, th, tw: linear_distillation_loss(h, w, th, tw, hard_targets=y),
    ),
}
"""Each with the loss of one process."""


def _inputs(n: int, size: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    h, w, th, tw = (torch.randn(k, size, generator=g, dtype=dtype) for k in (n, classes) * 2)
    return h, w / size**0.5, torch.randint(classes, (n,), generator=g), th, tw / size**0.5


def rank(name: str) -> tuple[int, float]:
    """What one rank grows by, in bytes; and the largest difference from one process."""
    spread, whole = WAYS[name]
    me, world = dist.get_rank(), dist.get_world_size()
    h, w, y, th, tw = _inputs(TOKENS, SIZE, CLASSES, torch.float32)
    own = slice(CLASSES * me // world, CLASSES * (me + 1) // world)
    h, w, tw = h.requires_grad_(), w[own].clone().requires_grad_(), tw[own].clone()
    bytes_more = peak_extra(lambda: spread(h, w, y, th, tw).backward())

    h, w, y, th, tw = _inputs(64, 16, 257, torch.float64)
    own = slice(257 * me // world, 257 * (me + 1) // world)
    one, other = (
        (h.clone().requires_grad_(), w.clone().requires_grad_()),
        (
            h.clone().requires_grad_(),
            w[own].clone().requires_grad_(),
        ),
    )
    want, got = whole(*one, y, th, tw), spread(*other, y, th, tw[own])
    want.backward()
    got.backward()
    assert one[0].grad is not None
    assert one[1].grad is not None
    pairs = ((got, want), (other[0].grad, one[0].grad), (other[1].grad, one[1].grad[own]))
    apart = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs if a is not None)
    return bytes_more or 0, apart


def main() -> None:
    """Print the table."""
    print(
        "| | " + " | ".join(f"{world} rank{'s' * (world > 1)}" for world in WORLDS) + " | apart |"
    )
    print("| --- |" + " --- |" * (len(WORLDS) + 1))
    for name in WAYS:
        cells, apart = [], 0.0
        for world in WORLDS:
            found = in_a_world(world, rank, name)
            cells.append(f"{max(b for b, _ in found) / 2**20:.0f} MiB")
            apart = max(apart, *(a for _, a in found))
        print(f"| `{name}` | {' | '.join(cells)} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
