"""Boxes back from CenterNet's maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.checks import (
    check_floating,
    check_positive,
    check_whole,
)
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes
from aptt.loss.centernet.keys import check_keys

__all__ = ["centernet_decode"]


def centernet_decode(
    predictions: Mapping[str, Tensor], *, topk: int = 100, stride: float = 4.0, kernel: int = 3
) -> dict[str, Tensor]:
    """Read boxes, scores and labels from CenterNet's maps.

        box = (cell + reg -+ wh / 2) * stride, at the topk highest peaks of all classes together

    Args:
        predictions: ``hm`` logits ``(N, C, H, W)``, ``wh`` and ``reg (N, 2, H, W)``.
        topk: how many boxes for each image; fewer where the maps have fewer cells.
        stride: pixels to a cell.
        kernel: odd: a peak is the highest of the ``kernel x kernel`` cells around it.

    Returns:
        ``boxes (N, topk, 4)`` as corners in pixels, ``scores (N, topk)`` from high to low, in
        [0, 1], and ``labels (N, topk)``. Peaks are ranked by their logits; places beyond the last
        have a score of 0.

    Raises:
        ValueError: keys missing or unknown, shapes that do not fit, a kernel that is not odd.

    The gradient goes to the scores and boxes that are chosen.

    Use when:
        Evaluating or showing what a model of :func:`centernet_loss` found.

    Elsewhere:
        CenterNet ``ctdet_decode``, mmdetection ``CenterNetHead.predict``.

    Example:
        >>> import torch
        >>> maps = {"hm": torch.full((1, 1, 4, 4), -9.0), "wh": torch.full((1, 2, 4, 4), 2.0)}
        >>> maps["reg"] = torch.full((1, 2, 4, 4), 0.5)
        >>> maps["hm"][0, 0, 1, 2] = 9.0
        >>> centernet_decode(maps, topk=1)["boxes"].tolist()
        [[[6.0, 2.0, 14.0, 10.0]]]
    """
    check_keys("predictions", predictions, ("hm", "wh", "reg"))
    hm, wh, reg = (predictions[key] for key in ("hm", "wh", "reg"))
    check_floating(hm=hm, wh=wh, reg=reg)
    check_shapes(hm=(hm, "N C H W"), wh=(wh, "N 2 H W"), reg=(reg, "N 2 H W"))
    check_whole("topk", topk)
    check_positive("stride", stride)
    check_whole("kernel", kernel)
    if kernel % 2 == 0:
        raise ValueError(f"kernel: got {kernel}, wanted an odd number")
    hm, wh, reg = widen(hm), widen(wh), widen(reg)
    highest = F.max_pool2d(hm, kernel, stride=1, padding=kernel // 2)
    peaks = hm.masked_fill(hm != highest, -torch.inf).flatten(1)
    peaks, at = peaks.topk(min(topk, peaks.shape[1]), dim=1)  # by logits, which do not saturate
    cells, width = hm.shape[2] * hm.shape[3], hm.shape[3]
    labels, ind = at // cells, at % cells
    image = torch.arange(len(hm), device=hm.device).unsqueeze(1)
    half = wh.flatten(2).transpose(1, 2)[image, ind] / 2
    centre = torch.stack((ind % width, ind // width), 2).to(hm.dtype)
    centre = centre + reg.flatten(2).transpose(1, 2)[image, ind]
    boxes = torch.cat((centre - half, centre + half), 2) * stride
    return {"boxes": boxes, "scores": peaks.sigmoid(), "labels": labels}
