"""Whether a derivative is right, at a cost that hardly grows with what is differentiated.

``gradcheck`` moves each number by itself. Here all are moved at once, each up or down by the toss
of a coin, and the results are added up with signs likewise. If one element of the derivative is off
by some error, then in at least half of all such sums the whole is off by no less: turn the sign of
that element, and what the others add is on the other side of it. So :data:`SIGNS` sums, held to
what ``gradcheck`` grants to one element, miss once in 4,000 what it would find; and where one is
off, ``gradcheck`` itself decides, and says which element it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import gradcheck

from aptt.audit.figures import about
from aptt.audit.ways import in_blocks, plainly

__all__ = ["SIGNS", "is_right", "is_right_either_way"]

SIGNS = 12
_EACH = 1000  # numbers that gradcheck moves one by one; more of them in one random direction
_STEP, _OFF = 1e-6, 1e-5  # of gradcheck: how far it moves a number, and what it grants

Function = Callable[..., Tensor]


def is_right_either_way(function: Function, points: Sequence[Tensor], *, walks: bool) -> None:
    """Hold the derivative of a loss to its values; and in blocks to be the plain one, if it walks.

    Raises:
        GradcheckError: an ``AssertionError`` to pytest and to the audit, from ``gradcheck``.
    """
    with plainly():
        is_right(function, points)
        plain = _derivative(function, points) if walks else []
    if not walks:
        return
    with about("in blocks"), in_blocks():
        alike = all(map(_alike, _derivative(function, points), plain))
        gradcheck(function, points, fast_mode=alike or _many(points))


def is_right(function: Function, points: Sequence[Tensor]) -> None:
    """Hold the derivative of a function to central differences of its values."""
    if sum(p.numel() for p in points) <= SIGNS:
        gradcheck(function, points)
    elif _many(points):
        gradcheck(function, points, fast_mode=True)
    elif not (
        gradcheck(function, points, fast_mode=True, raise_exception=False)
        and _signs_agree(function, points)
    ):
        gradcheck(function, points)


def _many(points: Sequence[Tensor]) -> bool:
    return sum(p.numel() for p in points) > _EACH


def _signs_agree(function: Function, points: Sequence[Tensor]) -> bool:
    """Whether no sum over the derivative, with random signs, is off by what one element may be."""
    value, *slopes = _derivative(function, points)
    ups = _ups(value)
    for i in range(SIGNS):
        along = [_signs(p, 100 * (i + 1) + k) for k, p in enumerate(points)]
        ahead, behind = (
            function(*(_moved(p, s * _STEP * a) for p, a in zip(points, along, strict=True)))
            for s in (1, -1)
        )
        off = (ups * ((ahead - behind).detach() / (2 * _STEP))).reshape(len(ups), -1).sum(1)
        for slope, a in zip(slopes, along, strict=True):
            off -= (slope * a).reshape(len(ups), -1).sum(1)
        if not bool((off.abs() <= _OFF).all()):
            return False
    return True


def _moved(point: Tensor, by: Tensor) -> Tensor:
    return (point.detach() + by).requires_grad_(point.requires_grad)


def _derivative(function: Function, points: Sequence[Tensor]) -> list[Tensor]:
    """The value, and its gradient against each point: of every element, or of sums with signs."""
    asked = [p.detach().requires_grad_(p.requires_grad) for p in points]
    value = function(*asked)
    if not value.requires_grad:
        return [value, *(value.new_zeros(len(_ups(value)), *p.shape) for p in points)]
    rows = [
        torch.autograd.grad(value, asked, up, retain_graph=True, materialize_grads=True)
        for up in _ups(value)
    ]
    return [value.detach(), *(torch.stack(each) for each in zip(*rows, strict=True))]


def _ups(value: Tensor) -> Tensor:
    """Upstream gradients: each element by itself, or if there are many, all with random signs."""
    n = value.numel()
    if n <= SIGNS:
        return torch.eye(n, dtype=value.dtype, device=value.device).view(n, *value.shape)
    return torch.stack([_signs(value, i) for i in range(SIGNS)])


def _signs(like: Tensor, seed: int) -> Tensor:
    tossed = torch.randint(2, like.shape, generator=torch.Generator().manual_seed(seed))
    return (2.0 * tossed - 1).to(like)


def _alike(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and bool(
        ((got - want).abs() <= 1e-9 * want.abs().amax()).all() if want.numel() else True
    )
