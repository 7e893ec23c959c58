"""The root of a mean of squared errors: of a batch, of each sample, or of sums over ranks.

Rows that a block holds are each a value of their own, and reduced as such. Longer ones, and sums
that come from elsewhere, are added up first, and their root is taken after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_weight,
    check_choice,
    check_floating,
    check_weight,
)
from aptt.core.engine import block_of, evaluate
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen, widest
from aptt.core.reduction import Reduction, check_reduction, normalize, reduce
from aptt.core.shapes import check_shapes
from aptt.loss.rmse.formulas import ROOT, SQUARES, root_of

__all__ = ["Pool", "check_options", "root_loss"]

Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


def root_loss(
    prediction: Tensor,
    target: Numbers,
    weight: Numbers | None,
    pool: Pool,
    reduction: Reduction,
    term: str,
    *,
    log: bool,
) -> Tensor:
    """The loss, of the errors or, for ``log``, of those of logarithms."""
    check_options(pool, reduction)
    check_floating(prediction=prediction)
    target = as_floats("target", target, prediction)
    check_shapes(prediction=(prediction, "*N"), target=(target, "*N"))
    each = pool == "sample"
    x, t, w = _samples(prediction, each), _samples(target, each), None
    if weight is not None:
        weight = as_weight("weight", weight, prediction)
        check_shapes(prediction=(prediction, "*N"), weight=(weight, "*N"))
        check_weight("weight", weight)
        # whose slope is a difference of two numbers, to be rounded once
        w = _samples(weight.to(widest(x) if weight.requires_grad else widen(x[:0]).dtype), each)
    if log:
        _check_logarithms(w, prediction=x, target=t)
    long = x.is_cpu and x.shape[1] > block_of(ROOT) and not torch.compiler.is_compiling()
    if callable(pool) or long:
        return _of_sums(x, t, w, pool, reduction, term, log=log)
    keep = None if w is None else w.sum(1) > 0
    root = reduce(
        ROOT,
        x,
        t,
        w,
        weight=keep,
        count=lambda: (len(x) if x.shape[1] else 0) if keep is None else keep.sum(),
        reduction=reduction,
        term=term,
        kind="ratios",
        splits=each,
        log=log,
    )
    return root.reshape(()) if reduction == "none" and not each else root


def _of_sums(
    x: Tensor,
    t: Tensor,
    w: Tensor | None,
    pool: Pool,
    reduction: Reduction,
    term: str,
    *,
    log: bool,
) -> Tensor:
    """The loss from sums of squares, which may be those of ranks."""
    dtype, each = widen(x[:0]).dtype, pool == "sample"
    x, t, w = x.unsqueeze(1), t.unsqueeze(1), None if w is None else w.unsqueeze(1)
    squares = evaluate(SQUARES, x, t, w, gather="samples", log=log)
    counts = squares.new_full((len(x),), x.shape[2]) if w is None else w.sum((1, 2))
    if callable(pool):
        both = torch.stack((squares, counts.to(squares.dtype)))
        squares, counts = pool(both.sum(1)).unbind(0)
    root = root_of(squares / torch.where(counts > 0, counts, 1)).to(dtype)
    if not each:
        root = root.reshape(())
    if reduction == "none":
        return root
    total, counted = root.sum() if each else root, (counts > 0).sum()
    return normalize(total, counted, reduction, term=term, kind="ratios", splits=each)


def _samples(t: Tensor, each: bool) -> Tensor:
    """``(N, S)``: each sample by itself, or all as one."""
    samples = t.shape[0] if each and t.ndim else 1
    return t.reshape(samples, t.numel() // samples if samples else math.prod(t.shape[1:]))


def _check_logarithms(w: Tensor | None, **numbers: Tensor) -> None:
    """Refuse numbers that count and have no ``log1p``, where looking costs no host sync."""
    for name, v in numbers.items():
        v = v.detach()
        if not is_readable(v) or v.amin() > -1:
            continue
        wrong = v <= -1 if w is None or not is_readable(w) else (v <= -1) & (w != 0)
        if bool(wrong.any()):
            raise ValueError(
                f"{name}: got {v[wrong][0].item():g}, wanted numbers above -1, whose log(1 + x) "
                "is finite: take softplus or exp of a model's output, and give weight=0 to what "
                "was not measured"
            )


def check_options(pool: Pool, reduction: Reduction) -> None:
    """Hold the options of both losses to what they may be."""
    check_reduction(reduction)
    if not callable(pool):
        check_choice("pool", pool, ("batch", "sample"), also="a callable that sums over ranks")
