"""A linear head, and the sizes of the pieces that it is cut into.

On a CPU a chunk's logits are read in blocks that fit the cache. On an accelerator a piece should
be large: a chunk takes as many tokens as a hidden state has numbers, so that its logits are as many
numbers as the head and its products are bound by arithmetic; a block's kernels outlast their
launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, dtype

from aptt.core.memory import fresh_like

__all__ = [
    "Gradients",
    "Head",
    "Wants",
    "block_of",
    "chunk_of",
    "on_accelerator",
    "part_of",
    "room_for",
    "slices",
]


class Head(NamedTuple):
    """Hidden states ``(N, D)`` and what turns them into logits ``(N, V)``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None


Gradients = list[Tensor | None]
"""Of the hidden states, the weight and the bias; None where it is not wanted."""

Wants = Sequence[bool]
"""Which of them are."""


_BLOCK, _PART = 2**18, 2**22  # on a CPU
_LARGE_BLOCK, _LARGE_PART = 2**25, 2**24  # on an accelerator: 128 and 64 MiB of float32


def on_accelerator(t: Tensor) -> bool:
    """Whether pieces should be large and kernels few."""
    return t.device.type != "cpu"


def chunk_of(hidden: Tensor) -> int:
    """Tokens in a chunk; on an accelerator D, at most 4096.

    On a CPU their logits take nearly a quarter of the memory of the weight. Each chunk reads the
    weight once more, and reads and writes its gradient: fewer tokens feel it (measured at D = 1024:
    1.3x the products alone with 128 tokens, 1.2x with 256, 1.1x with 384).
    """
    size = hidden.shape[1]
    return max(min(size, 4096) if on_accelerator(hidden) else size * 15 // 64, 64)


def block_of(t: Tensor) -> int:
    """Logits that are computed with at once: they fit the cache, or outlast a kernel's launch."""
    return _LARGE_BLOCK if on_accelerator(t) else _BLOCK


def part_of(t: Tensor) -> int:
    """Numbers in a part of the weight, or of the logits that are cut by vocabulary."""
    return _LARGE_PART if on_accelerator(t) else _PART


def slices(n: int, step: int) -> Iterator[slice]:
    """``range(n)`` in pieces of ``step``."""
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def room_for(head: Head, wants: Wants, dtypes: Sequence[dtype]) -> Gradients:
    """Memory for the gradients that are wanted, with arbitrary content."""
    return [
        fresh_like(t, dtype) if want and t is not None else None
        for t, want, dtype in zip(head, wants, dtypes, strict=True)
    ]
