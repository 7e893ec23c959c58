"""Losses of signals: auraloss, asteroid, torchmetrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit import Inputs, Options
from aptt.audit.specs.making import normal
from benchmarks.peers import part_of
from docs.builder.peers.peer import HALVES, Peer, equal, of

__all__ = ["AUDIO"]

_T = 512
_METRIC = {"nothing_left_is_zero": "it returns a ratio for each signal; their mean is the card's"}


def _auraloss(module: str, name: str, **options: Any) -> Peer:
    return Peer(
        library="auraloss",
        name=name,
        load=of(f"auraloss.{module}", name),
        kind="waveforms",
        options=options,
        choices=HALVES,
    )


def _asteroid(name: str, load: Callable[[], Any], **how: Any) -> Peer:
    return Peer(library="asteroid", name=name, load=load, choices=HALVES, **how)


def _single(kind: str) -> Peer:
    """Its aliases, such as ``singlesrc_neg_sisdr``, with the mean that they do not take."""

    def load() -> Any:
        sdr = part_of("asteroid", "losses.sdr")
        return sdr.SingleSrcNegSDR(kind, reduction="mean")

    return _asteroid(f'SingleSrcNegSDR("{kind}", reduction="mean")', load, kind="waveforms")


def _permuted() -> Any:
    wrapper = part_of("asteroid", "losses.pit_wrapper").PITLossWrapper
    return wrapper(part_of("asteroid", "losses.sdr").PairwiseNegSDR("sisdr"))


def _mixed() -> Any:
    wrapper = part_of("asteroid", "losses.mixit_wrapper").MixITLossWrapper
    return wrapper(part_of("asteroid", "losses.sdr").MultiSrcNegSDR("snr"))


def _torchmetrics(name: str, loss: Callable[[Any], Any], **how: Any) -> Peer:
    """A ratio, which is the better the larger it is, as a loss."""
    load = lambda: loss(of("torchmetrics.functional.audio", name)())  # noqa: E731
    return Peer(
        library="torchmetrics",
        name=f"-{name}",
        load=load,
        choices=HALVES,
        unasked=_METRIC,
        **how,
    )


def _negated(ratio: Any) -> Any:
    def loss(preds: Tensor, target: Tensor) -> Tensor:
        return -ratio(preds, target).mean()

    return loss


def _best_negated(invariant: Any) -> Any:
    ratio = of("torchmetrics.functional.audio", "scale_invariant_signal_distortion_ratio")()

    def loss(preds: Tensor, target: Tensor) -> Tensor:
        return -invariant(preds, target, ratio)[0].mean()

    return loss


# ------------------------------------------------------------------------- inputs with sources


def _sources(first: str, second: str) -> Callable[[Generator, int], Inputs]:
    """Two sources, the estimates of which are in the other order."""

    def made(g: Generator, n: int) -> Inputs:
        target = normal(g, n, 2, _T)
        return {first: target.flip(1) + 0.3 * normal(g, n, 2, _T), second: target}

    return made


def _late(name: str, target: str) -> Callable[[Inputs, Options], Inputs]:
    """Estimates that have nothing of the targets: noise, a while later."""
    return lambda inputs, options: {**inputs, name: inputs[target].roll(100, -1)}


def _mixtures(g: Generator, n: int) -> Inputs:
    sources = normal(g, n, 4, _T)
    estimates = sources[:, [2, 0, 3, 1]] + 0.3 * normal(g, n, 4, _T)
    return {"est_targets": estimates, "targets": sources.unflatten(1, (2, 2)).sum(2)}


def _unmixed(inputs: Inputs, options: Options) -> tuple[Inputs, None]:
    """Estimates whose sums are the mixtures."""
    half = inputs["targets"] / 2
    return {**inputs, "est_targets": torch.cat((half, half), 1)}, None


def _mixed_late(inputs: Inputs, options: Options) -> Inputs:
    late = inputs["targets"].roll(100, -1) / 2
    return {**inputs, "est_targets": torch.cat((late, late), 1)}


AUDIO: tuple[Peer, ...] = (
    _auraloss("time", "SNRLoss"),
    _auraloss("time", "SISDRLoss"),
    _auraloss("freq", "STFTLoss"),
    _auraloss("freq", "MultiResolutionSTFTLoss"),
    _single("snr"),
    _single("sisdr"),
    _single("sdsdr"),
    _asteroid(
        'PITLossWrapper(PairwiseNegSDR("sisdr"))',
        _permuted,
        inputs=_sources("est_targets", "targets"),
        told={
            "perfect": equal("est_targets", "targets"),
            "hopeless": _late("est_targets", "targets"),
        },
    ),
    _asteroid(
        'MixITLossWrapper(MultiSrcNegSDR("snr"))',
        _mixed,
        inputs=_mixtures,
        told={"perfect": _unmixed, "hopeless": _mixed_late},
    ),
    _torchmetrics("signal_noise_ratio", _negated, kind="waveforms"),
    _torchmetrics("scale_invariant_signal_distortion_ratio", _negated, kind="waveforms"),
    _torchmetrics("scale_invariant_signal_noise_ratio", _negated, kind="waveforms"),
    _torchmetrics(
        "permutation_invariant_training",
        _best_negated,
        inputs=_sources("preds", "target"),
        told={"perfect": equal("preds", "target"), "hopeless": _late("preds", "target")},
    ),
)
