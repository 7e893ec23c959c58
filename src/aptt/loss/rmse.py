"""Root mean squared error, also of logarithms.

    RMSE   = sqrt(sum w (x - t)**2 / sum w)
    RMSLE  = sqrt(sum w (log(1 + x) - log(1 + t))**2 / sum w)

Axes: prediction x and target t of any equal shape, the first axis the samples.
From: RMSLE as in the Kaggle competitions that spread it; it is RMSE after ``log1p``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_tensor,
    as_weight,
    check_choice,
    check_floating,
    check_weight,
)
from aptt.core.engine import block_of, evaluate
from aptt.core.formula import Formula, Kept, by_row, widen
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, normalize, reduce
from aptt.core.shapes import check_shapes
from aptt.core.signals import energy, wide, widest

__all__ = ["Pool", "RMSELoss", "RMSLELoss", "rmse_loss", "rmsle_loss"]

Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


def rmse_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Root mean squared error: 0, with a gradient of 0, where the two are equal.

        sqrt(sum w (x - t)**2 / sum w)

    Args:
        prediction: any shape, the first axis the samples; any floating dtype.
        target: the same shape.
        weight: the same shape; the part of each element in the mean, and 0 removes it.
        pool: the elements under one root: ``"batch"``, ``"sample"``, or a callable that sums the
            batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over the samples: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of the prediction: a scalar, or one value per sample
        with ``pool="sample", reduction="none"``. float32 for half types.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``prediction``, and to targets and weights that ask for it. A root cannot
    be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        The error should be read in the units of the target, or every signal count alike.

    Elsewhere:
        scikit-learn ``root_mean_squared_error``, torchmetrics ``MeanSquaredError(squared=False)``.

    Differs from:
        ``sqrt(mse)``, ``sqrt(mse + eps)``: exact at 0, and no NaN or bias there; errors from 1e-38
            to 1e38 in float32.

    Example:
        >>> import torch
        >>> round(rmse_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])).item(), 4)
        2.1213
    """
    return _root(prediction, target, weight, pool, reduction, "rmse", log=False)


def rmsle_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Root mean squared error of ``log(1 + x)``, for quantities that span magnitudes.

        sqrt(sum w (log(1 + x) - log(1 + t))**2 / sum w)

    Args:
        prediction: any shape, the first axis the samples; any floating dtype.
        target: the same shape. Both above -1.
        weight: the same shape; the part of each element in the mean, and 0 removes it.
        pool: the elements under one root: ``"batch"``, ``"sample"``, or a callable that sums the
            batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over the samples: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or one value per sample with ``pool="sample",
        reduction="none"``. float32 for half types.

    Raises:
        ValueError: shapes that differ, an unknown option, numbers of -1 or less that count (on CPU;
            elsewhere the loss is not finite there).

    The gradient goes to ``prediction``, and to targets and weights that ask for it. A root cannot
    be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Ratios matter rather than differences: counts, prices, energies.

    Elsewhere:
        scikit-learn ``root_mean_squared_log_error``.

    Differs from:
        Clamped forms: a prediction of -1 or less is refused rather than clamped, which would leave
            it without a gradient.
        ``log1p(x) - log1p(t)``: the digits are kept where the two are close.

    Example:
        >>> import torch
        >>> round(rmsle_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])).item(), 4)
        0.4901
    """
    return _root(prediction, target, weight, pool, reduction, "rmsle", log=True)


def _root(
    prediction: Tensor,
    target: Numbers,
    weight: Numbers | None,
    pool: Pool,
    reduction: Reduction,
    term: str,
    *,
    log: bool,
) -> Tensor:
    _check_options(pool, reduction)
    check_floating(prediction=prediction)
    target = as_tensor("target", target, prediction)
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
    long = x.is_cpu and x.shape[1] > block_of(_ROOT) and not torch.compiler.is_compiling()
    if not (callable(pool) or long):
        keep = None if w is None else w.sum(1) > 0
        root = reduce(
            _ROOT,
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
    x, t, w = x.unsqueeze(1), t.unsqueeze(1), None if w is None else w.unsqueeze(1)
    squares = evaluate(_SQUARES, x, t, w, gather="samples", log=log)
    counts = squares.new_full((len(x),), x.shape[2]) if w is None else w.sum((1, 2))
    if callable(pool):
        both = torch.stack((squares, counts.to(squares.dtype)))
        squares, counts = pool(both.sum(1)).unbind(0)
    root = _sqrt(squares / torch.where(counts > 0, counts, 1)).to(widen(x[:0]).dtype)
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


def _error(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Tensor:
    """The difference of the two or of their logarithms, 0 where the weight is."""
    if w is not None:
        x, t = x.masked_fill(w == 0, 0.0), t.masked_fill(w == 0, 0.0)
    if not log:
        return x - t
    x, t = wide(x), wide(t)
    d = x - t  # of which the difference of two logarithms would lose digits
    return torch.copysign((d.abs() / (1 + torch.minimum(x, t))).log1p(), d)


def _along(d: Tensor, x: Tensor, w: Tensor | None, *, log: bool) -> Tensor:
    """From a slope along the error to one along ``x``."""
    if log:
        d = d / (1 + (x if w is None else x.masked_fill(w == 0, 0.0)))
    return d if w is None else d * w


def _root_of(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Kept:
    return (_length(_error(x, t, w, log=log), w),)


def _length(d: Tensor, w: Tensor | None) -> Tensor:
    if w is None:
        norm: Tensor = torch.linalg.vector_norm(d, dim=1, dtype=widest(d))
        return norm * max(d.shape[1], 1) ** -0.5
    return _sqrt((wide(d).square() * w).sum(1) / w.sum(1))


def _sqrt(mean: Tensor) -> Tensor:
    """The root, with a slope of 0 at 0, where it is infinite."""
    return mean.masked_fill(mean == 0, 0.0).sqrt()


def _as_found(x: Tensor, kept: Kept, *_: object, **__: object) -> Tensor:
    return kept[0].to(x.dtype)


def _root_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, w: Tensor | None, *, log: bool
) -> tuple[Tensor | None, Tensor]:
    # d root = sum w e de / (root sum w), where de = dx, or dx / (1 + x) of logarithms
    size = x.shape[1]
    if kept and w is None and not log:
        return None, _stretched(x, t, up / size, kept[0])
    d = _error(x, t, w, log=log)
    (root,) = kept or (_length(d, w),)
    share = up / (size if w is None else w.sum(1))
    d = d.div_(by_row(_some(root, x).to(d.dtype))).mul_(by_row(share))
    return None if kept else root.to(x.dtype), _along(d, x, w, log=log)


def _root_step_of_few(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, w: Tensor | None, *, log: bool
) -> tuple[Tensor | None, Tensor]:
    # one root, as a number: on a CPU a look costs nothing
    if not kept and len(x) == 1 and w is None and not log:
        d, size = x - t, x.shape[1] ** 0.5
        length: float = torch.linalg.vector_norm(d, dtype=torch.float64).item()
        if length > 1e-30:  # whose reciprocal is in the range of any dtype
            up = up.item() if isinstance(up, Tensor) else up
            return x.new_full((1,), length / size), d.mul_(up / (length * size))
    return _root_step(x, up, kept, t, w, log=log)


def _stretched(x: Tensor, t: Tensor, share: Tensor | float, root: Tensor | None = None) -> Tensor:
    """``share * (x - t) / root`` in one pass, for a share of as many as there are, or of more.

    It may leave the range of single precision, which its multiple by their number does not.
    """
    factor = share * (x.numel() / 2)
    if root is not None:
        factor = factor / _some(root, x)
    assert isinstance(factor, Tensor)  # of rows
    if torch.compiler.is_compiling():
        return (wide(x) - wide(t)) * by_row(factor * (2 / x.numel()))
    most = torch.finfo(x.dtype).max
    factor = factor.clamp(-most, most).to(x.dtype)
    return torch.ops.aten.mse_loss_backward(by_row(factor).expand_as(x), x, t, 1)


def _some(root: Tensor, x: Tensor) -> Tensor:
    """A root to divide by: above 0, as far as the dtype of ``x`` goes."""
    return root.clamp(min=torch.finfo(x.dtype).tiny)


def _squares(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Kept:
    d = _error(x, t, w, log=log).flatten(1)
    return (energy(d) if w is None else (wide(d).square() * w.flatten(1)).sum(1),)


def _all(x: Tensor, kept: Kept, *_: object, **__: object) -> Tensor:
    return kept[0].clone()


def _squares_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, log: bool
) -> tuple[None, Tensor]:
    # d sum w e**2 = 2 w e de
    slope = 2 * up
    if w is None and not log:
        return None, _stretched(x.squeeze(1), t.squeeze(1), slope).unsqueeze(1)
    d = wide(_error(x, t, w, log=log)).mul_(slope.view(-1, 1, 1))
    return None, _along(d, x, w, log=log)


_ROOT = Formula(
    _as_found,
    _root_step,
    _root_of,
    ahead=True,
    few=Formula(_as_found, _root_step_of_few, _root_of, ahead=True),
)
"""Of rows, each whole."""
_SQUARES = Formula(_all, _squares_step, _squares)
"""Of samples ``(N, 1, S)`` in parts, of which a root is taken after."""


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


def _check_options(pool: Pool, reduction: Reduction) -> None:
    check_reduction(reduction)
    if not callable(pool):
        check_choice("pool", pool, ("batch", "sample"), also="a callable that sums over ranks")


class RMSELoss(LossModule):
    """Module form of :func:`rmse_loss`; same options, same defaults."""

    def __init__(self, pool: Pool = "batch", reduction: Reduction = "mean") -> None:
        _check_options(pool, reduction)
        super().__init__(pool=pool, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmse_loss(prediction, target, weight=weight, **self.options())


class RMSLELoss(LossModule):
    """Module form of :func:`rmsle_loss`; same options, same defaults."""

    def __init__(self, pool: Pool = "batch", reduction: Reduction = "mean") -> None:
        _check_options(pool, reduction)
        super().__init__(pool=pool, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmsle_loss(prediction, target, weight=weight, **self.options())
