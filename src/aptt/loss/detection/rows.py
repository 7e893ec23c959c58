"""What there is for each prediction: its anchor point, its stride, its weight."""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat
from aptt.core.ordinary import is_readable
from aptt.core.pairwise import corners_of
from aptt.core.shapes import check_shapes
from aptt.core.targets import Targets, real, regions_of
from aptt.loss.detection.candidates import centre, inside
from aptt.loss.dfl import expected_value

__all__ = [
    "check_anchors",
    "check_rows",
    "check_strides",
    "decoded",
    "in_regions",
    "needed",
    "places_of",
    "sides_of",
]


def decoded(boxes: Tensor, points: Tensor | None, strides: Tensor | None) -> Tensor:
    """The corners that the expected distances lead to."""
    points, unit = needed("anchors", points), needed("strides", strides)
    distances = expected_value(boxes) * unit.unsqueeze(-1)
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def sides_of(goals: Tensor, points: Tensor | None, strides: Tensor | None) -> Tensor:
    """The distances from the anchor points to the sides, in strides."""
    points, unit = needed("anchors", points), needed("strides", strides)
    sides = torch.cat((points - goals[..., :2], goals[..., 2:] - points), -1)
    return sides / unit.unsqueeze(-1)


def places_of(anchors: Tensor | None, box_format: BoxFormat) -> tuple[Tensor | None, Tensor | None]:
    """Anchors as points, or as corners or rotated boxes; and the point of each."""
    if anchors is None:
        return None, None
    anchors = real(anchors)
    if anchors.shape[-1] == 2:
        return anchors, anchors
    if anchors.shape[-1] == 4:
        anchors = corners_of(anchors, box_format)
    return anchors, centre(anchors)


def in_regions(
    regions: Targets, points: Tensor | None, logits: Tensor, box_format: BoxFormat
) -> Tensor:
    """``(B, A)``: whether an anchor point lies in a region that is to be ignored."""
    points = needed("anchors", points)
    regions = corners_of(regions_of(regions, logits), box_format)
    points = points.expand(len(logits), -1, -1).unsqueeze(2)
    return inside(points, regions.unsqueeze(1)).any(-1)


def needed(name: str, tensor: Tensor | None) -> Tensor:
    """What must be there, in a dtype of real numbers."""
    if tensor is None:
        raise ValueError(f"{name}: got None, wanted one for each prediction")
    return real(tensor)


def check_rows(logits: Tensor, **rows: Tensor | None) -> None:
    """Hold what there is for each prediction to the logits; points may serve all images."""
    for name, tensor in rows.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name}: got {tensor!r}, wanted a tensor with one for each prediction, on "
                f"{logits.device}"
            )
        last = tensor.shape[-1] if tensor.ndim and tensor.shape[-1] in (4, 5) else 2
        shape = f"A {last}" if name == "anchors" else "A"
        alike = name in ("anchors", "strides") and tensor.ndim == len(shape.split())
        wanted = shape if alike else f"B {shape}"
        check_shapes(class_logits=(logits, "B A C"), **{name: (tensor, wanted)})


def check_strides(strides: Tensor, rows: Tensor) -> None:
    """Refuse a unit of which no distance can be told."""
    if not is_readable(strides):
        return
    wrong = ~((strides > 0) & (strides < torch.inf)) & rows
    if wrong.any():
        got = strides.expand_as(wrong)[wrong][0].item()
        raise ValueError(f"strides: got {got}, wanted finite numbers above 0")


def check_anchors(anchors: Tensor, rows: Tensor) -> None:
    """Refuse points and boxes that are nowhere, and corners inside out."""
    if not is_readable(anchors):
        return
    nowhere = ~anchors.isfinite().all(-1)
    if anchors.shape[-1] == 4:
        nowhere |= (anchors[..., 2:] < anchors[..., :2]).any(-1)
    wrong = nowhere & rows
    if wrong.any():
        got = anchors.expand(*wrong.shape, anchors.shape[-1])[wrong][0].tolist()
        raise ValueError(
            f"anchors: got {got}, wanted finite numbers, of boxes as x1 <= x2 and y1 <= y2"
        )
