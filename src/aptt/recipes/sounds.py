"""Phrases of recorded notes, to be mixed or rebuilt; how they are shown and heard."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from aptt.loss import si_sdr_loss
from aptt.recipes.base import Gallery, Picture, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "PARTS",
    "RATE",
    "SOURCE",
    "Separator",
    "gallery",
    "instruments",
    "phrases",
    "shown",
    "taken_apart",
    "wav",
]

RATE = 8000
PARTS = {  # recordings by the beginning of their names
    "saxophones": ("Sop", "Alto", "Bari"),
    "strings": ("ensstrings", "Str1"),
    "flutes": ("Flute",),
    "trumpets": ("Trump",),
    "a choir": ("Choir", "Aahs"),
}
SOURCE = Source(
    name="TimGM6mb, a soundfont of recorded instruments, by Tim Brechbill",
    package="pretty-midi",
    terms="GPL-2, as Debian's timgm6mb-soundfont has it",
)

_NOTE = 4000  # samples: half a second
_NOTES = 3  # in a phrase
_SHIFTS = range(-4, 5)  # semitones
_N_FFT, _HOP, _BINS = 512, 128, 257
_CHANNELS = 96


def instruments(*parts: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The notes of each part, ``(notes, T)``: those to learn from, and those held out."""
    recordings = _recordings((files("pretty_midi") / "TimGM6mb.sf2").read_bytes())
    learnt, held_out = {}, {}
    for part in parts:
        made = [
            _notes(sound, loop, rate)
            for name, sound, loop, rate in recordings
            if name.startswith(PARTS[part])
        ]
        learnt[part] = torch.cat([notes for i, notes in enumerate(made) if i % 4 != 3])
        held_out[part] = torch.cat(made[3::4])
    return learnt, held_out


def phrases(notes: Mapping[str, Tensor], count: int, generator: Generator) -> Tensor:
    """Random notes of each part in a row, at up to 3 dB more or less: ``(count, parts, T)``."""
    made = []
    for some in notes.values():
        rows = torch.randint(len(some), (count, _NOTES), generator=generator)
        phrase = some[rows].flatten(1)
        level = 10 ** (0.3 * torch.rand((count, 1), generator=generator) - 0.15)
        made.append(0.1 * level * phrase / phrase.square().mean(1, keepdim=True).sqrt())
    return torch.stack(made, 1)


def _notes(samples: Tensor, loop: tuple[int, int], rate: int) -> Tensor:
    """Half a second of a recording at each shift, its sustained part repeated as needed."""
    made = []
    start, end = loop
    for shift in _SHIFTS:
        at = torch.arange(_NOTE, dtype=torch.float64) * (rate / RATE * 2 ** (shift / 12))
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


def wav(sound: Tensor) -> bytes:
    """16-bit samples, at one loudness for all, so that levels can be compared."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((sound * 2**15).clamp(-(2**15), 2**15 - 1).short().numpy().tobytes())
    return file.getvalue()


def gallery(title: str, pictures: list[Picture], *, top: int = 2) -> Gallery:
    """Spectrograms side by side, up to ``top`` kHz."""
    return Gallery(
        title=title,
        caption=f"Time runs to the right, 1.5 seconds; frequency upwards, to {top} kHz; 60 dB of "
        "brightness. They can be heard below, and are WAV files beside the report.",
        size=(3.4, 2.4),
        pictures=pictures,
    )


def shown(sound: Tensor, *, top: int = 2) -> Callable[[Axes], None]:
    """What draws a spectrogram, up to ``top`` kHz."""
    window = torch.hann_window(_N_FFT)
    spectrum = torch.stft(sound, _N_FFT, _HOP, window=window, return_complex=True).abs()
    decibels = 20 * (spectrum[: _N_FFT * top * 1000 // RATE] + 1e-4).log10()

    def draw(axes: Axes) -> None:
        axes.imshow(
            decibels.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-40,
            vmax=20,
            extent=(0, len(sound) / RATE, 0, top),
        )
        axes.set(xlabel="s", ylabel="kHz")

    return draw


def taken_apart(
    name: str,
    mixture: Tensor,
    sources: Tensor,
    found: Tensor,
    parts: Iterable[str],
    *,
    kind: str = "",
) -> Gallery:
    """What a model that was trained with ``name`` found in a mixture, each part with its gain."""
    before = si_sdr_loss(mixture.expand_as(sources), sources, reduction="none")
    gains = before - si_sdr_loss(found, sources, reduction="none")
    pictures = [
        Picture(
            f"{part}, {gain:+.1f} dB",
            f"Spectrogram of the {part}{kind} found with {name}, {gain:.1f} dB nearer than the "
            "mixture.",
            shown(estimate),
        )
        for part, estimate, gain in zip(parts, found, gains.tolist(), strict=True)
    ]
    return gallery(f"What was found with {name}", pictures)


class Separator(nn.Module):
    """A few layers over the spectrogram of a mixture; a subclass says whose each cell is."""

    window: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(_BINS, _CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(_CHANNELS, _CHANNELS, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(_CHANNELS, outputs * _BINS, 1),
        )
        self.register_buffer("window", torch.hann_window(_N_FFT), persistent=False)

    def cells(self, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """The spectrogram ``(N, bins, frames)``, and what the layers say: ``(N, outputs, ...)``."""
        spectrum = torch.stft(mixture, _N_FFT, _HOP, window=self.window, return_complex=True)
        return spectrum, self.layers((spectrum.abs() + 1e-3).log()).unflatten(1, (-1, _BINS))

    def sound(self, cells: Tensor, length: int) -> Tensor:
        """Waveforms ``(N, length)`` of spectrograms."""
        return torch.istft(cells, _N_FFT, _HOP, window=self.window, length=length)
