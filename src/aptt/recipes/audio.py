"""Voices and strings out of one recording: what a loss of the wave, or the spectrum, hears."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from aptt.loss import MelLoss, SISDRLoss, si_sdr_loss, snr_loss
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Audio"]

_RATE = 8000
_NOTE = 4000  # samples: half a second
_NOTES = 3  # in a phrase
_SHIFTS = range(-4, 5)  # semitones
_BATCH = 12
_TESTS = 32
_N_FFT, _HOP, _BINS = 512, 128, 257
_CHANNELS = 96
_PARTS = {
    "voices": ("Sop", "Alto", "Bari"),
    "strings": ("ensstrings", "Str1"),
}


class Audio(Recipe):
    """A phrase of voices and one of strings, mixed, to be taken apart."""

    name = "audio"
    title = "Voices and strings, taken apart"
    story = (
        "Separate a choir's voice from strings that play at the same time. Phrases of three notes "
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
                sample_rate=_RATE, n_fft=(512, 1024), n_mels=(20, 40), floor=1e-2
            ),
        ),
        "si-sdr+mel": Choice(
            about="The sum of the two, the mel distance times 5.",
            functions=("si_sdr_loss", "mel_loss"),
            make=lambda _: _sum(
                SISDRLoss(cap=30.0),
                MelLoss(sample_rate=_RATE, n_fft=(512, 1024), n_mels=(20, 40), floor=1e-2),
            ),
        ),
    }
    sources = (
        Source(
            name="TimGM6mb, a soundfont of recorded instruments, by Tim Brechbill",
            package="pretty-midi",
            terms="GPL-2, as Debian's timgm6mb-soundfont has it",
        ),
    )
    steps = 400
    learning_rate = 3e-3

    def __init__(self) -> None:
        recordings = _recordings((files("pretty_midi") / "TimGM6mb.sf2").read_bytes())
        self.notes: dict[str, Tensor] = {}
        held_out = {}
        for part, names in _PARTS.items():
            notes = [
                _notes(wave, loop, rate)
                for name, wave, loop, rate in recordings
                if name.startswith(names)
            ]
            self.notes[part] = torch.cat([n for i, n in enumerate(notes) if i % 4 != 3])
            held_out[part] = torch.cat(notes[3::4])
        generator = torch.Generator().manual_seed(0)
        self.test_mixtures, self.test_sources = _mixed(held_out, _TESTS, generator)

    def model(self) -> nn.Module:
        """Convolutions over time of the spectrogram, and a share of each cell for each source."""
        return _Mask()

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Mixtures ``(N, T)`` and their sources ``(N, 2, T)``."""
        return _mixed(self.notes, _BATCH, generator)

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
            Picture("mixture", "Spectrogram of voices and strings at once.", _shown(mixture)),
            *(
                Picture(part, f"Spectrogram of the {part} alone.", _shown(source))
                for part, source in zip(_PARTS, sources, strict=True)
            ),
        ]
        galleries = [_gallery("A test mixture and what is in it", rows)]
        for name, model in models.items():
            found = model(self.test_mixtures[:1])[0]
            before = si_sdr_loss(mixture.expand_as(sources), sources, reduction="none")
            gains = before - si_sdr_loss(found, sources, reduction="none")
            pictures = [
                Picture(
                    f"{part}, {gain:+.1f} dB",
                    f"Spectrogram of the {part} found with {name}, {gain:.1f} dB nearer than the "
                    "mixture.",
                    _shown(estimate),
                )
                for part, estimate, gain in zip(_PARTS, found, gains.tolist(), strict=True)
            ]
            galleries.append(_gallery(f"What was found with {name}", pictures))
        return galleries

    def attachments(self, models: Mapping[str, nn.Module]) -> dict[str, bytes]:
        """The same to listen to, as WAV files."""
        sounds = {"mixture": self.test_mixtures[0]}
        sounds |= dict(zip(_PARTS, self.test_sources[0], strict=True))
        for name, model in models.items():
            found = model(self.test_mixtures[:1])[0]
            sounds |= {f"{part} with {name}": e for part, e in zip(_PARTS, found, strict=True)}
        return {f"audio - {title}.wav": _wav(sound) for title, sound in sounds.items()}


class _Mask(nn.Module):
    """The share of each source in each cell of the mixture's spectrogram."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(_BINS, _CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(_CHANNELS, _CHANNELS, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(_CHANNELS, _BINS, 1),
        )
        self.register_buffer("window", torch.hann_window(_N_FFT), persistent=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Waveforms ``(N, 2, T)`` that add up to the mixture ``(N, T)``."""
        window = self.window
        spectrum = torch.stft(mixture, _N_FFT, _HOP, window=window, return_complex=True)
        share = self.layers((spectrum.abs() + 1e-3).log()).sigmoid()
        first = torch.istft(spectrum * share, _N_FFT, _HOP, window=window, length=mixture.shape[-1])
        return torch.stack((first, mixture - first), 1)


def _sum(first: Loss, second: Loss) -> Loss:
    return lambda estimate, target: first(estimate, target) + 5 * second(estimate, target)


def _mixed(notes: Mapping[str, Tensor], count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Phrases of random notes, one of each part at up to 3 dB more or less, and their sum."""
    phrases = []
    for some in notes.values():
        rows = torch.randint(len(some), (count, _NOTES), generator=generator)
        phrase = some[rows].flatten(1)
        level = 10 ** (0.3 * torch.rand((count, 1), generator=generator) - 0.15)
        phrases.append(0.1 * level * phrase / phrase.square().mean(1, keepdim=True).sqrt())
    sources = torch.stack(phrases, 1)
    return sources.sum(1), sources


def _notes(samples: Tensor, loop: tuple[int, int], rate: int) -> Tensor:
    """Half a second of a recording at each shift, its sustained part repeated as needed."""
    made = []
    start, end = loop
    for shift in _SHIFTS:
        at = torch.arange(_NOTE, dtype=torch.float64) * (rate / _RATE * 2 ** (shift / 12))
        at = torch.where(at < end, at, start + (at - start) % (end - start))
        low = at.floor().long()
        part = (at - low).float()
        made.append(samples[low] * (1 - part) + samples[low + 1] * part)
    fade = torch.ones(_NOTE)
    fade[:160] = torch.linspace(0, 1, 160)
    fade[-400:] = torch.linspace(1, 0, 400)
    notes = torch.stack(made) * fade
    return notes / notes.square().mean(1, keepdim=True).sqrt()


def _recordings(font: bytes) -> list[tuple[str, Tensor, tuple[int, int], int]]:
    """Name, samples, loop and rate of each recording in a SoundFont 2 file."""
    data, headers = _chunk(font, b"smpl"), _chunk(font, b"shdr")
    sound = torch.frombuffer(bytearray(data), dtype=torch.int16).float() / 2**15
    found = []
    for header in struct.iter_unpack("<20s5I2B2H", headers):
        title, start, end, loop_start, loop_end, rate = header[:6]
        if loop_end - loop_start > 100 and end > start:
            name = title.partition(b"\0")[0].decode("latin-1")
            loop = (loop_start - start, loop_end - start)
            found.append((name, sound[start : end + 2], loop, rate))
    return found


def _chunk(font: bytes, name: bytes) -> bytes:
    at = font.index(name)
    (size,) = struct.unpack_from("<I", font, at + 4)
    return font[at + 8 : at + 8 + size]


def _wav(sound: Tensor) -> bytes:
    """16-bit samples, at one loudness for all, so that levels can be compared."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(_RATE)
        out.writeframes((sound * 2**15).clamp(-(2**15), 2**15 - 1).short().numpy().tobytes())
    return file.getvalue()


def _gallery(title: str, pictures: list[Picture]) -> Gallery:
    return Gallery(
        title=title,
        caption="Time runs to the right, 1.5 seconds; frequency upwards, to 2 kHz; 60 dB of "
        "brightness. To listen, open the WAV files beside the report.",
        size=(3.4, 2.4),
        pictures=pictures,
    )


def _shown(sound: Tensor) -> Callable[[Axes], None]:
    window = torch.hann_window(_N_FFT)
    spectrum = torch.stft(sound, _N_FFT, _HOP, window=window, return_complex=True).abs()
    decibels = 20 * (spectrum[: _BINS // 2] + 1e-4).log10()

    def draw(axes: Axes) -> None:
        axes.imshow(
            decibels.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-40,
            vmax=20,
            extent=(0, len(sound) / _RATE, 0, _RATE / 4000),
        )
        axes.set(xlabel="s", ylabel="kHz")

    return draw
