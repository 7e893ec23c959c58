"""Cross-entropy of whole rows that are not read twice: their softmax is held for the way back.

What :mod:`aptt.core.vocabulary` measures of parts, of a row in one piece: fewer operators, and one
tensor of the logits' size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.formula import Product
from aptt.core.softmax import on_class_axis
from aptt.core.vocabulary import Form, times

__all__ = ["Held", "held_loss", "held_slope", "hold"]


class Held(NamedTuple):
    """What is held of rows that are not read twice; all but the first one number a row.

    The last four are there where the form, or class weights, ask for them.
    """

    p: Tensor
    """``softmax(z)``, but at class y what it lacks there of 1: ``p[y] - 1``."""
    lack: Tensor
    """``p[y] - 1``, as minus the sum of the others."""
    mine: Tensor
    """``log p[y]``."""
    others: Tensor | None = None
    """The sum of ``w[c] log p[c]`` over the open classes, y too."""
    share: Tensor | None = None
    """Minus what smoothing gives to each of them."""
    mass: Tensor | None = None
    """The sum of their ``w[c]``."""
    lse: Tensor | None = None

    @classmethod
    def of(cls, kept: tuple[Tensor, ...], *, weighted: bool, form: Form) -> Held:
        """From those that there are."""
        asked: tuple[bool, ...] = (form.smoothing is not None,) * 2
        asked += (form.smoothing is not None and weighted, form.z_loss is not None)
        rest = iter(kept[3:])
        return cls(*kept[:3], *(next(rest) if there else None for there in asked))


def hold(z: Tensor, y: Tensor, *, class_weight: Tensor | None, form: Form) -> Held:
    """Measure whole rows for :func:`held_loss` and :func:`held_slope`; not to be differentiated."""
    at = y.unsqueeze(1)
    log_p = z.log_softmax(1)
    mine, others, share, mass, lse = log_p.gather(1, at), None, None, None, None
    if form.z_loss is not None:
        lse = z.amax(1, keepdim=True) - log_p.amax(1, keepdim=True)
    if form.smoothing is None:
        del log_p
    p = z.softmax(1).scatter_(1, at, 0.0)
    lack = p.sum(1, keepdim=True).neg_()
    p.scatter_(1, at, lack)
    mine = torch.where(lack > -0.5, lack.log1p(), mine)
    if form.smoothing is not None:
        log_p.scatter_(1, at, mine)
        masked = torch.finfo(z.dtype).min
        open = log_p > masked
        share = -form.smoothing / open.sum(1, keepdim=True, dtype=z.dtype)
        torch.nn.functional.threshold(log_p, masked, 0.0, inplace=True)
        if class_weight is not None:
            weights = on_class_axis(class_weight, z)
            mass = (open * weights).sum(1, keepdim=True)
            log_p.mul_(weights)
        others = log_p.sum(1, keepdim=True)
    return Held(p, lack, mine, others, share, mass, lse)


def held_loss(held: Held, scale: Tensor | None, *, form: Form) -> Tensor:
    """:func:`aptt.core.vocabulary.finish` of what is held."""
    nll = -held.mine
    loss = nll if scale is None else times(scale, nll)
    if form.smoothing is not None and held.share is not None and held.others is not None:
        loss = torch.addcmul(times(1 - form.smoothing, loss), held.share, held.others)
    if form.z_loss is not None and held.lse is not None:
        square = held.lse.square()
        loss = loss + form.z_loss * (square if scale is None else scale * square)
    return loss.squeeze(1)


def held_slope(
    held: Held,
    z: Tensor,
    y: Tensor,
    up: Tensor,
    scale: Tensor | None,
    *,
    class_weight: Tensor | None,
    form: Form,
) -> Tensor | Product:
    """:func:`aptt.core.vocabulary.slope` of it; of ``z``, only which classes are open is read."""
    # as there, with every = hard + extra: every * (1 - miss) - hard = extra - every * miss
    hard = up if scale is None else up * scale
    every, extra, spread = hard, None, None
    if form.smoothing is not None and held.share is not None:
        spread = up * held.share
        extra = up * form.smoothing
        if held.mass is not None:
            extra = -spread * held.mass
            every = hard * (1 - form.smoothing) + extra
    if form.z_loss is not None and held.lse is not None:
        more = hard * (2 * form.z_loss * held.lse)
        every, extra = every + more, more if extra is None else extra + more
    if extra is None:
        return Product(held.p, hard)
    at_y = torch.addcmul(extra, every, held.lack)
    if spread is None:
        dz = held.p * every
    else:
        masked, open_to = torch.finfo(z.dtype).min, torch.ops.aten.threshold_backward
        at_y = at_y + open_to(spread if scale is None else spread * scale, held.mine, masked)
        if class_weight is not None:
            spread = spread * on_class_axis(class_weight, z)
        dz = open_to(torch.addcmul(spread, held.p, every), z, masked)
    return dz.scatter_(1, y.unsqueeze(1), at_y)
