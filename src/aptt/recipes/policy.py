"""A digit, written as a binary number by a model that is told only how right it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from aptt.loss import PolicyLoss, group_advantages, token_stats
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Policy"]

_DIGITS, _BITS = 10, 4
_HELD_OUT = 50  # images of each digit to test on
_WIDTH = 64
_BATCH, _GROUP = 32, 8  # images a step, and answers to each
_REUSED = 4  # steps on the same answers, the later ones off policy
_CURIOUS = 0.1  # of the entropy, so that the answers go on differing


class Policy(Recipe):
    """Reinforcement learning of what is written, by a reward that can be checked."""

    name = "policy"
    title = "Numbers written for a reward"
    story = (
        "Look at a handwritten digit and write it as a binary number of four bits, one after the "
        "other. No bit is ever shown to the model: it writes eight answers to each image, and is "
        "told for each the share of bits that are right, and one more for a number that is right "
        "as a whole. An answer is better or worse than the other seven, and four steps are taken "
        "on the same answers, so that the model has moved on from the one that wrote them. A tenth "
        "of the entropy is added, or all answers would soon be the same."
    )
    scores = {
        "reward": "share of the test images whose number is right as a whole, written greedily",
        "bits": "share of the bits that are right",
    }
    losses = {
        "clip": Choice(
            about="The reference: PPO's clip of the ratio of each token.",
            functions=("policy_loss",),
            make=lambda _: PolicyLoss(),
        ),
        "clip-higher": Choice(
            about="DAPO's: more room above than below, and a bound where an answer was bad.",
            functions=("policy_loss",),
            make=lambda _: PolicyLoss(clip_high=0.28, dual_clip=3.0),
        ),
        "sequence": Choice(
            about="GSPO's: one ratio for all four bits of an answer.",
            functions=("policy_loss",),
            make=lambda _: PolicyLoss(
                ratio="sequence", average="sequence", clip_low=0.1, clip_high=0.15
            ),
        ),
        "cispo": Choice(
            about="The ratio is capped and held constant, so that every bit goes on learning.",
            functions=("policy_loss",),
            make=lambda _: PolicyLoss(kind="cispo"),
        ),
    }
    sources = (
        Source(
            name="Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998",
            package="scikit-learn",
            terms="UCI Machine Learning Repository, data set 80",
        ),
    )
    steps = 600
    learning_rate = 6e-3

    def __init__(self) -> None:
        digits = load_digits()
        images = torch.from_numpy(digits.images).float().flatten(1) / 16
        labels = torch.from_numpy(digits.target).long()
        held_out = torch.cat(
            [(labels == digit).nonzero().squeeze(1)[:_HELD_OUT] for digit in range(_DIGITS)]
        )
        rest = torch.ones(len(labels), dtype=torch.bool).index_fill(0, held_out, False)
        self.images, self.labels = images[rest], labels[rest]
        self.test_images, self.test_labels = images[held_out], labels[held_out]

    def model(self) -> nn.Module:
        """An image, and the bits so far, to the odds of the next bit."""
        return _Writer()

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images, each as often as it is answered, and what they show."""
        rows = torch.randint(len(self.labels), (_BATCH,), generator=generator)
        rows = rows.repeat_interleave(_GROUP)
        return self.images[rows], self.labels[rows]

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of answers that were written in this step, or in one of the three before."""
        assert isinstance(model, _Writer)
        if model.steps % _REUSED == 0:
            model.written = self._written(model, *batch)
        model.steps += 1
        images, bits, old, advantage = model.written
        stats = token_stats(model(images, bits), bits)
        return loss(stats.log_prob, old, advantage) - _CURIOUS * stats.entropy.mean()

    @torch.no_grad()
    def _written(self, model: _Writer, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Answers, their log-probabilities, and what they are worth."""
        bits = model.write(images, greedy=False)
        right = bits == _binary(labels)
        reward = right.float().mean(1) + right.all(1)
        advantage = group_advantages(reward.view(-1, _GROUP)).flatten()
        return images, bits, token_stats(model(images, bits), bits).log_prob, advantage

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """What is right of what is written greedily, of numbers and of bits."""
        right = self._right(model)
        return {"reward": right.all(1).float().mean().item(), "bits": right.float().mean().item()}

    def _right(self, model: nn.Module) -> Tensor:
        assert isinstance(model, _Writer)
        with torch.no_grad():
            return model.write(self.test_images, greedy=True) == _binary(self.test_labels)

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """For each loss, which digits are written right."""
        shares = {
            name: self._right(model).all(1).view(_DIGITS, _HELD_OUT).float().mean(1).tolist()
            for name, model in models.items()
        }
        return [
            Gallery(
                title="Which digits are written right",
                caption="Per cent of the test images of each digit whose four bits are all right.",
                size=(3.4, 2.4),
                pictures=[_bars(name, values) for name, values in shares.items()],
            )
        ]


class _Writer(nn.Module):
    """Bit after bit, each told the image and the bits before."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(64, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))
        self.place = nn.Parameter(0.02 * torch.randn(_BITS, _WIDTH))
        self.bit = nn.Parameter(0.02 * torch.randn(_BITS, 2, _WIDTH))
        self.say = nn.Sequential(nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU())
        self.head = nn.Linear(_WIDTH, 2)
        self.steps, self.written = 0, tuple[Tensor, ...]()

    def forward(self, images: Tensor, bits: Tensor) -> Tensor:
        """Logits ``(N, 4, 2)`` of each bit, of answers ``(N, 4)`` whose earlier bits are known."""
        said = self.bit[torch.arange(bits.shape[1]), bits].cumsum(1)
        before = torch.cat((torch.zeros_like(said[:, :1]), said[:, :-1]), 1)
        seen = self.read(images).unsqueeze(1) + self.place[: bits.shape[1]] + before
        logits: Tensor = self.head(self.say(seen))
        return logits

    def write(self, images: Tensor, *, greedy: bool) -> Tensor:
        """Answers ``(N, 4)``, drawn or the likeliest bit by bit."""
        bits = torch.zeros(len(images), _BITS, dtype=torch.long)
        for k in range(_BITS):
            logits = self(images, bits[:, : k + 1])[:, k]
            drawn = logits.argmax(1) if greedy else logits.softmax(1).multinomial(1).squeeze(1)
            bits[:, k] = drawn
        return bits


def _binary(labels: Tensor) -> Tensor:
    """Four bits of each number, the largest first."""
    return labels.unsqueeze(1) // torch.tensor([8, 4, 2, 1]) % 2


def _bars(loss: str, shares: list[float]) -> Picture:
    def draw(axes: Axes) -> None:
        axes.bar(range(_DIGITS), [100 * share for share in shares], color="C0")
        axes.set(xlabel="digit", ylabel="right, %", ylim=(0, 100), xticks=range(_DIGITS))

    worst = min(range(_DIGITS), key=shares.__getitem__)
    said = f"worst is {worst}, right in {100 * shares[worst]:.0f} per cent"
    return Picture(loss, f"Digits written right by the model trained with {loss}; {said}.", draw)
