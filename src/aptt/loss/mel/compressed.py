"""Complex spectra of two signals, compressed as hearing does, phase and all.

    X^c    = |X|**c X / |X|, linear below the floor
    loss   = (1 - b) mean (|X^c| - |Y^c|)**2 + b mean |X^c - Y^c|**2

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: Ephrat et al. 2018, arXiv:1804.03619; Braun and Tashev 2020, arXiv:2009.12286.
"""

from __future__ import annotations

import math

from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_number, check_positive
from aptt.core.compressed import COMPRESSED
from aptt.core.frames import Framing, Resolution
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, named, reduce
from aptt.core.signals import check_signals, count_samples
from aptt.loss.mel.settings import check_one

__all__ = ["ComplexSTFTLoss", "complex_stft_loss", "complex_stft_terms"]


def complex_stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    n_fft: int = 512,
    hop_length: int | None = None,
    win_length: int | None = None,
    framing: Framing = "center",
    compression: float = 0.3,
    complex_weight: float = 0.3,
    floor: float = 1e-5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Compressed complex spectra: magnitudes and phases, quiet sounds beside loud ones.

        (1 - b) mean (|X|**c - |Y|**c)**2 + b mean |X|X|**(c - 1) - Y|Y|**(c - 1)|**2

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        n_fft: the length of the transform.
        hop_length: samples from frame to frame; None: a quarter of ``n_fft``.
        win_length: samples in the periodic Hann window; None: ``n_fft``.
        framing: ``"center"`` reflects ``n_fft // 2`` samples on either side; ``"tight"`` half of
            ``n_fft - hop_length``; ``"full"`` likewise, with zeros to a full frame.
        compression: c, above 0, to 1, which compresses nothing.
        complex_weight: b, the part of the complex term, from 0 to 1; the magnitudes have the rest.
        floor: the magnitude below which nothing is compressed: so the slope at silence is finite.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the signals without T.
        float32 for half types. :func:`complex_stft_terms` has its terms.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it; at exact silence too, where
    it leads to the target, along the complex term.

    Use when:
        Speech is enhanced, and the phase should be right as well.

    Elsewhere:
        CMGAN, GTCRN, MP-SENet, BSRNN, each with weights and exponents of its own.

    Differs from:
        all: ``|X|**c`` has an infinite slope at silence, and NaN in ``X / |X|``; above the floor
            the two are the same to the fifth digit from 300 times it on.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> round(complex_stft_loss(0.5 * noise, noise).item(), 3)
        0.153
        >>> round(complex_stft_loss(-noise, noise).item(), 3)  # magnitudes alone see no difference
        5.212
    """
    weights = _checked(compression, complex_weight, floor, reduction)
    return _distance(
        estimate, target, lengths, _resolution(n_fft, hop_length, win_length, framing),
        compression, floor, weights, reduction, "complex_stft",
    )  # fmt: skip


def complex_stft_terms(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    n_fft: int = 512,
    hop_length: int | None = None,
    win_length: int | None = None,
    framing: Framing = "center",
    compression: float = 0.3,
    floor: float = 1e-5,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`complex_stft_loss`, each before its weight.

        {"magnitude": mean (|X^c| - |Y^c|)**2, "complex": mean |X^c - Y^c|**2}

    Args are those of :func:`complex_stft_loss`; a normalizer is called for the names of the terms.

    Returns:
        ``{"magnitude": ..., "complex": ...}``.

    Use when:
        Both are to be logged; the spectra are computed for each.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> terms = complex_stft_terms(-noise, noise)
        >>> {name: round(term.item(), 2) for name, term in terms.items()}
        {'magnitude': 0.0, 'complex': 17.37}
    """
    _checked(compression, 0.5, floor, reduction)
    resolution = _resolution(n_fft, hop_length, win_length, framing)
    return {
        name: _distance(
            estimate, target, lengths, resolution, compression, floor, weights,
            named(reduction, name), name,
        )
        for name, weights in (("magnitude", (1.0, 0.0)), ("complex", (0.0, 1.0)))
    }  # fmt: skip


def _checked(
    compression: float, complex_weight: float, floor: float, reduction: Reduction
) -> tuple[float, float]:
    """The weights of the two terms, of options that exist."""
    check_positive("compression", compression)
    check_number("compression", compression, 0.0, 1.0)
    check_number("complex_weight", complex_weight, 0.0, 1.0)
    check_positive("floor", floor)
    check_reduction(reduction)
    return 1.0 - complex_weight, float(complex_weight)


def _resolution(
    n_fft: int, hop_length: int | None, win_length: int | None, framing: Framing
) -> Resolution:
    check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
    check_choice("framing", framing, ("center", "tight", "full"))
    hop, win = hop_length or n_fft // 4 or 1, win_length or n_fft
    for name, size in (("hop_length", hop), ("win_length", win)):
        if size > n_fft:
            raise ValueError(f"{name}: got {size}, wanted at most n_fft={n_fft}")
    return Resolution(n_fft, hop, win, framing)


def _distance(
    estimate: Tensor,
    target: Tensor,
    lengths: Numbers | None,
    resolution: Resolution,
    compression: float,
    floor: float,
    weights: tuple[float, float],
    reduction: Reduction,
    term: str,
) -> Tensor:
    lengths = check_signals(estimate, target, lengths)
    shape = estimate.shape[:-1]
    x, t = (v.reshape(math.prod(shape), v.shape[-1]) for v in (estimate, target))
    n = keep = None
    if lengths is not None or x.shape[1] == 0:
        n = count_samples(estimate, lengths)
        keep = n > 0
    value = reduce(
        COMPRESSED,
        x,
        t,
        n,
        weight=keep,
        count=lambda: len(x) if keep is None else keep.sum(),
        reduction=reduction,
        term=term,
        resolution=resolution,
        exponent=compression,
        floor=floor,
        weights=weights,
    )
    return value.reshape(shape) if reduction == "none" else value


class ComplexSTFTLoss(LossModule):
    """Module form of :func:`complex_stft_loss`; same options, same defaults."""

    terms_function = staticmethod(complex_stft_terms)

    def __init__(
        self,
        n_fft: int = 512,
        hop_length: int | None = None,
        win_length: int | None = None,
        framing: Framing = "center",
        compression: float = 0.3,
        complex_weight: float = 0.3,
        floor: float = 1e-5,
        reduction: Reduction = "mean",
    ) -> None:
        _checked(compression, complex_weight, floor, reduction)
        _resolution(n_fft, hop_length, win_length, framing)
        super().__init__(
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            framing=framing,
            compression=compression,
            complex_weight=complex_weight,
            floor=floor,
            reduction=reduction,
        )

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return complex_stft_loss(estimate, target, lengths=lengths, **self.options())
