"""Three instruments in no order, one of which may be silent: what an assignment is for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Generator, Tensor, nn

from aptt.loss import (
    SASDRLoss,
    best_permutation,
    permutation_invariant_loss,
    si_sdr_loss,
    snr_loss,
)
from aptt.recipes.base import Choice, Gallery, Picture, Recipe
from aptt.recipes.sounds import (
    PARTS,
    SOURCE,
    Separator,
    gallery,
    instruments,
    phrases,
    shown,
    taken_apart,
    wav,
)

__all__ = ["Trio"]

_BATCH = 8
_TESTS = 24
_PLAYERS = ("first", "second", "third")
_RESTS = 0.25  # how often the third is silent


class Trio(Recipe):
    """Three phrases of any instruments at once, of which the third is sometimes silent."""

    name = "trio"
    title = "Three instruments in no order"
    story = (
        "Take three phrases apart that play at the same time. Each is of another instrument, of "
        "five kinds, in no order: nothing says which of the model's three outputs is to be which. "
        "In a quarter of the mixtures only two play. Notes of the test phrases were never heard in "
        "training."
    )
    scores = {
        "SI-SDR improvement": "dB by which the estimates of those who play are nearer to them than "
        "the mixture is, in the best order",
        "silence": "dB by which the estimate that is left over is below the mixture where only two "
        "play",
    }
    losses = {
        "fixed order": Choice(
            about="The reference: the ratio of each source to its noise, the first output held to "
            "the first source. There is no first one.",
            functions=("snr_loss",),
            make=lambda _: partial(snr_loss, cap=30.0, silent="skip"),
        ),
        "any order": Choice(
            about="The same in the best order of those who play; the estimate left over is free.",
            functions=("permutation_invariant_loss", "snr_loss"),
            make=lambda _: _any_order,
        ),
        "sa-sdr": Choice(
            about="The noise of all three against the energy of all, in the best order: a source "
            "that is silent asks for silence, and needs no rule of its own.",
            functions=("sa_sdr_loss",),
            make=lambda _: SASDRLoss(any_order=True, cap=30.0),
        ),
    }
    sources = (SOURCE,)
    steps = 400
    learning_rate = 3e-3

    def __init__(self) -> None:
        self.notes, held_out = instruments(*PARTS)
        generator = torch.Generator().manual_seed(0)
        self.test_mixtures, self.test_sources = _played(held_out, _TESTS, generator)
        three = int(_plays(self.test_sources).all(1).nonzero()[0])
        self.example = self.test_mixtures[three : three + 1], self.test_sources[three : three + 1]

    def model(self) -> nn.Module:
        """Convolutions over time of the spectrogram; cells are shared out among three."""
        return _Shares()

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Mixtures ``(N, T)`` and their sources ``(N, 3, T)``."""
        return _played(self.notes, _BATCH, generator)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How much nearer each who plays is in the best order, and how silent the rest is."""
        sources = self.test_sources
        found = _aligned(model(self.test_mixtures), sources)
        mixture = self.test_mixtures.unsqueeze(1).expand_as(found)
        before, after = (si_sdr_loss(x, sources, silent="skip") for x in (mixture, found))
        rests = ~_plays(sources)
        left = found[rests].square().sum(1) / mixture[rests].square().sum(1)
        return {
            "SI-SDR improvement": (before - after).item(),
            "silence": -10 * left.log10().mean().item(),
        }

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """Spectrograms of a test mixture of three, and what each model made of it."""
        (mixture,), (sources,) = self.example
        rows = [Picture("mixture", "Spectrogram of three instruments at once.", shown(mixture))]
        rows += [
            Picture(player, f"Spectrogram of the {player} instrument alone.", shown(source))
            for player, source in zip(_PLAYERS, sources, strict=True)
        ]
        galleries = [gallery("A test mixture and what is in it", rows)]
        for name, model in models.items():
            found = _aligned(model(self.example[0]), self.example[1])[0]
            of_each = taken_apart(name, mixture, sources, found, _PLAYERS, kind=" instrument")
            galleries.append(of_each)
        return galleries

    def attachments(self, models: Mapping[str, nn.Module]) -> dict[str, bytes]:
        """The same to listen to, as WAV files."""
        (mixture,), (sources,) = self.example
        sounds = {"mixture": mixture, **dict(zip(_PLAYERS, sources, strict=True))}
        for name, model in models.items():
            found = _aligned(model(self.example[0]), self.example[1])[0]
            sounds |= {f"{p} with {name}": e for p, e in zip(_PLAYERS, found, strict=True)}
        return {f"trio - {title}.wav": wav(sound) for title, sound in sounds.items()}


class _Shares(Separator):
    """The share of each of three sources in each cell of the mixture's spectrogram."""

    def __init__(self) -> None:
        super().__init__(outputs=3)

    def forward(self, mixture: Tensor) -> Tensor:
        """Waveforms ``(N, 3, T)`` that add up to the mixture ``(N, T)``."""
        spectrum, said = self.cells(mixture)
        cells = (spectrum.unsqueeze(1) * said.softmax(1)).flatten(0, 1)
        sound = self.sound(cells, mixture.shape[-1])
        return sound.unflatten(0, (-1, 3))


def _any_order(estimate: Tensor, target: Tensor) -> Tensor:
    ratio = partial(snr_loss, cap=30.0)
    return permutation_invariant_loss(estimate, target, active=_plays(target), loss=ratio)


def _aligned(found: Tensor, sources: Tensor) -> Tensor:
    """The estimates in the order of the sources; the one left over is the third, which rests."""
    order = best_permutation(found, sources, active=_plays(sources))
    last = torch.where(order < 0, 2, order)
    return found[torch.arange(len(found)).unsqueeze(1), last.argsort(1)]


def _plays(sources: Tensor) -> Tensor:
    """Which sources there are, ``(N, 3)``."""
    return sources.abs().amax(-1) > 0


def _played(notes: Mapping[str, Tensor], count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Phrases of three different instruments, the third silent now and then, and their sum."""
    every = phrases(notes, count, generator)
    chosen = torch.rand(every.shape[:2], generator=generator).argsort(1)[:, :3]
    sources = every[torch.arange(count).unsqueeze(1), chosen]
    sources[torch.rand(count, generator=generator) < _RESTS, 2] = 0
    return sources.sum(1), sources
