"""Continuous ranked probability score: how far a predicted distribution is from what came.

    CRPS(F, t)   = integral of (F(u) - [u >= t])**2 over u
    Gaussian     = sigma (z erf(z / sqrt 2) + 2 phi(z) - 1 / sqrt pi)     z = (x - t) / sigma
    ensemble     = sum over gaps between neighbours of a(k) gap, k: how many members lie on the
                   side of the gap where t is not
    a(k)         = fair k (k - 1) / (M (M - 1)) + (1 - fair) k**2 / M**2

The second line of an ensemble is ``sum |x_i - t| / M - c sum |x_i - x_j|`` over all pairs, with c =
1 / (2 M (M - 1)) where it is fair and 1 / (2 M**2) where not, without the difference.

Axes: Gaussian, any equal shape; members ``(..., M)``, targets ``(...)``.
From: Gneiting et al., Monthly Weather Review 133 (2005), https://doi.org/10.1175/MWR2904.1;
fair, Ferro, Q. J. R. Meteorol. Soc. 140 (2014), https://doi.org/10.1002/qj.2270; almost fair, Lang
et al., arXiv:2412.15832.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_number
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.numbers import against, reduced, spread
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.regression.module import NumberLoss, SpreadLoss

__all__ = ["EnsembleCRPSLoss", "GaussianCRPSLoss", "ensemble_crps_loss", "gaussian_crps_loss"]


def gaussian_crps_loss(
    prediction: Tensor,
    target: Numbers,
    log_variance: Tensor,
    *,
    weight: Numbers | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """CRPS of a normal distribution, from its mean and log variance.

        sigma (z erf(z / sqrt 2) + 2 phi(z) - 1 / sqrt pi), with z = (x - t) / sigma

    Args:
        prediction: the mean; any shape, any floating dtype.
        target: the same shape.
        log_variance: ``2 log sigma``, the same shape; an output of the model, of any sign.
        weight: the same shape; multiplies and is counted, and 0 removes.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of the prediction: a scalar, or with ``"none"`` the
        shape of the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, weights that are negative or infinite (on CPU).

    The gradient goes to ``prediction``, from -1 to 1, and to ``log_variance``, and to targets and
    weights that ask for it. With a sigma of 0 the loss is the absolute error.

    Use when:
        As :func:`gaussian_nll_loss`, where a wrong and narrow prediction shall cost its error and
        not its square: forecasts of weather and energy.

    Elsewhere:
        scoringrules ``crps_normal``, properscoring ``crps_gaussian``.

    Differs from:
        these: from the log variance; where sigma is far below the error, nothing is divided by it.

    Example:
        >>> import torch
        >>> x, s = torch.tensor([0.0, 1.0]), torch.zeros(2)
        >>> loss = gaussian_crps_loss(x, torch.zeros(2), s, reduction="none")
        >>> [round(value, 6) for value in loss.tolist()]
        [0.233695, 0.602441]
    """
    check_reduction(reduction)
    target, weight = against(prediction, target, weight)
    x = spread(prediction, log_variance=log_variance)
    return reduced(GAUSSIAN, x, target, weight=weight, reduction=reduction, term="gaussian_crps")


def ensemble_crps_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    fair: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """CRPS of an ensemble: its members near the target, and as far apart as they should be.

        sum |x_i - t| / M - sum over pairs |x_i - x_j| / (2 M (M - 1)), where it is fair

    Args:
        prediction: ``(..., M)``, the members, any floating dtype.
        target: ``(...)``.
        weight: ``(...)``; multiplies and is counted, and 0 removes.
        fair: 1, the score of the distribution that the members are drawn from; 0, that of the
            members as all there is, which wants them too close together; between, both in these
            parts: 0.95 is almost fair, and holds a member that fairness leaves alone.
        reduction: ``"mean"``, over targets, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of the prediction: a scalar, or with ``"none"`` the
        shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, fair outside of [0, 1] or above 0 with a single member,
            weights that are negative or infinite (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it; between members
    that are equal there is none. The cost is that of sorting the members.

    Use when:
        A model draws samples, as forecasts of weather do.

    Elsewhere:
        xskillscore and properscoring ``crps_ensemble``, scoringrules ``crps_ensemble``.

    Differs from:
        xskillscore, properscoring: those of ``fair=0``, biased for few members.
        sums over all pairs: memory in M and not in its square, and no difference of two sums that
            are close.

    Example:
        >>> import torch
        >>> members, t = torch.tensor([[0.0, 2.0]]), torch.tensor([1.0])
        >>> ensemble_crps_loss(members, t).item(), ensemble_crps_loss(members, t, fair=0).item()
        (0.0, 0.5)
    """
    check_reduction(reduction)
    check_number("fair", fair, 0.0, 1.0)
    target, weight = against(prediction, target, weight, each="M")
    members = prediction.shape[-1]
    if members < (2 if fair else 1):
        raise ValueError(
            f"prediction: got shape {tuple(prediction.shape)}, with {members} members; wanted 2 or "
            "more, or fair=0 with one, which is the absolute error"
        )
    return reduced(
        ENSEMBLE,
        prediction.reshape(target.numel(), members),
        target,
        weight=weight,
        reduction=reduction,
        term="ensemble_crps",
        fair=float(fair),
    )


# ---------------------------------------------------------------------------------- Gaussian

_FAR = 40.0  # sigmas, where the rest of a normal distribution is 0 in any dtype


def _gaussian(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    mean, s = x.unbind(1)
    d, sigma = mean - t, torch.exp(s / 2)
    return d * torch.erf(_units(d, sigma) * 0.5**0.5) + sigma * _narrow(_units(d, sigma))


def _gaussian_step(x: Tensor, up: Tensor | float, kept: Kept, t: Tensor) -> tuple[Tensor, Tensor]:
    # erf(z / sqrt 2) along the mean, 2 phi(z) - 1 / sqrt pi along sigma, which is half of it
    # along s over sigma
    mean, s = x.unbind(1)
    d, sigma = mean - t, torch.exp(s / 2)
    z = _units(d, sigma)
    sure, rest = torch.erf(z * 0.5**0.5), sigma * _narrow(z)
    return d * sure + rest, torch.stack((sure, rest / 2), 1).mul_(by_row(up))


def _units(d: Tensor, sigma: Tensor) -> Tensor:
    """The error in sigmas, or ``_FAR`` of them where it is more."""
    floor = torch.maximum(d.detach().abs() / _FAR, d.new_full((), torch.finfo(d.dtype).tiny))
    return d / torch.maximum(sigma, floor)


def _narrow(z: Tensor) -> Tensor:
    return torch.exp(z.square() / -2) * (2 / math.pi) ** 0.5 - math.pi**-0.5


# ---------------------------------------------------------------------------------- ensembles


def _by_gaps(x: Tensor, kept: Kept, t: Tensor, *, fair: float) -> Tensor:
    """The integral, from gap to gap: each is a sum of parts of one sign."""
    x = x.sort(1).values
    m, t = x.shape[1], t.unsqueeze(1)
    k = torch.arange(1, m, device=x.device, dtype=x.dtype)
    low, high = x[:, :-1], x[:, 1:]
    below = (torch.minimum(high, t) - low).relu()  # the part of a gap below the target
    above = (high - torch.maximum(low, t)).relu()
    inside = (below * _share(k, m, fair) + above * _share(m - k, m, fair)).sum(1)
    outside = (t - x[:, -1:]).relu() + (x[:, :1] - t).relu()
    return inside + outside.squeeze(1)


def _share(k: Tensor, m: int, fair: float) -> Tensor:
    """What a gap costs that k members of m have on the wrong side."""
    whole = k.square() * ((1 - fair) / m**2)
    return whole + k * (k - 1) * (fair / (m * (m - 1))) if fair else whole


def _slope(x: Tensor, t: Tensor, fair: float) -> Tensor:
    """``sign(x_i - t) / M - 2 c (members below x_i - members above it)``."""
    m = x.shape[1]
    values, order = x.sort(1)
    # where the run of equal members begins that each belongs to, and where it ends
    at = torch.arange(m, device=x.device).expand_as(order)
    new = torch.ones_like(order, dtype=torch.bool)
    new[:, 1:] = values[:, 1:] != values[:, :-1]
    first = torch.where(new, at, 0).cummax(1).values
    ends = torch.cat((new[:, 1:], new[:, :1]), 1)
    last = torch.where(ends, at, m).flip(1).cummin(1).values.flip(1)
    rank = (first + last + 1 - m).to(x.dtype).gather(1, order.argsort(1))
    c = (1 - fair) / m**2 + (fair / (m * (m - 1)) if fair else 0.0)
    return (x - t.unsqueeze(1)).sgn() / m - rank * c


def _ensemble(x: Tensor, t: Tensor, *, fair: float) -> Tensor:
    """Linear in what is constant slopes: so equal members get equal ones from autograd too."""
    fixed = x.detach(), t.detach()
    value, slope = _by_gaps(fixed[0], (), fixed[1], fair=fair), _slope(*fixed, fair)
    along = (slope * (x - t.unsqueeze(1))).sum(1)
    return value + (along - along.detach())


def _ensemble_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, *, fair: float
) -> tuple[Tensor, Tensor]:
    return _by_gaps(x, kept, t, fair=fair), _slope(x, t, fair).mul_(by_row(up))


GAUSSIAN = Formula(_gaussian, _gaussian_step, ahead=True, block=2**17)
ENSEMBLE = Formula(_by_gaps, _ensemble_step, value=_ensemble, ahead=True, block=2**17)


class GaussianCRPSLoss(SpreadLoss):
    """Module form of :func:`gaussian_crps_loss`; same options, same defaults."""

    _function = staticmethod(gaussian_crps_loss)

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)


class EnsembleCRPSLoss(NumberLoss):
    """Module form of :func:`ensemble_crps_loss`; same options, same defaults."""

    _function = staticmethod(ensemble_crps_loss)

    def __init__(self, fair: float = 1.0, reduction: Reduction = "mean") -> None:
        check_number("fair", fair, 0.0, 1.0)
        super().__init__(fair=fair, reduction=reduction)
