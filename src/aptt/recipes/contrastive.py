"""Two halves of one picture that find each other: embeddings without a label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from aptt.loss import contrastive_loss, siglip_loss
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Contrastive"]

_HELD_OUT = 300
_BATCH = 128
_WIDTH = 32
_SHOWN = 10


class Halves(nn.Module):
    """An encoder each for upper and lower halves, and the scale of their similarity."""

    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = (
            nn.Sequential(nn.Flatten(), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, _WIDTH))
            for _ in range(2)
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings of both halves."""
        return self.upper(images[:, :4]), self.lower(images[:, 4:])


class Contrastive(Recipe):
    """Halves of handwritten digits, of which each is to find its other half."""

    name = "contrastive"
    title = "Halves that find each other"
    story = (
        "Cut handwritten digits of 8 x 8 pixels in two, and embed upper and lower halves so that "
        "the two of one picture lie together. No label is used. Of 300 pictures that the model "
        "has not seen, each upper half looks for its lower half among all 300."
    )
    scores = {
        "retrieval at 1": "share of the upper halves whose nearest lower half is their own",
        "same digit": "share whose nearest lower half is at least of the same digit",
    }
    losses = {
        "both ways": Choice(
            about="A softmax over the batch, for the upper halves and for the lower ones (CLIP).",
            functions=("contrastive_loss",),
            make=lambda _: lambda a, b, scale: contrastive_loss(a, b, scale=scale, symmetric=True),
        ),
        "one way": Choice(
            about="The same for the upper halves alone (InfoNCE).",
            functions=("contrastive_loss",),
            make=lambda _: lambda a, b, scale: contrastive_loss(a, b, scale=scale),
        ),
        "asked one by one": Choice(
            about="Each pair of the batch by itself: does it belong together, or not (SigLIP).",
            functions=("siglip_loss",),
            make=lambda _: (
                lambda a, b, scale: siglip_loss(a, b, scale=scale, bias=-math.log(len(a) - 1))
            ),
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
        images = torch.from_numpy(digits.images).float() / 16
        order = torch.randperm(len(images), generator=Generator().manual_seed(0))
        test, train = order[:_HELD_OUT], order[_HELD_OUT:]
        self.images, self.test_images = images[train], images[test]
        self.test_labels = torch.from_numpy(digits.target)[test]

    def model(self) -> Halves:
        """Two small encoders, and a scale that learns."""
        return Halves()

    def batch(self, generator: Generator) -> tuple[Tensor]:
        """Whole pictures."""
        rows = torch.randperm(len(self.images), generator=generator)[:_BATCH]
        return (self.images[rows],)

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of the halves of a batch against each other."""
        (images,) = batch
        log_scale = model.log_scale
        assert isinstance(log_scale, Tensor)
        return loss(*model(images), log_scale.exp())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Whether what is found is the other half, or one of the same digit."""
        found = self._found(model)
        own = torch.arange(len(found))
        return {
            "retrieval at 1": (found == own).double().mean().item(),
            "same digit": (self.test_labels[found] == self.test_labels).double().mean().item(),
        }

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """For each loss, some upper halves with the lower halves that they found."""
        return [
            Gallery(
                title="What the upper halves found",
                caption="Each picture is an upper half of the test set above the lower half that "
                "lies nearest to it; green is its own, red is another's.",
                size=(6.4, 1.0),
                pictures=[self._row(name, self._found(model)) for name, model in models.items()],
            )
        ]

    def _found(self, model: nn.Module) -> Tensor:
        """The lower half that lies nearest to each upper half."""
        upper, lower = (nn.functional.normalize(t) for t in model(self.test_images))
        return (upper @ lower.T).argmax(1)

    def _row(self, loss: str, found: Tensor) -> Picture:
        pairs = [(i, int(found[i])) for i in range(_SHOWN)]
        halves = [
            torch.cat((self.test_images[i, :4], self.test_images[j, 4:])).numpy() for i, j in pairs
        ]

        def draw(axes: Axes) -> None:
            for at, (picture, (i, j)) in enumerate(zip(halves, pairs, strict=True)):
                left = 10 * at
                axes.imshow(picture, cmap="gray_r", extent=(left, left + 8, 8, 0), vmin=0, vmax=1)
                colour = "C2" if i == j else "C3"
                axes.add_patch(Rectangle((left, 0), 8, 8, fill=False, color=colour, linewidth=2))
            axes.set(xlim=(-1, 10 * _SHOWN - 1), ylim=(9, -1), aspect="equal")
            axes.set_axis_off()

        right = sum(i == j for i, j in pairs)
        said = f"{right} of these {_SHOWN} found their own lower half"
        return Picture(loss, f"Digits put together of two halves, with {loss}; {said}.", draw)
