"""Rows of the losses between signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from aptt.audit.spec import Case, Inputs, Maker, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, normal
from aptt.loss import (
    ComplexSTFTLoss,
    DCLoss,
    ESRLoss,
    MelLoss,
    MixtureInvariantLoss,
    MultiResolutionSTFTLoss,
    PermutationInvariantLoss,
    SASDRLoss,
    SDSDRLoss,
    SISDRLoss,
    SISNRLoss,
    SNRLoss,
    STFTLoss,
    complex_stft_loss,
    dc_loss,
    esr_loss,
    mel_loss,
    mixture_invariant_loss,
    multi_resolution_stft_loss,
    permutation_invariant_loss,
    sa_sdr_loss,
    sd_sdr_loss,
    si_sdr_loss,
    si_snr_loss,
    snr_loss,
    stft_loss,
)

__all__ = ["WAVES"]


_HOP = 9
_JUMP = "a target that is no longer silent is judged by a ratio: its loss jumps"


def _signals(*shape: int, offset: float = 0.0) -> Maker:
    def made(g: Generator, n: int) -> Inputs:
        target = normal(g, n, *shape)
        noise = normal(g, n, *shape, scale=0.5)
        return {"estimate": 0.8 * target + noise + offset, "target": target + offset}

    return made


def _some_of(sources: int, size: int) -> Maker:
    """Fewer targets than estimates, of which some are not there."""

    def made(g: Generator, n: int) -> Inputs:
        inputs = _signals(sources, size)(g, n)
        active = torch.rand(n, sources - 2, generator=g) < 0.7
        return {**inputs, "target": inputs["target"][:, :-2], "active": active}

    return made


def _mixtures(count: int) -> Maker:
    """Mixtures of three sources, and estimates of those."""

    def made(g: Generator, n: int) -> Inputs:
        sources = normal(g, n, 3, 7)
        parts = [sources[:, k::count].sum(1) for k in range(count)]
        noise = normal(g, n, 3, 7, scale=0.3)
        return {"estimate": sources + noise, "target": torch.stack(parts, 1)}

    return made


def _half_silent(g: Generator, n: int) -> Inputs:
    inputs = _mixtures(2)(g, n)
    inputs["target"][::3, 1] = 0
    return inputs


def _exchanged(sources: int, size: int) -> Maker:
    """Estimates in another order than their targets."""

    def made(g: Generator, n: int) -> Inputs:
        inputs = _signals(sources, size)(g, n)
        return {**inputs, "estimate": inputs["estimate"].flip(1)}

    return made


def _mute(sources: int, size: int) -> Maker:
    def made(g: Generator, n: int) -> Inputs:
        inputs = _signals(sources, size)(g, n)
        inputs["target"][1::3] = 0
        return inputs

    return made


def _heard_mixtures(inputs: Inputs, options: Options) -> Tensor | float:
    heard = inputs["target"].flatten(1).any(1)
    return heard.sum() if options.get("silent") == "skip" else len(heard)


def _clicks(*shape: int, at: int = 0) -> Maker:
    """Noise with a click amid each frame of nine, so that no frequency is missing.

    Where one is, the slope of its logarithm, and the phase it goes along, are all rounding.
    """

    def made(g: Generator, n: int) -> Inputs:
        time = torch.arange(shape[-1])
        clicks = 4.0 * (time % _HOP == at)
        if len(shape) == 2:  # channels apart, so that their difference has clicks too
            clicks = clicks * torch.arange(1, 1 + shape[0]).unsqueeze(1)
        noisy = [clicks * (1 + 0.3 * k) + normal(g, n, *shape, scale=0.2) for k in range(2)]
        return {"estimate": noisy[0], "target": noisy[1]}

    return made


def _ragged(make: Maker, least: int = 5) -> Maker:
    """Signals of which the last samples are padding, of some."""

    def made(g: Generator, n: int) -> Inputs:
        inputs = make(g, n)
        size = inputs["estimate"].shape[-1]
        lengths = size - torch.arange(n) % (size - least)
        return {**inputs, "lengths": lengths}

    return made


def _some_silent(make: Maker) -> Maker:
    """Every third target is silent."""

    def made(g: Generator, n: int) -> Inputs:
        inputs = make(g, n)
        inputs["target"][1::3] = 0
        return inputs

    return made


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    size = inputs["estimate"].shape[-1]
    full = torch.full((len(keep),), size, device=keep.device)
    lengths = inputs.get("lengths", full)
    return {**inputs, "lengths": lengths.masked_fill(~keep.flatten(1).any(1), 0)}


def _each(inputs: Inputs, options: Options) -> float:
    return math.prod(inputs["estimate"].shape[:-1])


def _heard(inputs: Inputs, options: Options) -> float:
    return float(inputs["target"].abs().amax(-1).count_nonzero())


def _counted(inputs: Inputs, options: Options) -> float:
    return _heard(inputs, options) if options.get("silent") == "skip" else _each(inputs, options)


def _rolled(inputs: Inputs, options: Options) -> Inputs:
    return {**inputs, "estimate": 3 * inputs["target"].roll(1, -1)}


def _measured(inputs: Inputs, unit: float) -> Inputs:
    return {k: t * unit if t.is_floating_point() else t for k, t in inputs.items()}


def _levels() -> Inputs:
    """Signals of every level, equal, opposite, orthogonal, silent; 64 samples."""
    g = torch.Generator().manual_seed(11)
    target, noise = normal(g, 6, 64), normal(g, 6, 64)
    estimate = target + 10.0 ** -torch.arange(6).unsqueeze(1) * noise
    estimate[1], estimate[3], estimate[5] = -2 * target[1], target[3], 3 * target[5]
    estimate[0] = noise[0] - (noise[0] @ target[0]) / (target[0] @ target[0]) * target[0]
    scales = (1.0, 1e-8, 1e-4, 1e4)
    parts = [(estimate * s, target * s) for s in scales]
    none = torch.zeros(1, 64, dtype=torch.float64)
    parts += [(none, target[:1]), (target[:1], none), (none, none), (none + 1, target[1:2])]
    parts += [(target[:1] * 0.1, target[:1] * 10.0), (target[:1] * 1e3 + noise[:1], target[:1])]
    return {
        "estimate": torch.cat([e for e, _ in parts]),
        "target": torch.cat([t for _, t in parts]),
    }


_OTHERS = (
    Refused("lengths beyond T", "lengths", change=lambda i: _with_lengths(i, 1000)),
    Refused("negative lengths", "lengths", change=lambda i: _with_lengths(i, -1)),
    Refused(
        "lengths that are not whole",
        "lengths",
        change=lambda i: {**i, "lengths": torch.ones(len(i["estimate"]))},
        error=TypeError,
    ),
    Refused("lengths of one", "lengths", change=lambda i: {**i, "lengths": torch.ones(1).long()}),
)


def _with_lengths(inputs: Inputs, length: int) -> Inputs:
    return {**inputs, "lengths": torch.full((len(inputs["estimate"]),), length)}


def _at_most(which: str) -> Callable[[Inputs], Tensor]:
    """What the docstring says: 4.35 * 10**(cap / 20) over the norm of a signal, silent at 1."""

    def bound(inputs: Inputs) -> Tensor:
        norm = inputs[which].norm(dim=-1, keepdim=True)
        unit = math.sqrt(inputs[which].shape[-1])
        return 4.35e5 / torch.where(norm > 0, norm, unit)

    return bound


def _ratios(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    *,
    centred: bool = False,
    bound: Callable[[Inputs], Tensor] | None = None,
    exempt: Mapping[str, str] = NOTHING_FROZEN,
) -> Spec:
    plain = _signals(17)
    unlike = {"perfect_is_minimal": "the best is not one signal: silence, where there is none"}
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=plain,
        cases={
            "signals": case(),
            "ragged, capped": case(_ragged(plain), cap=20.0, reduction="none"),
            "means the other way": case(
                _signals(2, 9, offset=0.7), zero_mean=not centred, reduction="sum"
            ),
            "some silent, skipped": case(
                _some_silent(plain),
                silent="skip",
                exempt={
                    **unlike,
                    "hopeless_keeps_a_gradient": "what is skipped has none, by definition",
                    "gradient_reaches_all_who_ask": _JUMP,
                },
            ),
            "some silent": case(
                _some_silent(plain),
                exempt={
                    **unlike,
                    "hopeless_keeps_a_gradient": "the hopeless is made of the target, silent here",
                    "gradient_reaches_all_who_ask": _JUMP,
                    "scale_invariance": "the level of a silent target's estimate has a unit",
                },
            ),
        },
        joint=True,
        hide=_hide,
        count=_counted,
        perfect=lambda i, o: ({**i, "estimate": i["target"]}, -float(o.get("cap", 100.0))),
        least_within=256.0,
        hopeless=_rolled,
        extremes=_levels,
        bound=bound,
        scaling=Scaling(_measured),
        refused=(
            Refused("a cap beyond double precision", "cap", {"cap": 200.0}),
            Refused("an unknown policy", "silent", {"silent": "ignore"}),
            *_OTHERS,
        ),
        exempt=exempt,
    )


def _errors(
    function: Callable[..., Tensor], module: Callable[..., nn.Module], **options: Any
) -> Spec:
    plain = _signals(9)
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=plain,
        cases={
            "signals": case(),
            "ragged": case(_ragged(plain), reduction="sum", **options),
            "some silent, skipped": case(
                _some_silent(plain),
                silent="skip",
                exempt={
                    "perfect_is_minimal": "the best is silence, where there is no target",
                    "hopeless_keeps_a_gradient": "what is skipped has none, by definition",
                    "gradient_reaches_all_who_ask": _JUMP,
                },
            ),
        },
        joint=True,
        hide=_hide,
        count=_counted,
        perfect=lambda i, o: ({**i, "estimate": i["target"]}, 0.0),
        hopeless=lambda i, o: {**i, "estimate": i["target"] + 3},
        extremes=_levels,
        scaling=Scaling(_measured),
        refused=(Refused("an unknown policy", "silent", {"silent": "ignore"}), *_OTHERS),
        exempt=NOTHING_FROZEN,
    )


_FLOOR = {"scale_invariance": "the floor is a level: louder signals stand further above it"}


def _spectra(
    function: Callable[..., Tensor],
    module: Callable[..., nn.Module],
    cases: Mapping[str, Case],
    refused: tuple[Refused, ...],
) -> Spec:
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_clicks(30),
        cases=cases,
        joint=True,
        hide=_hide,
        count=_each,
        perfect=lambda i, o: ({**i, "estimate": i["target"]}, 0.0),
        hopeless=lambda i, o: {**i, "estimate": 30 * i["target"].roll(1, -1)},
        extremes=_loud_and_quiet,
        refused=(
            Refused("sum and difference of one", "stereo", {"stereo": "sum_difference"}),
            Refused("an unknown channel", "stereo", {"stereo": "left"}),
            Refused("an unknown framing", "framing", {"framing": "valid"}),
            Refused("an unknown logarithm", "log", {"log": "log2"}),
            Refused("a floor of 0", "floor", {"floor": 0.0}),
            Refused("an unknown floor", "floor_by", {"floor_by": "max"}),
            Refused("cubes", "power", {"power": 3}),
            Refused("steps that leave gaps", "hop_length", {"hop_length": 2000}),
            Refused("a window beyond the transform", "win_length", {"win_length": 2000}),
            Refused("no transform", "n_fft", {"n_fft": 0}),
            Refused("a negative weight", "linear_weight", {"linear_weight": -1.0}),
            Refused("an unknown window", "window", {"window": "kaiser"}),
            Refused("a window of one", "window", {"window": torch.ones(1)}),
            Refused("an unknown curve", "frequency_weight", {"frequency_weight": "c"}),
            Refused("one frequency", "frequency_weight", {"frequency_weight": torch.ones(1)}),
            Refused("an unknown distance", "log_distance", {"log_distance": "l3"}),
            Refused("another", "linear_distance", {"linear_distance": "l0"}),
            Refused("a filter that rings", "pre_emphasis", {"pre_emphasis": 1.5}),
            Refused("weights of no sum", "stereo_weight", {"stereo_weight": (1.0, 0.5)}),
            *refused,
            *_OTHERS,
        ),
        exempt={**NOTHING_FROZEN, **_FLOOR},
    )


def _loud_and_quiet() -> Inputs:
    g = torch.Generator().manual_seed(12)
    inputs = _clicks(30)(g, 4)
    estimate, target = inputs["estimate"], inputs["target"]
    none = torch.zeros(4, 30, dtype=torch.float64)
    pairs = [(estimate * s, target * s) for s in (1.0, 1e-8, 1e-4, 1e3)]
    pairs += [(none, target), (estimate, none), (none, none), (target, target)]
    pairs += [(1e-4 * estimate, 1e3 * target), (1e3 * estimate, 1e-4 * target)]
    return {
        "estimate": torch.cat([e for e, _ in pairs]),
        "target": torch.cat([t for _, t in pairs]),
    }


_ALL_WEIGHTS: dict[str, Any] = {
    "log_weight": 0.5,
    "linear_weight": 0.25,
    "convergence_weight": 0.75,
    "sample_rate": 16,
    "frequency_weight": "a",
    "log_distance": "l2",
    "linear_distance": "l2",
    "pre_emphasis": 0.5,
    "stereo": "sum_difference",
    "stereo_weight": (0.5, 2.0),
}
_UNLIKE: dict[str, Any] = {
    "window": "hamming",
    "framing": "tight",
    "power": 2,
    "log": "log10",
    "floor": 18.0,
    "floor_by": "clamp",
}

WAVES = (
    _ratios(snr_loss, SNRLoss, bound=_at_most("target")),
    _ratios(si_sdr_loss, SISDRLoss, bound=_at_most("estimate")),
    _ratios(si_snr_loss, SISNRLoss, centred=True, bound=_at_most("estimate")),
    _ratios(sd_sdr_loss, SDSDRLoss),
    Spec(
        name="permutation_invariant_loss",
        function=permutation_invariant_loss,
        module=PermutationInvariantLoss,
        inputs=_signals(3, 9),
        cases={
            "three sources": case(loss=si_sdr_loss),
            "by SNR, ragged": case(_ragged(_signals(2, 9)), loss=snr_loss, reduction="none"),
            "four, of two channels": case(_signals(4, 2, 5), loss=si_sdr_loss, reduction="sum"),
            "one of three": case(
                _some_of(3, 7),
                loss=snr_loss,
                unmatched="silence",
                exempt={
                    "perfect_is_minimal": "the best estimate of nobody is silence, at its own cap",
                    "hopeless_keeps_a_gradient": "the hopeless is made of targets, fewer here",
                    "scale_invariance": "the level of what nobody said has a unit",
                },
            ),
        },
        joint=True,
        hide=_hide,
        count=lambda i, o: len(i["estimate"]),
        perfect=lambda i, o: ({**i, "estimate": i["target"].flip(1)}, -100.0),
        least_within=256.0,
        hopeless=_rolled,
        scaling=Scaling(_measured),
        refused=(
            Refused("no loss", "loss", {"loss": "snr"}, error=TypeError),
            Refused(
                "more targets than estimates",
                "target",
                change=lambda i: {**i, "estimate": i["estimate"][:, :1]},
            ),
            Refused("an unknown policy", "unmatched", {"unmatched": "drop"}),
            *_OTHERS,
        ),
        exempt={
            **NOTHING_FROZEN,
            "streamed_equals_plain": "one walk for each pair of sources; its loss has a row",
            "finite_at_extremes": "its loss has a row; which of equal orders is taken is open",
        },
    ),
    _errors(esr_loss, ESRLoss, pre_emphasis=0.85),
    _errors(dc_loss, DCLoss),
    Spec(
        name="sa_sdr_loss",
        function=sa_sdr_loss,
        module=SASDRLoss,
        inputs=_signals(2, 9),
        cases={
            "in order": case(),
            "in any order, ragged": case(
                _ragged(_exchanged(2, 9)), any_order=True, cap=30.0, reduction="sum"
            ),
            "heard alone": case(
                _mute(2, 9),
                silent="skip",
                exempt={
                    "perfect_is_minimal": "the best is silence, where there is no target",
                    "hopeless_keeps_a_gradient": "what is skipped has none, by definition",
                    "gradient_reaches_all_who_ask": _JUMP,
                },
            ),
        },
        joint=True,
        hide=_hide,
        count=_heard_mixtures,
        perfect=lambda i, o: ({**i, "estimate": i["target"]}, -o.get("cap", 100.0)),
        least_within=256.0,
        hopeless=_rolled,
        extremes=lambda: {k: t.unsqueeze(1) for k, t in _levels().items()},
        scaling=Scaling(_measured),
        refused=(Refused("an infinite cap", "cap", {"cap": 121.0}), *_OTHERS),
        exempt=NOTHING_FROZEN,
    ),
    Spec(
        name="mixture_invariant_loss",
        function=mixture_invariant_loss,
        module=MixtureInvariantLoss,
        inputs=_mixtures(2),
        cases={
            "two mixtures": case(),
            "three, ragged": case(_ragged(_mixtures(3)), cap=20.0, reduction="sum"),
            "heard alone": case(
                _half_silent,
                silent="skip",
                exempt={
                    "gradient_reaches_all_who_ask": _JUMP,
                    "hopeless_keeps_a_gradient": "what is worst is put where nobody listens",
                },
            ),
        },
        joint=True,
        hide=_hide,
        count=lambda i, o: len(i["estimate"]),
        hopeless=lambda i, o: {**i, "estimate": 5 * i["estimate"].roll(1, -1)},
        scaling=Scaling(_measured),
        refused=(
            Refused("an infinite cap", "cap", {"cap": 121.0}),
            Refused(
                "thirteen sources",
                "estimate",
                change=lambda i: {**i, "estimate": i["estimate"].repeat(1, 5, 1)[:, :13]},
            ),
            *_OTHERS,
        ),
        exempt={
            **NOTHING_FROZEN,
            "perfect_is_minimal": "the sources are not known: many estimates are the best one",
            "streamed_equals_plain": "the SNR that it walks has a row; the mixing is no walk",
            "finite_at_extremes": "the SNR has a row; which of equal mixings is taken is open",
        },
    ),
    Spec(
        name="complex_stft_loss",
        function=complex_stft_loss,
        module=ComplexSTFTLoss,
        inputs=_clicks(30),
        cases={
            "compressed": case(n_fft=16, hop_length=_HOP),
            "ragged": case(
                _ragged(_clicks(30, at=4)),
                n_fft=16,
                hop_length=_HOP,
                win_length=12,
                framing="tight",
                compression=0.5,
                complex_weight=0.8,
                floor=1e-2,
                reduction="sum",
            ),
        },
        joint=True,
        hide=_hide,
        count=_each,
        perfect=lambda i, o: ({**i, "estimate": i["target"]}, 0.0),
        hopeless=lambda i, o: {**i, "estimate": -30 * i["target"]},
        extremes=_loud_and_quiet,
        refused=(
            Refused("an unknown framing", "framing", {"framing": "valid"}),
            Refused("an expansion", "compression", {"compression": 1.5}),
            Refused("more than all of it", "complex_weight", {"complex_weight": 1.5}),
            Refused("a floor of 0", "floor", {"floor": 0.0}),
            Refused("steps that leave gaps", "hop_length", {"hop_length": 2000}),
            *_OTHERS,
        ),
        exempt={**NOTHING_FROZEN, **_FLOOR},
    ),
    _spectra(
        mel_loss,
        MelLoss,
        {
            "one": case(sample_rate=16, n_fft=16, hop_length=_HOP, n_mels=3),
            "several, ragged": case(
                _ragged(_clicks(30, at=4)),
                sample_rate=16,
                n_fft=(10, 16),
                hop_length=(_HOP, _HOP),
                win_length=(10, 12),
                n_mels=(2, 3),
                combine="sum",
                reduction="none",
                **_UNLIKE,
            ),
            "stereo": case(
                _clicks(2, 30),
                n_fft=16,
                hop_length=_HOP,
                n_mels=3,
                f_min=1.0,
                f_max=7.0,
                mel_scale="htk",
                norm="none",
                reduction="sum",
                **_ALL_WEIGHTS,
            ),
            "preset, empty filters": case(
                _clicks(30, at=4),
                preset="audiocraft",
                n_fft=16,
                hop_length=_HOP,
                n_mels=9,
                empty_filters="keep",
            ),
        },
        (
            Refused("a rate and a preset", "sample_rate", {"preset": "hifigan"}),
            Refused("neither", "sample_rate", {"sample_rate": None}),
            Refused("an unknown preset", "preset", {"sample_rate": None, "preset": "tacotron"}),
            Refused("empty filters", "filter 0", {"n_mels": 40}),
            Refused("filters beyond the signal", "f_max", {"f_max": 9.0}),
            Refused("an unknown scale", "mel_scale", {"mel_scale": "bark"}),
            Refused("an unknown norm", "norm", {"norm": "l1"}),
            Refused("three steps for one", "hop_length", {"hop_length": (1, 2, 3)}),
            Refused("an unknown mean", "combine", {"combine": "max"}),
        ),
    ),
    _spectra(
        stft_loss,
        STFTLoss,
        {
            "one": case(n_fft=9, hop_length=_HOP),
            "ragged": case(
                _ragged(_clicks(30, at=4)),
                n_fft=10,
                hop_length=_HOP,
                win_length=9,
                reduction="none",
                **_UNLIKE,
            ),
            "stereo": case(
                _clicks(2, 30),
                n_fft=9,
                hop_length=_HOP,
                reduction="sum",
                **_ALL_WEIGHTS,
            ),
        },
        (),
    ),
    _spectra(
        multi_resolution_stft_loss,
        MultiResolutionSTFTLoss,
        {
            "two": case(n_fft=(9, 10), hop_length=_HOP),
            "ragged": case(
                _ragged(_clicks(30, at=4)),
                n_fft=(9, 10),
                hop_length=(_HOP, _HOP),
                win_length=9,
                combine="sum",
                reduction="none",
                **_UNLIKE,
            ),
            "stereo": case(
                _clicks(2, 30),
                n_fft=(9, 10),
                hop_length=_HOP,
                reduction="sum",
                **_ALL_WEIGHTS,
            ),
            "preset": case(preset="pwg", n_fft=(9, 10), hop_length=_HOP),
        },
        (
            Refused("an unknown preset", "preset", {"preset": "tacotron"}),
            Refused("an unknown mean", "combine", {"combine": "max"}),
        ),
    ),
)
