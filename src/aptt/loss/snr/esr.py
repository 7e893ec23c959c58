"""Error to signal, as models of amplifiers and effects are trained: ratios, not decibels.

    ESR   sum (e - s)**2 / sum s**2 = 10**(-SNR / 10)
    DC    (mean (e - s))**2 / mean s**2

Axes: estimate e and target s ``(..., T)``, one value for each signal of T samples.
From: Wright and Välimäki 2020, "Perceptual loss function for neural modeling of audio systems",
arXiv:1911.08922, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_number
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.module import LossModule
from aptt.core.precision import to_widest, wide, widen
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.signals import brightened, check_signals, energy, present, stretched
from aptt.loss.snr.decibels import Silent, evaluated, samples

__all__ = ["DCLoss", "ESRLoss", "dc_loss", "esr_loss"]


def esr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    pre_emphasis: float = 0.0,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """Error-to-signal ratio: the energy of the error over that of the target.

        sum (e - s)**2 / sum s**2

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        pre_emphasis: c of ``y[n] = x[n] - c x[n - 1]``, which both signals go through first, from
            0, as they are, to 1: 0.85 at 44.1 kHz, 0.95 to 0.97 for speech.
        silent: a target without energy: ``"level"`` takes the mean square of the estimate instead;
            ``"skip"`` removes the signal.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, and 1 for silence: a scalar, or with ``"none"`` the shape of the
        signals without T. float32 for half types.

    Raises:
        ValueError: shapes that differ, lengths beyond T (on CPU), an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it; nothing depends on the level.

    Use when:
        Amplifiers and effects are modelled, with ``dc_loss`` beside it.

    Elsewhere:
        auraloss ``ESRLoss``, Automated-GuitarAmpModelling, Neural Amp Modeler.

    Differs from:
        auraloss: no epsilon, which makes quiet signals cost less and silence 1e8; its filters of
            pre-emphasis change the length.

    Example:
        >>> import torch
        >>> e, s = torch.tensor([1.0, 2, 3, 5]), torch.tensor([1.0, 2, 3, 4])
        >>> round(esr_loss(e, s).item(), 6), round(esr_loss(e, s, pre_emphasis=0.85).item(), 6)
        (0.033333, 0.163532)
    """
    return _evaluated(_ESR, estimate, target, lengths, pre_emphasis, silent, reduction, "esr")


def dc_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """The offset of an estimate against its target, squared, over the power of the target.

        (mean (e - s))**2 / mean s**2

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        silent: a target without energy: ``"level"`` takes the squared mean of the estimate
            instead; ``"skip"`` removes the signal.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the signals without T.
        float32 for half types.

    Raises:
        ValueError: shapes that differ, lengths beyond T (on CPU), an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it; nothing depends on the level.

    Use when:
        Beside ``esr_loss`` with pre-emphasis, which hardly hears an offset.

    Elsewhere:
        auraloss ``DCLoss``, Automated-GuitarAmpModelling.

    Differs from:
        auraloss: no epsilon, as for ``esr_loss``.

    Example:
        >>> import torch
        >>> e, s = torch.tensor([1.0, 2, 3, 5]), torch.tensor([1.0, 2, 3, 4])
        >>> round(dc_loss(e, s).item(), 7)
        0.0083333
    """
    return _evaluated(_DC, estimate, target, lengths, 0.0, silent, reduction, "dc")


def _evaluated(
    formula: Formula,
    estimate: Tensor,
    target: Tensor,
    lengths: Numbers | None,
    pre_emphasis: float,
    silent: Silent,
    reduction: Reduction,
    term: str,
) -> Tensor:
    check_number("pre_emphasis", pre_emphasis, 0.0, 1.0)
    if pre_emphasis:
        lengths = check_signals(estimate, target, lengths)
        target = target.to(wide(estimate.dtype))
        # of the error and not of both signals, whose filtered difference would lose its digits
        estimate = brightened(widen(estimate) - target, pre_emphasis)
        target, formula = brightened(target, pre_emphasis), _ESR_OF_ERROR
    return evaluated(
        formula, estimate, target, lengths=lengths, zero_mean=False, cap=100.0, silent=silent,
        reduction=reduction, term=term,
    )  # fmt: skip


def _whole(t: Tensor, n: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """The energy of the target, of full scale where it is silent; and how many samples it has."""
    power = energy(t)
    size = samples(power, t, n)
    return torch.where(power == 0, size, power), size


def _error(x: Tensor, t: Tensor, n: Tensor | None, **_: object) -> Kept:
    x, t = present(x, n), present(t, n)
    whole, _size = _whole(t, n)
    return energy(x - t) / whole, whole.rsqrt()


def _given(x: Tensor, t: Tensor, n: Tensor | None, **_: object) -> Kept:
    whole, _size = _whole(present(t, n), n)
    return energy(present(x, n)) / whole, whole.rsqrt()


def _offset(x: Tensor, t: Tensor, n: Tensor | None, **_: object) -> Kept:
    x, t = present(x, n), present(t, n)
    whole, size = _whole(t, n)
    mean = to_widest(x - t).sum(1) / size
    return mean.square() * (size / whole), mean / whole


def _result(x: Tensor, kept: Kept, *_: object, **__: object) -> Tensor:
    return kept[0].to(x.dtype)


def _error_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, n: Tensor | None, **_: object
) -> tuple[Tensor | None, Tensor]:
    # d |e - s|**2 = 2 (e - s); the root of the energy twice, which the range of d holds
    known = bool(kept)
    value, root = kept or _error(x, t, n)
    dx = stretched(present(x, n), present(t, n), root, root * up)
    return None if known else value.to(x.dtype), dx if n is None else present(dx, n)


def _given_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, n: Tensor | None, **_: object
) -> tuple[Tensor | None, Tensor]:
    known = bool(kept)
    value, root = kept or _given(x, t, n)
    dx = stretched(present(x, n), torch.zeros_like(x), root, root * up)
    return None if known else value.to(x.dtype), dx if n is None else present(dx, n)


def _offset_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, n: Tensor | None, **_: object
) -> tuple[Tensor | None, Tensor]:
    # the same slope for every sample, 2 mean / (n mean s**2)
    known = bool(kept)
    value, slope = kept or _offset(x, t, n)
    dx = by_row((2 * slope * up).to(x.dtype)).expand_as(x).contiguous()
    return None if known else value.to(x.dtype), dx if n is None else present(dx, n)


_ESR = Formula(_result, _error_step, _error, ahead=True)
_ESR_OF_ERROR = Formula(_result, _given_step, _given, ahead=True)
_DC = Formula(_result, _offset_step, _offset, ahead=True)


class ESRLoss(LossModule):
    """Module form of :func:`esr_loss`; same options, same defaults."""

    def __init__(
        self, pre_emphasis: float = 0.0, silent: Silent = "level", reduction: Reduction = "mean"
    ) -> None:
        check_number("pre_emphasis", pre_emphasis, 0.0, 1.0)
        check_choice("silent", silent, ("level", "skip"))
        check_reduction(reduction)
        super().__init__(pre_emphasis=pre_emphasis, silent=silent, reduction=reduction)

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return esr_loss(estimate, target, lengths=lengths, **self.options())


class DCLoss(LossModule):
    """Module form of :func:`dc_loss`; same options, same defaults."""

    def __init__(self, silent: Silent = "level", reduction: Reduction = "mean") -> None:
        check_choice("silent", silent, ("level", "skip"))
        check_reduction(reduction)
        super().__init__(silent=silent, reduction=reduction)

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return dc_loss(estimate, target, lengths=lengths, **self.options())
