"""Gradients of single terms, at the tensors that a balancer or a report compares them at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["At", "Parts", "gradients_at", "slopes_at", "square"]

Parts = Sequence[Tensor | None]
"""The values one by one; None is a term that this batch does not have."""
At = Tensor | Sequence[Tensor]
"""Where gradients are compared: one tensor or several, taken as one."""


def slopes_at(names: Sequence[str], parts: Parts, at: At, like: Tensor) -> tuple[Tensor, Tensor]:
    """Of each term: the squared norm of its gradient at features; its gradient at parameters."""
    places = [at] if isinstance(at, Tensor) else list(at)
    squares, shared = [], []
    for name, value in zip(names, parts, strict=True):
        gradients: list[Tensor | None] = [None] * len(places)
        if value is not None and value.requires_grad:
            gradients = gradients_at(value, at)
            if all(part is None for part in gradients):
                raise ValueError(f"at: term {name!r} does not depend on it")
        pairs = list(zip(gradients, places, strict=True))
        squares.append(
            square([g for g, place in pairs if not isinstance(place, nn.Parameter)], like)
        )
        flat = [
            (torch.zeros_like(place) if g is None else g).reshape(-1).to(like.dtype)
            for g, place in pairs
            if isinstance(place, nn.Parameter)
        ]
        shared.append(torch.cat(flat) if flat else like.new_zeros(0))
    return torch.stack(squares), torch.stack(shared)


_LIFT = 2.0**15  # the greatest power of 2 that float16 has


def gradients_at(value: Tensor, at: At) -> list[Tensor | None]:
    """The gradient of ``value`` at each tensor of ``at``; the graph stays for ``backward``.

    Half precision has no GradScaler here, so its small gradients are kept from underflow, unless
    that makes others overflow.
    """
    places = [at] if isinstance(at, Tensor) else list(at)
    for place in places:
        if not place.requires_grad:
            raise ValueError(f"at: a tensor of shape {tuple(place.shape)} requires no gradient")
    half = any(place.dtype == torch.float16 for place in places)
    for lift in (_LIFT, 1.0) if half else (1.0,):
        up = torch.full_like(value, lift)
        found = torch.autograd.grad(value, places, up, retain_graph=True, allow_unused=True)
        parts = [part for part in found if part is not None]
        if lift == 1 or all(bool(part.isfinite().all()) for part in parts):
            break
    return [part if lift == 1 or part is None else part.float() / lift for part in found]


def square(gradients: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """The squared norm of several tensors taken as one, in the dtype of ``like``."""
    total = like.new_zeros(())
    for part in gradients:
        if part is not None:
            wide = torch.promote_types(part.dtype, torch.float32)
            total = total + torch.linalg.vector_norm(part, dtype=wide).to(like.dtype).square()
    return total
