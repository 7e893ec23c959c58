"""Source-aggregated SDR: one ratio of all the sources of a mixture.

    SA-SDR   10 log10 (sum_k |e_k - s_k|**2 + t sum_k |s_k|**2) / sum_k |s_k|**2

with t = 10**(-cap / 10).

Axes: estimates e and targets s ``(N, K, ..., T)``, one value for each N.
From: von Neumann et al. 2022, arXiv:2110.15581, section 3, negated; the soft cap as Wisdom et al.
2020, arXiv:2006.12701, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_flags
from aptt.core.formula import Formula, Kept
from aptt.core.module import LossModule
from aptt.core.precision import to_widest, widen
from aptt.core.reduction import Reduction, reduce
from aptt.core.signals import check_signals, energy, stretched
from aptt.core.subsets import MOST, assigned
from aptt.loss.snr.decibels import DECIBEL, Silent, check_options

__all__ = ["SASDRLoss", "sa_sdr_loss"]


def sa_sdr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    any_order: bool = False,
    cap: float = 100.0,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the source-aggregated SDR in dB: the noise of all sources against the energy of all.

        10 log10 (sum_k |e_k - s_k|**2 + t sum_k |s_k|**2) / sum_k |s_k|**2

    Args:
        estimate: ``(N, K, ..., T)``, K sources; any floating dtype.
        target: the same shape; a source that is not there is 0.
        lengths: ``(N,)``, how many of the T samples are signal; 0 removes.
        any_order: take the sources in the order of the least noise, of at most 12: exactly, for the
            noises of pairs add up.
        cap: the best that can be reached, in dB, at most 120; the gradient fades towards it.
        silent: a mixture of which no source has any energy: ``"level"`` takes the level of the
            estimates instead, in dB of full scale, at least ``-cap``; ``"skip"`` removes it.
        reduction: over the N: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss in dB, at least ``-cap``: a scalar, or with ``"none"`` one value for each of N.
        float32 for half types.

    Raises:
        ValueError: shapes that differ, lengths beyond T (on CPU), more than 12 sources in any
            order, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it. A source that is silent asks
    for silence, with the weight of the whole mixture, and needs no policy of its own.

    Use when:
        Speakers come and go, as in meetings: a mean of ratios has none for a silent source.

    Elsewhere:
        torchmetrics ``SourceAggregatedSignalDistortionRatio`` (higher is better there), padertorch.

    Differs from:
        torchmetrics: relative guards, so the same value at any level; it takes the sources in the
            order that they come in, and its scale is fitted by default.

    Example:
        >>> import torch
        >>> s = torch.tensor([[[1.0, 0, 0, 0], [0, 0.1, 0, 0]]])
        >>> e = torch.tensor([[[1.0, 0.1, 0, 0], [0, 0.1, 0.1, 0]]])
        >>> round(sa_sdr_loss(e, s).item(), 4)  # of 20 and 0 dB
        -17.0329
    """
    check_flags(any_order=any_order)
    check_options(False, cap, silent, reduction)
    lengths = check_signals(estimate, target, lengths)
    if estimate.ndim < 3 or (any_order and not 1 <= estimate.shape[1] <= MOST):
        most = f"1 to {MOST} " if any_order else ""
        raise ValueError(
            f"estimate: got {tuple(estimate.shape)}, wanted (N, K, ..., T) with {most}sources K"
        )
    n, size = len(estimate), estimate.shape[1:].numel()
    keep = None
    parts = estimate.new_full((n,), size, dtype=torch.int64)
    if lengths is not None:
        inside = torch.arange(estimate.shape[-1], device=estimate.device) < lengths.unsqueeze(1)
        shown = inside.view(n, *[1] * (estimate.ndim - 2), estimate.shape[-1])
        estimate, target = (torch.where(shown, v, 0.0) for v in (estimate, target))
        parts, keep = lengths.long() * (size // max(estimate.shape[-1], 1)), lengths > 0
    if any_order:
        order = _least_noise(estimate, target)
        target = target.gather(
            1, order.view(*order.shape, *[1] * (target.ndim - 2)).expand_as(target)
        )
    x, t = estimate.reshape(n, size), target.reshape(n, size)
    if not size:
        keep = torch.zeros_like(parts, dtype=torch.bool)
    if silent == "skip":
        heard = energy(t.detach().to(widen(x[:0]).dtype)) != 0
        keep = heard if keep is None else keep & heard
    return reduce(
        _SA_SDR,
        x,
        t,
        parts,
        weight=keep,
        count=lambda: n if keep is None else keep.sum(),
        reduction=reduction,
        term="sa_sdr",
        least=10 ** (-cap / 10),
    )


@torch.no_grad()
def _least_noise(e: Tensor, s: Tensor) -> Tensor:
    """``(N, K)``: which target each estimate takes, by energies in double precision."""
    s = to_widest(s)
    each = [(to_widest(e[:, i : i + 1]) - s).square().flatten(2).sum(2) for i in range(e.shape[1])]
    return assigned(torch.stack(each, 1))


def _stats(x: Tensor, t: Tensor, parts: Tensor, *, least: float) -> Kept:
    # value = D log(|d|**2 / |s|**2 + t), and along d it is 2 D d / (|d|**2 + t |s|**2)
    noise, power = energy(x - t), energy(t)
    signal = torch.where(power == 0, parts.clamp(min=1).to(power.dtype), power)
    ratio = noise / signal + least
    return DECIBEL * ratio.log(), (signal * ratio / DECIBEL).rsqrt()


def _result(x: Tensor, kept: Kept, t: Tensor, parts: Tensor, *, least: float) -> Tensor:
    return kept[0].to(x.dtype)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, parts: Tensor, *, least: float
) -> tuple[Tensor | None, Tensor]:
    known = bool(kept)
    value, root = kept or _stats(x, t, parts, least=least)
    return None if known else value.to(x.dtype), stretched(x, t, root, root * up)


_SA_SDR = Formula(_result, _step, _stats, ahead=True)


class SASDRLoss(LossModule):
    """Module form of :func:`sa_sdr_loss`; same options, same defaults."""

    def __init__(
        self,
        any_order: bool = False,
        cap: float = 100.0,
        silent: Silent = "level",
        reduction: Reduction = "mean",
    ) -> None:
        check_flags(any_order=any_order)
        check_options(False, cap, silent, reduction)
        super().__init__(any_order=any_order, cap=cap, silent=silent, reduction=reduction)

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return sa_sdr_loss(estimate, target, lengths=lengths, **self.options())
