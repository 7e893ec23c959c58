"""From the options of a spectral loss to its resolutions and distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_choice,
    check_number,
    check_numbers,
    check_positive,
    check_some,
    check_weight,
)
from aptt.core.differences import Distance
from aptt.core.frames import Resolution, Window
from aptt.core.mel import Bank, Norm, Scale
from aptt.core.transform import check_filters
from aptt.loss.mel.presets import MEL, MEL_PRESETS, RESOLUTIONS, STFT_PRESETS

__all__ = [
    "FloorBy",
    "FrequencyWeight",
    "Log",
    "Off",
    "Settings",
    "Sizes",
    "Weights",
    "Windowing",
    "bank",
    "check_one",
    "check_sizes",
    "mel_settings",
    "stft_settings",
]

Log = Literal["log", "log10"]
FloorBy = Literal["add", "clamp"]
Off = Literal["l1", "l2"]
Sizes = int | Sequence[int]
Weights = float | Sequence[float]
Windowing: TypeAlias = Window | Numbers
FrequencyWeight: TypeAlias = Literal["a"] | Numbers | None


@dataclass(frozen=True)
class Settings:
    """What a spectral loss compares, and how."""

    resolutions: tuple[Resolution, ...]
    distances: tuple[Distance, ...]
    """One for each of the resolutions."""
    divisor: int
    """What the sum over the resolutions is divided by."""
    window: Numbers | None
    """In place of the one that the resolutions name."""
    bins: Numbers | None
    """What the frequencies weigh, where that is given as numbers."""

    def weighing(self) -> Settings:
        """Without the resolutions that weigh nothing."""
        some = [
            (r, d)
            for r, d in zip(self.resolutions, self.distances, strict=True)
            if d.logarithm or d.linear or d.convergence
        ]
        resolutions, distances = zip(*some, strict=True)
        return Settings(resolutions, distances, self.divisor, self.window, self.bins)


def mel_settings(
    sample_rate: float | None, preset: str | None, chosen: Mapping[str, Any]
) -> Settings:
    """The settings of a mel loss; an option that is None is as in the preset."""
    if (sample_rate is None) == (preset is None):
        raise ValueError(
            f"sample_rate: got {sample_rate} with preset={preset!r}, wanted exactly one of the two"
        )
    o = _filled(MEL, MEL_PRESETS, preset, chosen)
    o["sample_rate"] = rate = o["sample_rate"] if sample_rate is None else sample_rate
    banks = [
        bank(rate, n, o["f_min"], o["f_max"], o["mel_scale"], o["norm"], o["empty_filters"])
        for n in _listed(o["n_mels"])
    ]
    return _settings(o, banks)


def stft_settings(preset: str | None, chosen: Mapping[str, Any]) -> Settings:
    """The settings of an STFT loss; an option that is None is as in the preset."""
    o = _filled(RESOLUTIONS, STFT_PRESETS, preset, chosen)
    if chosen["n_fft"] is not None:  # the others follow it, rather than what it replaces
        o |= {k: chosen[k] for k in ("hop_length", "win_length")}
    if o["sample_rate"] is not None:
        check_positive("sample_rate", o["sample_rate"])
    return _settings(o, [None])


def _filled(
    usual: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    preset: str | None,
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    if preset is not None:
        check_choice("preset", preset, tuple(presets))
        usual = {**usual, **presets[preset]}
    return {**usual, **{k: v for k, v in chosen.items() if v is not None}}


def bank(
    sample_rate: float,
    n_mels: int,
    f_min: float,
    f_max: float | None,
    mel_scale: Scale,
    norm: Norm,
    empty_filters: str,
) -> Bank:
    """A bank of mel filters, from options that are checked here."""
    check_positive("sample_rate", sample_rate)
    check_sizes("n_mels", (n_mels,))
    top = sample_rate / 2 if f_max is None else f_max
    check_positive("f_max", top)
    check_number("f_min", f_min, 0.0, sample_rate / 2)
    if not f_min < top <= sample_rate / 2:
        raise ValueError(
            f"f_max: got {top}, wanted more than f_min={f_min} and at most half of "
            f"sample_rate={sample_rate}"
        )
    check_choice("mel_scale", mel_scale, ("slaney", "htk"))
    check_choice("norm", norm, ("slaney", "none"))
    check_choice("empty_filters", empty_filters, ("refuse", "keep"))
    return Bank(
        float(sample_rate), n_mels, float(f_min), top, mel_scale, norm, empty_filters == "keep"
    )


def _settings(o: Mapping[str, Any], banks: Sequence[Bank | None]) -> Settings:
    if isinstance(o["window"], str):
        check_choice("window", o["window"], ("hann", "hamming", "blackman"), also="numbers")
    if isinstance(o["frequency_weight"], str):
        check_choice("frequency_weight", o["frequency_weight"], ("a",), also="numbers, or None")
        if o["sample_rate"] is None:
            raise ValueError("sample_rate: got None, wanted it for frequency_weight='a'")
    resolutions = _resolutions(o, banks)
    window = _numbers("window", o["window"], "win_length", [r.win for r in resolutions])
    ends = [r.n_fft // 2 + 1 for r in resolutions]
    bins = _numbers("frequency_weight", o["frequency_weight"], "n_fft // 2 + 1", ends)
    if bins is not None:
        check_weight("frequency_weight", as_tensor("frequency_weight", bins))
    check_choice("combine", o["combine"], ("mean", "sum"))
    divisor = len(resolutions) if o["combine"] == "mean" else 1
    return Settings(resolutions, _distances(o, len(resolutions)), divisor, window, bins)


def _numbers(name: str, given: Any, size: str, sizes: Sequence[int]) -> Numbers | None:
    """What is given as numbers, of one size with all resolutions; None where a name is given."""
    if given is None or isinstance(given, str):
        return None
    made = as_tensor(name, given)
    check_numbers(**{name: made})
    check_some(name, made)
    for wanted in sizes:
        if tuple(made.shape) != (wanted,):
            raise ValueError(
                f"{name}: got shape {tuple(made.shape)}, wanted ({size},) = ({wanted},)"
                + (", the same for all resolutions" if len(sizes) > 1 else "")
            )
    return given


def _resolutions(o: Mapping[str, Any], banks: Sequence[Bank | None]) -> tuple[Resolution, ...]:
    """One for each transform; what is given once holds for all of them."""
    ffts = _listed(o["n_fft"])
    check_sizes("n_fft", ffts)
    hops = [n // 4 or 1 for n in ffts] if o["hop_length"] is None else _listed(o["hop_length"])
    wins = ffts if o["win_length"] is None else _listed(o["win_length"])
    for name, sizes in (("hop_length", hops), ("win_length", wins)):
        check_sizes(name, sizes)
    check_choice("framing", o["framing"], ("center", "tight", "full"))
    hops, wins, banks = (
        _each(name, v, len(ffts))
        for name, v in (("hop_length", hops), ("win_length", wins), ("n_mels", banks))
    )
    window: Any = o["window"] if isinstance(o["window"], str) else "hann"
    rate = float(o["sample_rate"]) if isinstance(o["frequency_weight"], str) else None
    made = []
    for n_fft, hop, win, filters in zip(ffts, hops, wins, banks, strict=True):
        for name, size in (("hop_length", hop), ("win_length", win)):
            if size > n_fft:
                raise ValueError(f"{name}: got {size}, wanted at most n_fft={n_fft}")
        made.append(Resolution(n_fft, hop, win, o["framing"], filters, window, rate))
        if filters is not None and not filters.keep_empty:
            check_filters(made[-1])
    return tuple(made)


def _distances(o: Mapping[str, Any], count: int) -> tuple[Distance, ...]:
    if o["power"] not in (1, 2):
        raise ValueError(f"power: got {o['power']}, wanted 1 or 2")
    check_choice("log", o["log"], ("log", "log10"))
    check_choice("floor_by", o["floor_by"], ("add", "clamp"))
    for name in ("log_distance", "linear_distance"):
        check_choice(name, o[name], ("l1", "l2"))
    check_positive("floor", o["floor"])
    weights = []
    for name in ("log_weight", "linear_weight", "convergence_weight"):
        numbers = _each(name, _listed(o[name]), count)
        for number in numbers:
            check_number(name, number)
        weights.append(numbers)
    if not any(map(any, weights)):
        raise ValueError("log_weight: got 0, with no other weight above 0")
    return tuple(
        Distance(
            power=o["power"],
            decades=o["log"] == "log10",
            floor=o["floor"],
            clamps=o["floor_by"] == "clamp",
            logarithm=logarithm,
            linear=linear,
            convergence=convergence,
            log_squares=o["log_distance"] == "l2",
            linear_squares=o["linear_distance"] == "l2",
        )
        for logarithm, linear, convergence in zip(*weights, strict=True)
    )


def _each(name: str, given: Sequence[Any], count: int) -> list[Any]:
    """One for each transform."""
    if len(given) not in (1, count):
        raise ValueError(f"{name}: got {len(given)} numbers for {count} of n_fft")
    return list(given) * (count // len(given))


def _listed(sizes: Any) -> list[Any]:
    return list(sizes) if isinstance(sizes, Sequence) else [sizes]


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Refuse what is no list of positive whole numbers."""
    if not sizes or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"{name}: got {list(sizes)}, wanted positive whole numbers")


def check_one(**sizes: int | None) -> None:
    """Refuse what is no single positive whole number; None is one that follows another."""
    for name, size in sizes.items():
        if size is not None:
            check_sizes(name, (size,))
