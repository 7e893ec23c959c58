"""Sound from mel spectrograms: a distance, and an opponent that learns what sounds right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from aptt.loss import (
    MelLoss,
    MultiResolutionSTFTLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    mel_filterbank,
    stft_loss,
)
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe
from aptt.recipes.sounds import PARTS, RATE, SOURCE, gallery, instruments, phrases, shown, wav

__all__ = ["Vocoder"]

_BATCH = 8
_SAMPLES = 4000  # of a phrase, in training
_TESTS = 4  # phrases of each instrument
_N_FFT, _HOP, _BINS, _MELS = 512, 128, 257, 64
_CHANNELS = 16
_FLOOR = 1e-3
_DECIBELS = 20 / math.log(10)


class Vocoder(Recipe):
    """A waveform from the mel spectrogram of a phrase."""

    name = "vocoder"
    title = "Sound from a mel spectrogram"
    story = (
        "Make a phrase of three notes from its mel spectrogram: 64 numbers every 16 milliseconds, "
        "which say how loud it is where, and nothing of phases. A small network refines what the "
        "numbers say of each frequency, and says how fast its phase turns. Recordings of the test "
        "phrases were never heard in training. An ear hears more than these scores."
    )
    scores = {
        "mel": "dB by which the log-mel spectrum is off at three resolutions, below 0",
        "spectrum": "the same of the log spectrum at a window four times as long as the model's",
    }
    losses = {
        "mel": Choice(
            about="The reference: the distance of log-mel spectra, at three resolutions.",
            functions=("mel_loss",),
            make=lambda _: _mel(),
        ),
        "mel+stft": Choice(
            about="And that of spectra without filters, up to that long window.",
            functions=("mel_loss", "multi_resolution_stft_loss"),
            make=lambda _: _with_spectra(),
        ),
        "mel+adversarial": Choice(
            about="And an opponent, three small networks that learn to tell what was made from "
            "what was recorded: their scores, and the distance of what they see in both.",
            functions=("mel_loss", "generator_loss", "discriminator_loss", "feature_matching_loss"),
            make=lambda _: _Opponent(),
        ),
    }
    sources = (SOURCE,)
    steps = 250
    learning_rate = 3e-3

    def __init__(self) -> None:
        self.notes, held_out = instruments(*PARTS)
        generator = torch.Generator().manual_seed(0)
        self.test = phrases(held_out, _TESTS, generator).flatten(0, 1)

    def model(self) -> nn.Module:
        """Convolutions over the spectrogram; frequencies are treated alike."""
        return _Generator()

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Parts of phrases, twice: what goes in by its mel spectrogram, and what is to come out."""
        every = phrases(self.notes, -(-_BATCH // len(PARTS)), generator).flatten(0, 1)
        rows = torch.randperm(len(every), generator=generator)[:_BATCH]
        start = int(torch.randint(every.shape[1] - _SAMPLES, (), generator=generator))
        sound = every[rows, start : start + _SAMPLES]
        return sound, sound

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How far held-out phrases are off, below 0."""
        made = model(self.test)
        mel = _mel()(made, self.test)
        spectrum = stft_loss(
            made,
            self.test,
            n_fft=4 * _N_FFT,
            hop_length=_N_FFT,
            floor=_FLOOR,
            convergence_weight=0.0,
        )
        return {"mel": -_DECIBELS * mel.item(), "spectrum": -_DECIBELS * spectrum.item()}

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """Spectrograms of test phrases, and what each model made of them."""
        recorded = [
            Picture(part, f"Spectrogram of {part}, recorded.", shown(sound, top=4))
            for part, sound in zip(PARTS, self.test, strict=False)
        ]
        galleries = [gallery("Test phrases", recorded, top=4)]
        distance = _mel("none")
        for name, model in models.items():
            found = model(self.test[: len(PARTS)])
            off = _DECIBELS * distance(found, self.test[: len(PARTS)])
            pictures = [
                Picture(
                    f"{part}, {far:.1f} dB off",
                    f"Spectrogram of {part}, made with {name}, {far:.1f} dB off.",
                    shown(sound, top=4),
                )
                for part, sound, far in zip(PARTS, found, off.tolist(), strict=True)
            ]
            galleries.append(gallery(f"What was made with {name}", pictures, top=4))
        return galleries

    def attachments(self, models: Mapping[str, nn.Module]) -> dict[str, bytes]:
        """The same to listen to, as WAV files."""
        sounds = dict(zip(PARTS, self.test, strict=False))
        for name, model in models.items():
            found = model(self.test[: len(PARTS)])
            sounds |= {f"{part} with {name}": e for part, e in zip(PARTS, found, strict=True)}
        return {f"vocoder - {title}.wav": wav(sound) for title, sound in sounds.items()}


class _Generator(nn.Module):
    """A spectrogram whose phases turn at frequencies near those of its bins."""

    window: Tensor
    filters: Tensor
    inverse: Tensor
    bins: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, _CHANNELS, (7, 3), padding=(3, 1)),
            nn.GELU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, (7, 3), padding=(3, 1)),
            nn.GELU(),
            nn.Conv2d(_CHANNELS, 2, (5, 3), padding=(2, 1)),
        )
        for start in self.layers[-1].parameters():
            nn.init.zeros_(start)
        filters = mel_filterbank(sample_rate=RATE, n_fft=_N_FFT, n_mels=_MELS)
        self.register_buffer("filters", filters.float(), persistent=False)
        self.register_buffer("inverse", filters.pinverse().float(), persistent=False)
        self.register_buffer("window", torch.hann_window(_N_FFT), persistent=False)
        self.register_buffer("bins", torch.arange(float(_BINS)).view(-1, 1), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        """A sound ``(N, T)`` of which nothing is used but its mel spectrogram."""
        window = self.window
        spectrum = torch.stft(sound, _N_FFT, _HOP, window=window, return_complex=True)
        return self.made(self.filters @ spectrum.abs(), sound.shape[-1])

    def made(self, mel: Tensor, length: int) -> Tensor:
        """Waveforms ``(N, length)`` of mel magnitudes ``(N, mels, frames)``."""
        level = (self.inverse @ mel).clamp(min=_FLOOR).log()
        change, turn = self.layers(level.unsqueeze(1)).unbind(1)
        turned = _HOP * 2 * math.pi / _N_FFT * (self.bins + 2 * (turn / 2).tanh())
        phase = math.pi * self.bins + turned.cumsum(-1)
        cells = torch.polar((level + change).clamp(max=5.0).exp(), phase)
        return torch.istft(cells, _N_FFT, _HOP, window=self.window, length=length)


class _Opponent:
    """The generator's loss, and a step of those who judge it at each call."""

    def __init__(self) -> None:
        self.distance = _mel()
        self.judges = nn.ModuleList(_Judge(period) for period in (2, 3, 5))
        self.optimizer = torch.optim.AdamW(self.judges.parameters(), 2e-3, betas=(0.8, 0.99))

    def __call__(self, made: Tensor, target: Tensor) -> Tensor:
        """Mel 15, features 2, scores 1, as the codec DAC weighs them."""
        self.optimizer.zero_grad()
        discriminator_loss(self._seen(target), self._seen(made.detach())).backward()
        self.optimizer.step()
        real, fake = self._seen(target), self._seen(made)
        scored = generator_loss(fake) + 2 * feature_matching_loss(fake, real)
        return 15 * self.distance(made, target) + scored

    def _seen(self, sound: Tensor) -> list[list[Tensor]]:
        return [judge(sound) for judge in self.judges]


class _Judge(nn.Module):
    """Looks at each sample beside those some periods before and after."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, 8, 16, 32)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0))

    def forward(self, sound: Tensor) -> list[Tensor]:
        """What each layer sees, and the scores."""
        whole = sound.shape[1] // self.period * self.period
        x, seen = sound[:, :whole].unflatten(1, (-1, self.period)).unsqueeze(1), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            seen.append(x)
        return [*seen, self.last(x)]


def _mel(reduction: Literal["mean", "none"] = "mean") -> MelLoss:
    return MelLoss(
        sample_rate=RATE,
        n_fft=(256, 512, 1024),
        n_mels=(20, 40, 80),
        floor=_FLOOR,
        reduction=reduction,
    )


def _with_spectra() -> Loss:
    spectra = MultiResolutionSTFTLoss(
        n_fft=(256, 1024, 2048), hop_length=(64, 256, 512), floor=_FLOOR, convergence_weight=0.0
    )
    mel = _mel()
    return lambda made, target: mel(made, target) + spectra(made, target)
