"""Points from heat maps, finer than their cells."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    check_choice,
    check_floating,
    check_positive,
)
from aptt.core.peaks import Peaks, mean_position, vertices
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes

__all__ = ["Peaks", "decode_heatmaps"]

Decoding = Literal["argmax", "parabola", "gaussian", "soft-argmax"]


def decode_heatmaps(
    heatmaps: Tensor, *, method: Decoding = "parabola", temperature: float = 1.0
) -> Peaks:
    """Read points back from heat maps, finer than their cells.

        parabola, gaussian    x + (r - l) / (2 (2 c - l - r))      l, c, r: at the peak and beside
        soft-argmax           sum over cells of softmax(map / temperature) * position

    Args:
        heatmaps: ``(N, K, height, width)``, as the model gives them.
        method: ``"argmax"``: the highest cell; ``"parabola"``: the vertex of a parabola through
            it and its neighbours, along each axis; ``"gaussian"``: the same of the logarithm,
            exact on maps of :func:`render_heatmaps` but for peaks in cells of the border, which
            stay there; ``"soft-argmax"``: the mean position.
        temperature: of soft-argmax, above 0.

    Returns:
        :class:`Peaks`: points ``(N, K, 2)``, x then y in cells, and scores ``(N, K)``, the values
        of the highest cells. float32 for half types.

    Raises:
        ValueError: maps of another number of axes, or without a cell; an unknown method.

    The gradient of soft-argmax goes to every cell; that of the others to the peak's neighbours.

    Use when:
        Scoring keypoints, or training through the position (soft-argmax).

    Elsewhere:
        mmpose ``get_heatmap_maximum`` with ``refine_keypoints``, kornia ``spatial_soft_argmax2d``.

    Differs from:
        mmpose: a fitted offset, not a quarter of a cell towards the higher neighbour.

    Example:
        >>> import torch
        >>> from aptt.loss import render_heatmaps
        >>> maps = render_heatmaps(torch.tensor([[[3.3, 2.8]]]), (8, 8))
        >>> [round(v, 3) for v in decode_heatmaps(maps, method="gaussian").points[0, 0].tolist()]
        [3.3, 2.8]
    """
    check_choice("method", method, ("argmax", "parabola", "gaussian", "soft-argmax"))
    check_positive("temperature", temperature)
    check_floating(heatmaps=heatmaps)
    check_shapes(heatmaps=(heatmaps, "N K height width"))
    height, width = heatmaps.shape[2:]
    if height * width == 0:
        raise ValueError(f"heatmaps: got {tuple(heatmaps.shape)}, with no cell in a map")
    maps = widen(heatmaps)
    scores, at = maps.flatten(2).max(2)
    if method == "soft-argmax":
        return Peaks(mean_position(maps, temperature), scores)
    points = torch.stack((at % width, at // width), 2).to(maps.dtype)
    if method != "argmax":
        points = points + vertices(maps, at, log=method == "gaussian")
    return Peaks(points, scores)
