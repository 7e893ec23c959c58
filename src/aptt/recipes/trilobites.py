"""Landmarks of trilobites, some of which are missing: what a loss makes of points nobody saw."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Generator, Tensor

from aptt.recipes.base import Source
from aptt.recipes.keypoints import Keypoints, Labelled

__all__ = ["Trilobites", "read_tps"]

_HELD_OUT = 60
_MARGIN = 4.0  # pixels
_PEN = 0.7  # half the width of a stroke, in pixels
_FILE = "datasets/data/landmark_trilobite_cephala/data_landmark_trilobite_cephala.tps"


class Trilobites(Keypoints):
    """Sixteen landmarks on drawings of trilobites' heads, with gaps in the labels."""

    name = "trilobites"
    title = "Landmarks of trilobites"
    story = (
        "Find 16 landmarks on the head of a trilobite, from a drawing of its four outlines of "
        "48 x 48 pixels. 300 specimens, 60 of them to test on; of 15, one to four landmarks are "
        "missing: those points are hidden from every loss and every score."
    )
    sources = (
        Source(
            name="Landmarks of 300 trilobite cephala, F. Serra and others, Scientific Data 10, "
            "841 (2023)",
            package="ktch",
            terms="open data of the article; the package is Apache-2.0",
        ),
    )
    size = 48

    def __init__(self) -> None:
        package = find_spec("ktch")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("the recipe 'trilobites' needs its data: pip install ktch")
        text = (Path(package.origin).parent / _FILE).read_text(encoding="utf-8")
        every = _drawn(read_tps(text), self.size)
        order = torch.randperm(len(every.images), generator=torch.Generator().manual_seed(0))
        self.test, self.train = every.some(order[:_HELD_OUT]), every.some(order[_HELD_OUT:])

    def placed(self, given: Labelled, generator: Generator) -> Labelled:
        """Each drawing moved by up to three pixels each way."""
        shift = torch.randint(-3, 4, (2,), generator=generator)
        images = given.images.roll((int(shift[1]), int(shift[0])), (2, 3))
        return given._replace(images=images, points=given.points + shift)


def read_tps(text: str) -> list[tuple[Tensor, list[Tensor]]]:
    r"""Read landmarks ``(K, 2)`` and curves of each specimen from a file of the TPS format.

    >>> ((landmarks, curves),) = read_tps("LM=1\n1 2\nCURVES=1\nPOINTS=2\n0 0\n3 nan\nID=a")
    >>> landmarks.tolist(), len(curves), curves[0].shape
    ([[1.0, 2.0]], 1, torch.Size([2, 2]))
    """
    specimens: list[list[list[list[float]]]] = []
    for line in text.splitlines():
        key, _, _ = line.partition("=")
        if key == "LM":
            specimens.append([[]])
        elif key == "POINTS":
            specimens[-1].append([])
        elif line and "=" not in line:
            specimens[-1][-1].append([float(v) for v in line.split()])
    return [
        (torch.tensor(parts[0]), [torch.tensor(part) for part in parts[1:]]) for parts in specimens
    ]


def _drawn(specimens: list[tuple[Tensor, list[Tensor]]], size: int) -> Labelled:
    """Each specimen's outlines as strokes, as large as the canvas allows, y downwards."""
    images, points, seen, lengths = [], [], [], []
    for landmarks, curves in specimens:
        every = torch.cat((landmarks, *curves))
        low = every.nan_to_num(torch.inf).amin(0)  # missing points bound nothing
        span = every.nan_to_num(-torch.inf).amax(0) - low
        scale = (size - 1 - 2 * _MARGIN) / span.max()
        here = [((part - low) * scale + _MARGIN) for part in (landmarks, *curves)]
        for part in here:
            part[:, 1] = size - 1 - part[:, 1]
        images.append(_strokes(here[1:], size))
        points.append(here[0])
        seen.append(here[0].isfinite().all(1).float())
        lengths.append(scale * span.max())
    return Labelled(
        torch.stack(images).unsqueeze(1),
        torch.stack(points),
        torch.stack(seen),
        torch.stack(lengths),
    )


def _strokes(curves: list[Tensor], size: int) -> Tensor:
    """Ink where a cell is near enough to one of the curves' segments."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    cells = torch.stack((columns, rows), 2).view(-1, 1, 2).float()
    starts = torch.cat([curve[:-1] for curve in curves])
    ends = torch.cat([curve[1:] for curve in curves])
    whole = (starts.isfinite() & ends.isfinite()).all(1)
    starts, along = starts[whole], (ends - starts)[whole]
    share = ((cells - starts) * along).sum(2) / along.square().sum(1).clamp_min(1e-9)
    off = (cells - starts - share.clamp(0, 1).unsqueeze(2) * along).norm(dim=2).amin(1)
    return (1 + _PEN - off).clamp(0, 1).view(size, size)
