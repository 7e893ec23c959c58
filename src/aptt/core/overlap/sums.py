"""Which formula sums: by what is known of the targets, and of the device."""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.engine import at_once, evaluate
from aptt.core.marks import removes
from aptt.core.ordinary import is_readable
from aptt.core.overlap.cost import Ask
from aptt.core.overlap.dense import LABELS, SHARES
from aptt.core.overlap.indices import AT_ONCE, INDICES
from aptt.core.softmax import on_class_axis

__all__ = ["overlap_sums"]


def overlap_sums(
    x: Tensor,
    t: Tensor,
    w: Tensor | None,
    *,
    softmax: bool,
    gamma: float | None = None,
    common: bool = False,
) -> Tensor:
    """Truth, false, missed, and then common or cost if it is asked for; differentiable in ``x``.

    Above 0, ``gamma`` wants hard targets.
    """
    if softmax and t.ndim == x.ndim and not t.requires_grad and _is_hard(t):
        t = _indices(t)
    if t.ndim < x.ndim:
        formula = AT_ONCE if at_once(x) else INDICES
    elif softmax or not (gamma or _is_hard(t)):
        formula = SHARES
    else:
        formula = LABELS
    if w is not None and w.ndim < x.ndim:
        w = w.unsqueeze(1)
    ask = Ask(softmax, gamma, common, removes(x, t, w))
    return evaluate(formula, x, t, w, gather="samples", ask=ask)


def _is_hard(t: Tensor) -> bool:
    """Whether a target from 0 to 1 is 0 or 1, as far as looking costs no host sync."""
    if not t.is_floating_point():
        return True
    parts = t.reshape(-1).split(2**17) if is_readable(t) else ()  # that stay in the cache
    return bool(parts) and all(
        bool(torch.addcmul(part, part, part, value=-1).sum() == 0) for part in parts
    )


def _indices(t: Tensor) -> Tensor:
    """The classes of a hard target; itself where a pixel has none or several."""
    if bool((t.sum(1) != 1).any()):
        return t
    return (t * on_class_axis(torch.arange(t.shape[1], dtype=t.dtype), t)).sum(1).long()
