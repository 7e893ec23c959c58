"""Ten digits of which some are rare: what a loss makes of the classes it seldom sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from aptt.loss import CrossEntropyLoss, FocalLoss
from aptt.recipes.base import Choice, Gallery, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Classification"]

_DIGITS = 10
_RARE = 5  # from this digit on
_HELD_OUT = 50  # images of each digit to test on
_MOST, _DECAY, _LEAST = 120, 0.6, 4  # how many images of each digit to train on
_BATCH = 64


class Classification(Recipe):
    """Handwritten digits whose training set has a long tail."""

    name = "classification"
    title = "Digits with a long tail"
    story = (
        "Recognise handwritten digits of 8 x 8 pixels. There are 120 training images of 0 and 0.6 "
        "times as many of each next digit, down to four of 7, 8 and 9. The test set holds 50 of "
        "each, so a model that neglects the rare digits pays for it."
    )
    scores = {
        "balanced accuracy": "share of the test images recognised, averaged over the ten digits",
        "rare digits": "the same over 5 to 9, the digits with the fewest training images",
    }
    losses = {
        "cross-entropy": Choice(
            about="The reference: every training image counts the same.",
            functions=("cross_entropy",),
            make=lambda _: CrossEntropyLoss(),
        ),
        "focal": Choice(
            about="Fades on images that are already recognised, which are mostly of common digits.",
            functions=("focal_loss",),
            make=lambda _: FocalLoss(alpha=None, gamma=2.0),
        ),
        "logit-adjusted": Choice(
            about="Adds the log of each digit's share of the training images to its logit, so that "
            "in training the common digits start ahead and the model has to make up for it.",
            functions=("cross_entropy",),
            make=lambda recipe: CrossEntropyLoss(logit_adjustment=recipe.log_prior),
        ),
    }
    sources = (
        Source(
            name="Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998",
            package="scikit-learn",
            terms="UCI Machine Learning Repository, data set 80",
        ),
    )
    steps = 300
    learning_rate = 3e-3

    def __init__(self) -> None:
        digits = load_digits()
        images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
        labels = torch.from_numpy(digits.target).long()
        train, test = [], []
        for digit in range(_DIGITS):
            rows = (labels == digit).nonzero().squeeze(1)
            count = max(_LEAST, round(_MOST * _DECAY**digit))
            test.append(rows[:_HELD_OUT])
            train.append(rows[_HELD_OUT : _HELD_OUT + count])
        self.images, self.labels = images[torch.cat(train)], labels[torch.cat(train)]
        self.log_prior = self.labels.bincount().div(len(self.labels)).log()
        self.test_images, self.test_labels = images[torch.cat(test)], labels[torch.cat(test)]

    def model(self) -> nn.Module:
        """Two convolutions and a linear layer."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, _DIGITS),
        )

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images drawn as they come, so that common digits are common in a batch."""
        rows = torch.randint(len(self.labels), (_BATCH,), generator=generator)
        return self.images[rows], self.labels[rows]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The mean of the recalls, of all digits and of the rare ones."""
        recalls = self._confusion(model).diagonal()
        return {
            "balanced accuracy": recalls.mean().item(),
            "rare digits": recalls[_RARE:].mean().item(),
        }

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """For each loss, which digit was taken for which."""
        return [
            Gallery(
                title="Which digit was taken for which",
                caption="Each row is a digit, each column what it was taken for, in per cent of "
                "the row. The diagonal is right; the rare digits are at the bottom.",
                size=(3.4, 3.4),
                pictures=[_table(name, self._confusion(model)) for name, model in models.items()],
            )
        ]

    def _confusion(self, model: nn.Module) -> Tensor:
        """Row: the digit; column: the share of its test images taken for that digit."""
        taken = model(self.test_images).argmax(1)
        pairs = self.test_labels * _DIGITS + taken
        counts = pairs.bincount(minlength=_DIGITS**2).view(_DIGITS, _DIGITS).double()
        return counts / counts.sum(1, keepdim=True)


def _table(loss: str, shares: Tensor) -> Picture:
    def draw(axes: Axes) -> None:
        for digit, row in enumerate(shares.tolist()):
            for taken, share in enumerate(row):
                if share > 0:
                    colour = "C2" if taken == digit else "C3"
                    box = (taken - 0.47, digit - 0.47)
                    axes.add_patch(
                        Rectangle(box, 0.94, 0.94, color=colour, alpha=0.1 + 0.6 * share)
                    )
                    axes.annotate(f"{100 * share:.0f}", (taken, digit), ha="center", va="center")
        axes.set(xlabel="taken for", ylabel="digit", aspect="equal")
        axes.set(xlim=(-0.5, _DIGITS - 0.5), ylim=(_DIGITS - 0.5, -0.5))
        axes.set(xticks=range(_DIGITS), yticks=range(_DIGITS))

    worst = int(shares.diagonal().argmin())
    share = 100 * shares[worst, worst].item()
    said = f"worst is digit {worst}, of which {share:.0f} per cent are recognised"
    return Picture(loss, f"Table of which digit was taken for which, with {loss}; {said}.", draw)
