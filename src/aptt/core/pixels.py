"""The softmax of each pixel seen from its class, by torch's own operators: all in one block.

    right = p[y]        others = p, and 0 at y        miss = 1 - p[y] = sum of others

Neither right nor miss is a difference, so both keep their digits however confident a pixel is. A
class is reached by gather and scatter. What each pixel has for its class is summed by writing it
there, in a blank as large as ``p``: no sum depends on an order in which pixels arrive.
Few launches do it, which an accelerator wants; :mod:`aptt.core.marks` is the same for blocks on a
CPU, and for a compiler.

Axes: ``z`` is ``(N, C, S)``; ``at``, the class of each pixel, and weights ``(N, 1, S)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aptt.core.ordinary import inside_functorch

__all__ = [
    "by_class",
    "counts",
    "fading",
    "left",
    "nll",
    "pull",
    "put",
    "removed",
    "seen",
    "times",
]


def _recorded() -> bool:
    """Whether autograd or a transform may need what is here: nothing is then changed in place."""
    return torch.is_grad_enabled() or inside_functorch()


# ----------------------------------------------------------------------------------- the weights


def removed(w: Tensor | None) -> Tensor | None:
    """Where the weight is 0."""
    if w is None:
        return None
    return ~w if w.dtype == torch.bool else w == 0


def left(z: Tensor, gone: Tensor | None) -> Tensor:
    """``z``, and 0 where it is ``gone``; in the memory of ``z`` where nothing forbids it."""
    if gone is None:
        return z
    return torch.where(gone, 0.0, z) if _recorded() else z.masked_fill_(gone, 0.0)


def times(z: Tensor, w: Tensor | None) -> Tensor:
    """Times the weights, if there are any."""
    return z if w is None else z * w


# ----------------------------------------------------------------------------------- the softmax


def seen(z: Tensor, gone: Tensor | None) -> tuple[Tensor, Tensor]:
    """The logits, and their softmax: 0 for what is ``gone``, whatever it held."""
    if _recorded():  # the way back must not meet it either
        z = left(z, gone)
    return z, left(z.softmax(1), gone)


def put(p: Tensor, at: Tensor, value: Tensor | float) -> Tensor:
    """``p`` with ``value`` at its class, in the memory of ``p`` where nothing forbids it."""
    return p.scatter(1, at, value) if _recorded() else p.scatter_(1, at, value)


def nll(z: Tensor, at: Tensor, miss: Tensor) -> Tensor:
    """``-log p[y]``: by ``miss`` for a likely class, else from the logits, exact either way."""
    log = z.log_softmax(1).gather(1, at)
    return -torch.where(log > -0.5, torch.log1p(-miss.clamp(max=0.5)), log)


def fading(miss: Tensor, nll: Tensor) -> Tensor:
    """``miss``, to be multiplied by what may be large, such as ``nll``.

    Autograd of a sum cancels where it is near 1; of a sigmoid of the log-odds it does not.
    """
    if not torch.is_grad_enabled():
        return miss
    slope = torch.sigmoid(miss.clamp(min=torch.finfo(miss.dtype).tiny).log() + nll)
    return slope + (miss - slope).detach()


def pull(p: Tensor, at: Tensor, prices: Tensor) -> Tensor:
    """The gradient of ``sum of prices[c] p[c]`` over all classes, from the others' at y too."""
    # d / d z[c] = p[c] (prices[c] - sum of prices p), as softmax's backward has it. Near p[y] = 1
    # that is a difference there; but all of them sum to 0.
    dx = torch._softmax_backward_data(prices, p, 1, p.dtype)
    dx = put(dx, at, 0.0)
    return put(dx, at, -dx.sum(1, keepdim=True))


# ------------------------------------------------------------------------------------- the class


def by_class(like: Tensor, at: Tensor) -> Callable[[Tensor], Tensor]:
    """What sums one number a pixel over the pixels of each class; over the memory of ``like``."""
    blank = torch.zeros_like(like) if _recorded() else like.zero_()
    return lambda values: put(blank, at, values).sum(2)


def counts(y: Tensor, w: Tensor | None, like: Tensor) -> Tensor:
    """How many pixels ``(N, S)`` each class has, ``(N, C)``: in integers, in any order."""
    ones = torch.ones_like(y) if w is None else w.reshape(y.shape).long()
    nothing = y.new_zeros(like.shape[:2])
    return (nothing.scatter_add if _recorded() else nothing.scatter_add_)(1, y, ones)
