"""The mathematics of a root of squares: of whole rows, and of rows in parts.

    e          x - t, or log(1 + x) - log(1 + t)
    ROOT       sqrt(sum w e**2 / sum w)      of rows, each whole
    SQUARES    sum w e**2                    of samples in parts, of which a root is taken after

Axes: ROOT, x and t ``(N, S)``; SQUARES, ``(N, 1, S)``; the weight w likewise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, by_row
from aptt.core.precision import to_widest, widest
from aptt.core.signals import energy

__all__ = ["ROOT", "SQUARES", "root_of"]


def _error(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Tensor:
    """The difference of the two or of their logarithms, 0 where the weight is."""
    if w is not None:
        x, t = x.masked_fill(w == 0, 0.0), t.masked_fill(w == 0, 0.0)
    if not log:
        return x - t
    x, t = to_widest(x), to_widest(t)
    d = x - t  # of which the difference of two logarithms would lose digits
    return torch.copysign((d.abs() / (1 + torch.minimum(x, t))).log1p(), d)


def _along(d: Tensor, x: Tensor, w: Tensor | None, *, log: bool) -> Tensor:
    """From a slope along the error to one along ``x``."""
    if log:
        d = d / (1 + (x if w is None else x.masked_fill(w == 0, 0.0)))
    return d if w is None else d * w


def _root_stats(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Kept:
    return (_root_mean(_error(x, t, w, log=log), w),)


def _root_mean(d: Tensor, w: Tensor | None) -> Tensor:
    if w is None:
        norm: Tensor = torch.linalg.vector_norm(d, dim=1, dtype=widest(d))
        return norm * max(d.shape[1], 1) ** -0.5
    return root_of((to_widest(d).square() * w).sum(1) / w.sum(1))


def root_of(mean: Tensor) -> Tensor:
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
    (root,) = kept or (_root_mean(d, w),)
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
    """``share * (x - t) / root`` in one pass, by torch's gradient of a mean of squares.

    ``share`` may leave the range of single precision; its multiple by the number of elements, by
    which that operator divides, does not.
    """
    factor = share * (x.numel() / 2)
    if root is not None:
        factor = factor / _some(root, x)
    assert isinstance(factor, Tensor)  # of rows
    if torch.compiler.is_compiling():
        return (to_widest(x) - to_widest(t)) * by_row(factor * (2 / x.numel()))
    most = torch.finfo(x.dtype).max
    factor = factor.clamp(-most, most).to(x.dtype)
    return torch.ops.aten.mse_loss_backward(by_row(factor).expand_as(x), x, t, 1)


def _some(root: Tensor, x: Tensor) -> Tensor:
    """A root to divide by: above 0, as far as the dtype of ``x`` goes."""
    return root.clamp(min=torch.finfo(x.dtype).tiny)


def _squares_stats(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Kept:
    d = _error(x, t, w, log=log).flatten(1)
    return (energy(d) if w is None else (to_widest(d).square() * w.flatten(1)).sum(1),)


def _as_summed(x: Tensor, kept: Kept, *_: object, **__: object) -> Tensor:
    return kept[0].clone()


def _squares_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, log: bool
) -> tuple[None, Tensor]:
    # d sum w e**2 = 2 w e de
    slope = 2 * up
    if w is None and not log:
        return None, _stretched(x.squeeze(1), t.squeeze(1), slope).unsqueeze(1)
    d = to_widest(_error(x, t, w, log=log)).mul_(slope.view(-1, 1, 1))
    return None, _along(d, x, w, log=log)


ROOT = Formula(
    _as_found,
    _root_step,
    _root_stats,
    ahead=True,
    few=Formula(_as_found, _root_step_of_few, _root_stats, ahead=True),
)
SQUARES = Formula(_as_summed, _squares_step, _squares_stats)
