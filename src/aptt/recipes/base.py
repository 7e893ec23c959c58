"""The shape of a recipe, and of what it shows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Choice", "Gallery", "Loss", "Picture", "Recipe", "Source"]

Loss = Callable[..., Tensor]
"""What a recipe trains with: called with the model's output and the target."""


@dataclass(frozen=True)
class Choice:
    """A loss that a recipe offers."""

    about: str
    """What it does here, in one line."""
    functions: tuple[str, ...]
    """The functions of :mod:`aptt.loss` it is made of; the report prints their formulas."""
    make: Callable[[Any], Loss]
    """Make it for a recipe whose data is loaded."""


@dataclass(frozen=True)
class Source:
    """Where the data comes from, and on what terms."""

    name: str
    package: str
    terms: str


@dataclass(frozen=True)
class Picture:
    """Something to look at: ``draw`` puts it on matplotlib axes, ``alt`` says it in words."""

    title: str
    alt: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, each ``size`` inches wide and high, with one caption."""

    title: str
    caption: str
    size: tuple[float, float]
    pictures: Sequence[Picture]


class Recipe(ABC):
    """A task to train on. Making one loads its data, which stays the same for every run."""

    name: ClassVar[str]
    title: ClassVar[str]
    story: ClassVar[str]
    """What is learnt, from what, and what makes it hard."""
    scores: ClassVar[Mapping[str, str]]
    """Each score and how to read it. Higher is better; the first is the headline."""
    losses: ClassVar[Mapping[str, Choice]]
    """The losses to choose from; the first is the one that others are held against."""
    sources: ClassVar[Sequence[Source]]
    steps: ClassVar[int]
    learning_rate: ClassVar[float]

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model, its weights drawn from torch's global generator."""

    @abstractmethod
    def batch(self, generator: Generator) -> tuple[Tensor, ...]:
        """The inputs and the target of one step, drawn with ``generator``."""

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of one batch."""
        inputs, target = batch
        return loss(model(inputs), target)

    def schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """How the learning rate falls over the steps of a run."""
        return CosineAnnealingLR(optimizer, steps)

    @abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every score of ``model`` on held-out data."""

    @abstractmethod
    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """What the trained models do, to look at; they are named by their loss."""

    def attachments(self, models: Mapping[str, nn.Module]) -> dict[str, bytes]:
        """Files to put beside the report, by name: what a page cannot show."""
        return {}
