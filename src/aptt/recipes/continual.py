"""Five tasks one after the other: what a network forgets, and what it keeps if it is reminded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler

from aptt.loss import CrossEntropyLoss, LwFLoss
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Continual"]

_TASKS = 5  # task k tells the digits 2k and 2k + 1 apart
_NAMES = [f"{2 * k} or {2 * k + 1}" for k in range(_TASKS)]
_HELD_OUT = 60  # images of each digit to test on
_BATCH = 32


class Continual(Recipe):
    """Pairs of digits, one pair after the other, each with a head of its own."""

    name = "continual"
    title = "One task after another"
    story = (
        "Tell 0 from 1, then 2 from 3, and so on: five tasks one after the other, in images of "
        "8 x 8 pixels. All share a small convolutional network, and each has a head of its own. "
        "While a task is learnt, the images of the others are not there. What was learnt first is "
        "at risk: the network under its head moves on."
    )
    scores = {
        "accuracy": "share of the held-out images recognised by their task's head, mean over tasks",
        "first task": "the same, for the task that was learnt first, and has been waiting longest",
    }
    losses = {
        "naive": Choice(
            about="The reference: cross-entropy of the task that is being learnt.",
            functions=("cross_entropy",),
            make=lambda _: _naive(CrossEntropyLoss()),
        ),
        "learning without forgetting": Choice(
            about="The same, and the old heads are to say of the new images what they said before.",
            functions=("lwf_loss",),
            make=lambda _: _reminded(LwFLoss(temperature=2.0, lambda_old=1.0)),
        ),
    }
    sources = (
        Source(
            name="Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998",
            package="scikit-learn",
            terms="UCI Machine Learning Repository, data set 80",
        ),
    )
    steps = 400
    learning_rate = 3e-3

    def __init__(self) -> None:
        digits = load_digits()
        images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
        labels = torch.from_numpy(digits.target).long()
        of_digit = [images[labels == digit] for digit in range(2 * _TASKS)]
        self.train = [_pair(of_digit, task, slice(_HELD_OUT, None)) for task in range(_TASKS)]
        self.test = [_pair(of_digit, task, slice(_HELD_OUT)) for task in range(_TASKS)]

    def model(self) -> nn.Module:
        """A convolutional network with five heads, which counts the steps it has learnt for."""
        return _Learner(self.steps)

    def batch(self, generator: Generator) -> tuple[Tensor, ...]:
        """Images of every task; a model takes those of the task it has come to."""
        drawn = [torch.randint(len(y), (_BATCH,), generator=generator) for _, y in self.train]
        pairs = [(x[rows], y[rows]) for (x, y), rows in zip(self.train, drawn, strict=True)]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    def schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """For each task anew: else the last ones would hardly be learnt, and forget nothing."""
        return CosineAnnealingWarmRestarts(optimizer, max(steps // _TASKS, 1))

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of the task that the model has come to, and of what it is to remember."""
        assert isinstance(model, _Learner)
        task = model.task
        if task > len(model.history):  # a new one: note what is known, and remember how it was
            model.history.append(self._accuracies(model))
            model.past = [copy.deepcopy(model.network)]
        model.done += 1
        images, labels = batch[0][task], batch[1][task]
        with torch.no_grad():
            before = model.past[0](images) if model.past else []
        old = dict(zip(_NAMES[:task], before, strict=False))
        new = dict(zip(_NAMES[: task + 1], model(images), strict=False))
        return loss(new, labels, old)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy of each task by its own head."""
        of_task = self._accuracies(model)
        return {"accuracy": sum(of_task) / _TASKS, "first task": of_task[0]}

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """How well each task was known after each other."""
        return [
            Gallery(
                title="What is known after each task",
                caption="Each row is what a model could do after it had learnt that task, each "
                "column a task, in per cent of its held-out images. Below the diagonal one sees "
                "what is forgotten; above it are tasks that are still to come.",
                size=(3.4, 3.4),
                pictures=[self._table(name, model) for name, model in models.items()],
            )
        ]

    def _accuracies(self, model: nn.Module) -> list[float]:
        with torch.no_grad():
            pairs = zip(self.test, range(_TASKS), strict=True)
            said = [(model(x)[task].argmax(1) == y) for (x, y), task in pairs]
        return [right.double().mean().item() for right in said]

    def _table(self, loss: str, model: nn.Module) -> Picture:
        assert isinstance(model, _Learner)
        rows = [*model.history, self._accuracies(model)][:_TASKS]

        def draw(axes: Axes) -> None:
            for after, row in enumerate(rows):
                for task, share in enumerate(row):
                    known = task <= after
                    lost = 1 - min(max(2 * share - 1, 0.0), 1.0)  # 0.5 is a guess
                    colour = ("C2" if lost < 0.1 else "C3") if known else "C7"
                    strength = 0.15 + (0.6 * lost if lost >= 0.1 else 0.3) if known else 0.08
                    box = (task - 0.47, after - 0.47)
                    axes.add_patch(Rectangle(box, 0.94, 0.94, color=colour, alpha=strength))
                    axes.annotate(f"{100 * share:.0f}", (task, after), ha="center", va="center")
            axes.set(xlabel="task", ylabel="after learning", aspect="equal")
            axes.set(xlim=(-0.5, _TASKS - 0.5), ylim=(_TASKS - 0.5, -0.5))
            axes.set(xticks=range(_TASKS), yticks=range(_TASKS))
            axes.set_xticklabels(_NAMES, fontsize=8)
            axes.set_yticklabels(_NAMES, fontsize=8)

        first = ", ".join(f"{100 * row[0]:.0f}" for row in rows)
        return Picture(
            loss,
            f"Table of accuracies after each task, with {loss}; of the first task, {first} "
            "per cent after each.",
            draw,
        )


class _Learner(nn.Module):
    """A network with a head for each task, and what it remembers of learning them."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.network = _Heads()
        self.steps, self.done = steps, 0
        self.past: list[nn.Module] = []  # the network before this task; in a list, not a part
        self.history: list[list[float]] = []  # accuracies at the end of each task

    @property
    def task(self) -> int:
        """The task that it has come to."""
        return min(self.done * _TASKS // self.steps, _TASKS - 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of every head."""
        logits: list[Tensor] = self.network(images)
        return logits


class _Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 32),
            nn.ReLU(),
        )
        self.heads = nn.ModuleList(nn.Linear(32, 2) for _ in range(_TASKS))

    def forward(self, images: Tensor) -> list[Tensor]:
        seen = self.body(images)
        return [head(seen) for head in self.heads]


def _pair(of_digit: list[Tensor], task: int, some: slice) -> tuple[Tensor, Tensor]:
    """The images of a task, and which of its two digits each is."""
    two = [of_digit[2 * task][some], of_digit[2 * task + 1][some]]
    labels = torch.cat([torch.full((len(x),), k) for k, x in enumerate(two)])
    return torch.cat(two), labels


def _naive(loss: Loss) -> Loss:
    return lambda new, labels, old: loss(list(new.values())[-1], labels)


def _reminded(loss: Loss) -> Loss:
    first = CrossEntropyLoss()  # of the first task, before which nothing was known
    return lambda new, labels, old: (
        loss(new, labels, old) if old else first(list(new.values())[-1], labels)
    )
