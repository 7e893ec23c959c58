"""What there is for each prediction: its anchor point, its stride, its weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aptt.core.checks import as_floats, check_tensors
from aptt.core.formula import widen
from aptt.core.ordinary import is_readable
from aptt.core.shapes import check_shapes
from aptt.core.targets import Targets, real, regions_of
from aptt.loss.detection.candidates import inside
from aptt.loss.dfl import expected_value

__all__ = [
    "check_rows",
    "check_strides",
    "decoded",
    "in_regions",
    "needed",
    "sides_of",
    "weight_of_class",
]


def decoded(boxes: Tensor, anchors: Tensor | None, strides: Tensor | None) -> Tensor:
    """The corners that the expected distances lead to."""
    points, unit = needed("anchors", anchors), needed("strides", strides)
    distances = expected_value(boxes) * unit.unsqueeze(-1)
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def sides_of(goals: Tensor, anchors: Tensor | None, strides: Tensor | None) -> Tensor:
    """The distances from the anchor points to the sides, in strides."""
    points, unit = needed("anchors", anchors), needed("strides", strides)
    sides = torch.cat((points - goals[..., :2], goals[..., 2:] - points), -1)
    return sides / unit.unsqueeze(-1)


def in_regions(regions: Targets, anchors: Tensor | None, logits: Tensor) -> Tensor:
    """``(B, A)``: whether an anchor point lies in a region that is to be ignored."""
    points = needed("anchors", anchors)
    regions = regions_of(regions, logits)
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
        shape = "A 2" if name == "anchors" else "A"
        alike = name in ("anchors", "strides") and tensor.ndim == len(shape.split())
        wanted = shape if alike else f"B {shape}"
        check_shapes(class_logits=(logits, "B A C"), **{name: (tensor, wanted)})


def check_strides(strides: Tensor, rows: Tensor) -> None:
    """Refuse a unit of which no distance can be told."""
    wrong = ~((strides > 0) & (strides < torch.inf)) & rows
    if is_readable(wrong) and wrong.any():
        got = strides.expand_as(wrong)[wrong][0].item()
        raise ValueError(f"strides: got {got}, wanted finite numbers above 0")


def weight_of_class(class_weight: Tensor | Sequence[float], logits: Tensor) -> Tensor:
    """The weights of classes, ``(C,)``."""
    class_weight = as_floats("class_weight", class_weight, logits)
    check_tensors(class_logits=logits, class_weight=class_weight)
    if class_weight.shape != logits.shape[2:]:
        got = tuple(class_weight.shape)
        raise ValueError(f"class_weight: got shape {got}, wanted ({logits.shape[2]},)")
    return widen(class_weight)
