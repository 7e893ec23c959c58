"""Mixture-invariant training: estimates that add up to mixtures, whichever to which.

    MixIT   min over A in {0, 1}**(K x M), columns summing to 1, of mean_k SNR loss(x_k, (A e)_k)

Axes: estimates e ``(N, M, ..., T)``, mixtures x ``(N, K, ..., T)``, one value for each N.
From: Wisdom et al. 2020, arXiv:2006.12701, section 3, with the soft cap of eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_floating
from aptt.core.module import LossModule
from aptt.core.precision import to_widest, widen
from aptt.core.reduction import Reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.core.signals import check_signals
from aptt.core.subsets import MOST, bits, partitioned
from aptt.loss.snr.decibels import DECIBEL, Silent, check_options
from aptt.loss.snr.snr import snr_loss

__all__ = ["MixtureInvariantLoss", "best_mixing", "mixture_invariant_loss"]

_MOST_OF_MANY = 8  # estimates for three mixtures and more: 65536 pairs of subsets


def mixture_invariant_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    cap: float = 30.0,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """Mixture-invariant loss: each estimate belongs to one mixture, to the best advantage.

        min over mixings A of the mean over k of 10 log10 (|x_k - (A e)_k|**2 / |x_k|**2 + t)

    Args:
        estimate: ``(N, M, ..., T)``, M sources, at most 12, or 8 of more than two mixtures; any
            floating dtype. They are of the sum of the mixtures.
        target: ``(N, K, ..., T)``, the mixtures, which were added up.
        lengths: ``(N,)``, how many of the T samples are signal; 0 removes.
        cap: the best that can be reached of a mixture, in dB, at most 120.
        silent: a mixture without energy: ``"level"`` takes the level of its estimates instead;
            ``"skip"`` removes it, and with it what is put there.
        reduction: over the N: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss in dB, at least ``-cap``: a scalar, or with ``"none"`` one value for each of N.
        float32 for half types.

    Raises:
        ValueError: shapes that do not fit, too many sources, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it, through the best mixing
    alone; of equal ones the first is taken. :func:`aptt.loss.snr.best_mixing` tells which one it
    is. It is chosen by energies in float64, of which no signal is formed but the best.

    Use when:
        There are mixtures and no sources of theirs: two are added up, and taken apart again.

    Elsewhere:
        asteroid ``MixITLossWrapper``.

    Differs from:
        the paper: the mean over mixtures, not the sum. asteroid: forms and keeps the signals of all
            2**M mixings; no ``lengths``; of more than two mixtures, those of equal parts alone.

    Example:
        >>> import torch
        >>> e = torch.tensor([[[1.0, 0, 0], [0, 0.5, 0], [0, 0, 1]]])
        >>> x = torch.tensor([[[1.0, 1, 0], [0, 0, 1]]])
        >>> round(mixture_invariant_loss(e, x).item(), 4)
        -19.4981
    """
    check_options(False, cap, silent, reduction)
    mixing = best_mixing(estimate, target, lengths=lengths, cap=cap, silent=silent)
    lengths = None if lengths is None else as_tensor("lengths", lengths, estimate)
    axes = [1] * (estimate.ndim - 2)
    wide_enough = widen(estimate)
    mixed = [
        torch.where((mixing == k).view(*mixing.shape, *axes), wide_enough, 0.0).sum(1)
        for k in range(target.shape[1])
    ]
    each = snr_loss(
        torch.stack(mixed, 1), target, lengths=lengths, cap=cap, silent=silent, reduction="none"
    ).flatten(1)
    value = each.mean(1)
    some = torch.ones_like(value, dtype=torch.bool) if lengths is None else lengths > 0
    if silent == "skip":
        heard = _powers(target, lengths) != 0
        value, some = each.sum(1) / heard.sum(1).clamp(min=1), some & heard.any(1)
        # what is no number shall not hide in a mixture that is not heard
        broken = _powers(estimate, lengths).isnan().any(1) & some
        value = value + torch.zeros_like(value.detach()).masked_fill(broken, torch.nan)
    if reduction == "none":
        return value
    return normalize(value.sum(), some.sum(), reduction, term="mixture_invariant")


@torch.no_grad()
def best_mixing(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    cap: float = 30.0,
    silent: Silent = "level",
) -> Tensor:
    """Which mixture each estimate belongs to: ``(N, M)``, from 0 to K - 1; no gradient.

    The mixing that :func:`mixture_invariant_loss` takes, with its arguments.

    Example:
        >>> import torch
        >>> e = torch.tensor([[[1.0, 0, 0], [0, 0.5, 0], [0, 0, 1]]])
        >>> best_mixing(e, torch.tensor([[[1.0, 1, 0], [0, 0, 1]]]))
        tensor([[0, 0, 1]])
    """
    check_options(False, cap, silent, "mean")
    check_floating(estimate=estimate)
    lengths = None if lengths is None else as_tensor("lengths", lengths, estimate)
    _check(estimate, target, lengths)
    e, x = (  # (N, channels, sources, T)
        to_widest(_shown(v, lengths))
        .reshape(*v.shape[:2], v.shape[2:-1].numel(), v.shape[-1])
        .transpose(1, 2)
        for v in (estimate, target)
    )
    inside = bits(e.shape[2], e.device).to(e.dtype)
    power = x.square().sum(3)
    # |x - sum e|**2 of every subset, by the products of pairs
    own = ((inside @ (e @ e.mT)) * inside).sum(3)
    noise = power.unsqueeze(3) - 2 * ((x @ e.mT) @ inside.T) + own.unsqueeze(2)
    size = e.shape[3] if lengths is None else lengths.clamp(min=1).to(e.dtype).view(-1, 1, 1)
    signal = torch.where(power == 0, size, power)
    cost = DECIBEL * (noise.relu() / signal.unsqueeze(3) + 10 ** (-cap / 10)).log()
    if silent == "skip":
        cost = cost.masked_fill((power == 0).unsqueeze(3), 0.0)
    return partitioned(cost.mean(1))


def _shown(signals: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return signals
    inside = torch.arange(signals.shape[-1], device=signals.device) < lengths.unsqueeze(1)
    return torch.where(
        inside.view(len(signals), *[1] * (signals.ndim - 2), signals.shape[-1]), signals, 0.0
    )


def _powers(target: Tensor, lengths: Tensor | None) -> Tensor:
    return to_widest(_shown(target.detach(), lengths)).square().sum(-1).flatten(1)


def _check(estimate: Tensor, target: Tensor, lengths: Tensor | None) -> None:
    check_shapes(estimate=(estimate, "N M *S"), target=(target, "N K *S"))
    mixtures = target.shape[1] if target.ndim > 1 else 0
    most = MOST if mixtures < 3 else _MOST_OF_MANY
    if estimate.ndim < 3 or not 1 <= estimate.shape[1] <= most or not mixtures:
        raise ValueError(
            f"estimate: got {tuple(estimate.shape)} for target {tuple(target.shape)}, wanted "
            f"(N, M, ..., T) with 1 to {most} sources M of {mixtures} mixtures"
        )
    check_signals(target, target, lengths)


class MixtureInvariantLoss(LossModule):
    """Module form of :func:`mixture_invariant_loss`; same options, same defaults."""

    def __init__(
        self, cap: float = 30.0, silent: Silent = "level", reduction: Reduction = "mean"
    ) -> None:
        check_options(False, cap, silent, reduction)
        super().__init__(cap=cap, silent=silent, reduction=reduction)

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against the mixtures ``target``."""
        return mixture_invariant_loss(estimate, target, lengths=lengths, **self.options())
