"""Saxophones and strings out of one recording: what a loss of the wave or the spectrum hears."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from aptt.loss import MelLoss, SISDRLoss, si_sdr_loss, snr_loss
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe
from aptt.recipes.sounds import (
    RATE,
    SOURCE,
    Separator,
    gallery,
    instruments,
    phrases,
    shown,
    taken_apart,
    wav,
)

__all__ = ["Audio"]

_PARTS = ("saxophones", "strings")
_BATCH = 12
_TESTS = 32


class Audio(Recipe):
    """A phrase of saxophones and one of strings, mixed, to be taken apart."""

    name = "audio"
    title = "Saxophones and strings, taken apart"
    story = (
        "Separate a saxophone from strings that play at the same time. Phrases of three notes "
        "are put together from recordings of single notes, each moved by up to four semitones, and "
        "two phrases are mixed. Every fourth recording is held out: the notes of the test phrases "
        "were never heard in training. The model sees the spectrogram of the mixture and says how "
        "much of each of its cells belongs to whom."
    )
    scores = {
        "SI-SDR improvement": "dB by which an estimate is nearer to its source than the mixture is",
        "SNR improvement": "the same where the level counts too",
    }
    losses = {
        "si-sdr": Choice(
            about="The reference: the waveform of each source, at whatever level.",
            functions=("si_sdr_loss",),
            make=lambda _: SISDRLoss(cap=30.0),
        ),
        "mel": Choice(
            about="The log-mel spectrum of each source, at two resolutions; the phase is free.",
            functions=("mel_loss",),
            make=lambda _: MelLoss(
                sample_rate=RATE, n_fft=(512, 1024), n_mels=(20, 40), floor=1e-2
            ),
        ),
        "si-sdr+mel": Choice(
            about="The sum of the two, the mel distance times 5.",
            functions=("si_sdr_loss", "mel_loss"),
            make=lambda _: _sum(
                SISDRLoss(cap=30.0),
                MelLoss(sample_rate=RATE, n_fft=(512, 1024), n_mels=(20, 40), floor=1e-2),
            ),
        ),
    }
    sources = (SOURCE,)
    steps = 400
    learning_rate = 3e-3

    def __init__(self) -> None:
        self.notes, held_out = instruments(*_PARTS)
        generator = torch.Generator().manual_seed(0)
        self.test_sources = phrases(held_out, _TESTS, generator)
        self.test_mixtures = self.test_sources.sum(1)

    def model(self) -> nn.Module:
        """Convolutions over time of the spectrogram, and a share of each cell for each source."""
        return _Mask()

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Mixtures ``(N, T)`` and their sources ``(N, 2, T)``."""
        sources = phrases(self.notes, _BATCH, generator)
        return sources.sum(1), sources

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How much nearer the estimates are to the sources than the mixture is, in dB."""
        found = model(self.test_mixtures)
        mixture = self.test_mixtures.unsqueeze(1).expand_as(found)
        gains = [
            (loss(mixture, self.test_sources) - loss(found, self.test_sources)).item()
            for loss in (si_sdr_loss, snr_loss)
        ]
        return dict(zip(self.scores, gains, strict=True))

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """Spectrograms of one test mixture, its sources, and what each model made of it."""
        mixture, sources = self.test_mixtures[0], self.test_sources[0]
        rows = [
            Picture("mixture", "Spectrogram of saxophones and strings at once.", shown(mixture)),
            *(
                Picture(part, f"Spectrogram of the {part} alone.", shown(source))
                for part, source in zip(_PARTS, sources, strict=True)
            ),
        ]
        galleries = [gallery("A test mixture and what is in it", rows)]
        for name, model in models.items():
            found = model(self.test_mixtures[:1])[0]
            galleries.append(taken_apart(name, mixture, sources, found, _PARTS))
        return galleries

    def attachments(self, models: Mapping[str, nn.Module]) -> dict[str, bytes]:
        """The same to listen to, as WAV files."""
        sounds = {"mixture": self.test_mixtures[0]}
        sounds |= dict(zip(_PARTS, self.test_sources[0], strict=True))
        for name, model in models.items():
            found = model(self.test_mixtures[:1])[0]
            sounds |= {f"{part} with {name}": e for part, e in zip(_PARTS, found, strict=True)}
        return {f"audio - {title}.wav": wav(sound) for title, sound in sounds.items()}


class _Mask(Separator):
    """The share of each source in each cell of the mixture's spectrogram."""

    def __init__(self) -> None:
        super().__init__(outputs=1)

    def forward(self, mixture: Tensor) -> Tensor:
        """Waveforms ``(N, 2, T)`` that add up to the mixture ``(N, T)``."""
        spectrum, said = self.cells(mixture)
        first = self.sound(spectrum * said.squeeze(1).sigmoid(), mixture.shape[-1])
        return torch.stack((first, mixture - first), 1)


def _sum(first: Loss, second: Loss) -> Loss:
    return lambda estimate, target: first(estimate, target) + 5 * second(estimate, target)
